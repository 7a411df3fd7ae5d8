"""One observable of two datasets as vectors of independent elements.

Two-point functions are symmetric (real Hamiltonian, real averages): one of each pair (i, j), (j, i)
is kept, so that nothing is counted twice.
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


def elements_of(dataset: xr.Dataset, name: str) -> Elements:
    """Return observable ``name`` of ``dataset`` in the canonical order of labels."""
    dims = OBSERVABLES[name].dims
    ordered = dataset.sortby([d for d in ("layer", "layer_", "x", "x_") if d in dims])
    values = ordered[name].transpose(*dims)
    keep = _kept(values)
    bias = np.abs(ordered[f"{name}_bias"].transpose(*dims).values[keep])
    if f"{name}_deviation" in ordered:
        variable = ordered[f"{name}_deviation"].transpose("block", *dims)
        deviations = variable.values[:, keep].astype(float)
        degrees = float(dataset[name].attrs["covariance_degrees_of_freedom"])
    else:
        deviations, degrees = np.zeros((0, int(keep.sum()))), np.inf
    return Elements(values.values[keep], deviations, degrees, bias, _labels(values, keep))


def _kept(values: xr.DataArray) -> BoolArray:
    present: BoolArray = ~np.isnan(values.values)
    if "x_" not in values.dims:
        return present
    shape = values.sizes["layer"], values.sizes["x"]
    order = np.arange(shape[0] * shape[1]).reshape(shape)
    upper = order[:, :, None, None] <= order[None, None, :, :]
    return np.asarray(present & np.broadcast_to(upper, values.shape))


def _labels(values: xr.DataArray, keep: BoolArray) -> list[str]:
    coordinates = [values[dim].values for dim in values.dims]
    return [
        " ".join(
            f"{dim}={axis[k]}" for dim, axis, k in zip(values.dims, coordinates, index, strict=True)
        )
        for index in np.argwhere(keep)
    ]
