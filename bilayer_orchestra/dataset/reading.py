"""Reading a dataset back: arrays in the order of a model's sites, and what pairs of sites share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bilayer_orchestra.terms import FloatArray, Site

if TYPE_CHECKING:
    import xarray as xr

#: Attribute with the dimensions of a site where they are not those of coupled chains.
SITE_DIMS = "site_dims"


def by_site(array: xr.DataArray, sites: Sequence[Site]) -> FloatArray:
    """Return a function of one or two sites in the order of ``sites``; of none as it is.

    Parameters
    ----------
    array : DataArray
        With the fields of the sites' labels as dimensions (``layer``, ``x``) and, of two sites,
        those of the second one (``layer_``, ``x_``); others come first, spin up before spin down.
    sites : sequence of Site
        All or some of its sites.

    Returns
    -------
    array, shape (..., N) or (..., N, N)
    """
    import xarray as xr

    labels = dict(zip(sites[0]._fields, zip(*sites, strict=True), strict=True))
    ends = [end for end in ("", "_") if f"{sites[0]._fields[0]}{end}" in array.dims]
    for end in ends:
        array = array.sel(
            {
                f"{dim}{end}": xr.DataArray(list(one), dims=f"site{end}")
                for dim, one in labels.items()
            }
        )
    if "spin" in array.dims:
        array = array.sel(spin=["up", "down"])
    return np.asarray(array.transpose(..., *(f"site{end}" for end in ends)).values)


def mirrored(array: xr.DataArray) -> xr.DataArray:
    """Return a function of two sites with its sites exchanged; labels decide, not positions."""
    dims = paired_dims(array)
    other = array.rename({dim: f"{dim}_" for dim in dims} | {f"{dim}_": dim for dim in dims})
    return other.transpose(*array.dims).reindex_like(array)


def on_site(matrix: xr.DataArray) -> xr.DataArray:
    """Return the elements with equal sites of a function of two sites."""
    dims = paired_dims(matrix)
    second = [f"{dim}_" for dim in dims]
    same = matrix.reindex({f"{dim}_": matrix[dim].values for dim in dims})
    same = same.transpose(..., *dims, *second)
    leading, sites = same.shape[: -2 * len(dims)], same.shape[-len(dims) :]
    number = int(np.prod(sites))
    diagonal = same.values.reshape(*leading, number, number).diagonal(axis1=-2, axis2=-1)
    one = same.isel(dict.fromkeys(second, 0), drop=True)
    return one.copy(data=diagonal.reshape(*leading, *sites))


def density_product(density: xr.DataArray) -> xr.DataArray:
    """Return <n_i><n_j> of the densities per spin."""
    total = density.sum("spin")
    return total * total.rename({dim: f"{dim}_" for dim in total.dims})


def paired_dims(array: xr.DataArray) -> list[str]:
    """Return the dimensions of the first of two sites."""
    return [str(dim) for dim in array.dims if f"{dim}_" in array.dims]


def site_dims(dataset: xr.Dataset) -> tuple[str, ...]:
    """Return the fields of the labels of a dataset's sites."""
    return tuple(str(dataset.attrs.get(SITE_DIMS, " ".join(Site._fields))).split())
