"""Reading a dataset back: arrays in the order of a model's sites, and what pairs of sites share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bilayer_orchestra.terms import FloatArray, Site

if TYPE_CHECKING:
    import xarray as xr


def by_site(array: xr.DataArray, sites: Sequence[Site]) -> FloatArray:
    """Return a function of one or two sites in the order of ``sites``; of none as it is.

    Parameters
    ----------
    array : DataArray
        With dimensions ``layer``, ``x`` and, of two sites, ``layer_``, ``x_``; others come first,
        spin up before spin down.
    sites : sequence of Site
        All or some of its sites.

    Returns
    -------
    array, shape (..., N) or (..., N, N)
    """
    import xarray as xr

    layers, places = [site.layer for site in sites], [site.x for site in sites]
    ends = [end for end in ("", "_") if f"x{end}" in array.dims]
    for end in ends:
        array = array.sel(
            {
                f"layer{end}": xr.DataArray(layers, dims=f"site{end}"),
                f"x{end}": xr.DataArray(places, dims=f"site{end}"),
            }
        )
    if "spin" in array.dims:
        array = array.sel(spin=["up", "down"])
    return np.asarray(array.transpose(..., *(f"site{end}" for end in ends)).values)


def mirrored(array: xr.DataArray) -> xr.DataArray:
    """Return a function of two sites with its sites exchanged; labels decide, not positions."""
    other = array.rename({"layer": "layer_", "layer_": "layer", "x": "x_", "x_": "x"})
    return other.transpose(*array.dims).reindex_like(array)


def on_site(matrix: xr.DataArray) -> xr.DataArray:
    """Return the elements with equal sites of a function of two sites."""
    same = matrix.reindex({f"{dim}_": matrix[dim].values for dim in ("layer", "x")})
    same = same.transpose(..., "layer", "x", "layer_", "x_")
    return (
        same[..., 0, 0]
        .drop_vars(["layer_", "x_"])
        .copy(data=np.einsum("...axax->...ax", same.values))
    )


def density_product(density: xr.DataArray) -> xr.DataArray:
    """Return <n_i><n_j> of the densities per spin."""
    total = density.sum("spin")
    return total * total.rename({"layer": "layer_", "x": "x_"})
