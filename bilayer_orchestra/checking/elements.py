"""One observable of a dataset as a vector of independent elements.

Two-point functions are symmetric (real Hamiltonian, real averages): one of each pair (i, j), (j, i)
is kept, so that nothing is counted twice. That they are symmetric is tested by
:mod:`bilayer_orchestra.checking.consistency`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bilayer_orchestra.observables import OBSERVABLES
from bilayer_orchestra.terms import FloatArray

BoolArray = NDArray[np.bool_]


class Elements(NamedTuple):
    """Values (p,), deviations (blocks, p), their degrees of freedom, |bias| (p,), labels (p)."""

    values: FloatArray
    deviations: FloatArray
    degrees: float
    bias: FloatArray
    labels: list[str]

    def of(self, places: NDArray[np.intp]) -> Elements:
        """Return the elements at these places."""
        return self._replace(
            values=self.values[places],
            deviations=self.deviations[:, places],
            bias=self.bias[places],
            labels=[self.labels[k] for k in places],
        )


def elements_of(dataset: xr.Dataset, name: str) -> Elements:
    """Return observable ``name`` of ``dataset`` in the canonical order of labels."""
    values = ordered(dataset[name], name)
    keep = kept(values)
    bias = np.abs(ordered(dataset[f"{name}_bias"], name).values[keep])
    if f"{name}_deviation" in dataset:
        variable = ordered(dataset[f"{name}_deviation"], name, "block")
        deviations = variable.values[:, keep].astype(float)
        degrees = float(dataset[name].attrs["covariance_degrees_of_freedom"])
    elif f"{name}_stderr" in dataset:  # errors without a covariance: independent elements
        stderr = ordered(dataset[f"{name}_stderr"], name).values[keep].astype(float)
        deviations, degrees = np.diag(stderr), np.inf
    else:
        deviations, degrees = np.zeros((0, int(keep.sum()))), np.inf
    return Elements(values.values[keep], deviations, degrees, bias, _labels(values, keep))


def vector(array: xr.DataArray, name: str) -> FloatArray:
    """Return ``array``, of the dimensions of observable ``name``, as :func:`elements_of` does."""
    values = ordered(array, name)
    return np.asarray(values.values[kept(values)], dtype=float)


def labelled(flat: FloatArray, like: xr.DataArray, name: str) -> xr.DataArray:
    """Put a vector of elements back into the shape of ``like``; the other triangle is mirrored."""
    values = ordered(like, name)
    keep = kept(values)
    full = np.full(values.shape, np.nan)
    full[keep] = flat
    result = values.copy(data=full)
    result.attrs = {}
    if "x_" in result.dims:
        swapped = result.rename({"layer": "layer_", "layer_": "layer", "x": "x_", "x_": "x"})
        mirror = swapped.transpose(*result.dims).values
        result.values = np.where(np.isnan(full), mirror, full)
    return result


def kept(values: xr.DataArray) -> BoolArray:
    """Return which elements are compared: one of each symmetric pair."""
    if "x_" not in values.dims:
        return np.ones(values.shape, dtype=bool)
    shape = values.sizes["layer"], values.sizes["x"]
    order = np.arange(shape[0] * shape[1]).reshape(shape)
    upper = order[:, :, None, None] <= order[None, None, :, :]
    return np.broadcast_to(upper, values.shape)


def ordered(array: xr.DataArray, name: str, *leading: str) -> xr.DataArray:
    """Return ``array`` with its labels sorted and its dimensions as the observable's."""
    dims = OBSERVABLES[name].dims
    by = [d for d in ("spin", "layer", "layer_", "x", "x_") if d in dims and d in array.coords]
    return (array.sortby(by) if by else array).transpose(*leading, *dims)


def _labels(values: xr.DataArray, keep: BoolArray) -> list[str]:
    coordinates = [values[dim].values for dim in values.dims]
    return [
        " ".join(
            f"{dim}={axis[k]}" for dim, axis, k in zip(values.dims, coordinates, index, strict=True)
        )
        for index in np.argwhere(keep)
    ]
