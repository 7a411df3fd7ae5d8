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

from bilayer_orchestra.dataset.reading import mirrored
from bilayer_orchestra.observables import OBSERVABLES
from bilayer_orchestra.terms import FloatArray


class Elements(NamedTuple):
    """Values (p,), deviations (blocks, p), their degrees of freedom, |bias| (p,), labels (p)."""

    values: FloatArray
    deviations: FloatArray
    degrees: float
    bias: FloatArray
    labels: list[str]

    @property
    def stderr(self) -> FloatArray:
        """Standard error, shape (p,); zero without statistical errors."""
        return np.asarray(np.sqrt(np.sum(self.deviations**2, axis=0)))

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
    deviations, degrees = np.zeros((0, int(keep.sum()))), np.inf
    if f"{name}_deviation" in dataset:
        variable = ordered(dataset[f"{name}_deviation"], name, "block")
        deviations = variable.values[:, keep].astype(float)
        degrees = float(dataset[name].attrs["covariance_degrees_of_freedom"])
    elif f"{name}_stderr" in dataset:  # errors without a covariance: independent elements
        deviations = np.diag(vector(dataset[f"{name}_stderr"], name))
    labels = [
        " ".join(
            f"{dim}={values[dim].values[k]}" for dim, k in zip(values.dims, index, strict=True)
        )
        for index in np.argwhere(keep)
    ]
    bias = np.abs(vector(dataset[f"{name}_bias"], name))
    return Elements(values.values[keep], deviations, degrees, bias, labels)


def vector(array: xr.DataArray, name: str) -> FloatArray:
    """Return ``array``, of the dimensions of observable ``name``, as :func:`elements_of` does."""
    values = ordered(array, name)
    return np.asarray(values.values[kept(values)], dtype=float)


def labelled(flat: FloatArray, like: xr.DataArray) -> xr.DataArray:
    """Put a vector of elements back into the shape of ``like``; the other triangle is mirrored.

    Parameters
    ----------
    flat : array, shape (p,)
        In the order of :func:`elements_of`.
    like : DataArray
        As :func:`ordered` returns it.
    """
    result = xr.full_like(like, np.nan, dtype=float)
    result.attrs = {}
    result.values[kept(like)] = flat
    return result.fillna(mirrored(result)) if "x_" in result.dims else result


def kept(values: xr.DataArray) -> NDArray[np.bool_]:
    """Return which elements are compared: one of each symmetric pair."""
    if "x_" not in values.dims:
        return np.ones(values.shape, dtype=bool)
    shape = values.sizes["layer"], values.sizes["x"]
    order = np.arange(shape[0] * shape[1]).reshape(shape)
    upper = order[:, :, None, None] <= order[None, None, :, :]
    return np.broadcast_to(upper, values.shape)


def ordered(array: xr.DataArray, name: str, *leading: str) -> xr.DataArray:
    """Return ``array`` with its labels sorted and its dimensions as the observable's.

    Parameters
    ----------
    array : DataArray
        Of the dimensions of the observable, and ``leading`` ones.
    name : str
        Of the observable.
    *leading : str
        Dimensions that come first.
    """
    dims = OBSERVABLES[name].dims
    by = [dim for dim in dims if dim in array.coords]
    return (array.sortby(by) if by else array).transpose(*leading, *dims)
