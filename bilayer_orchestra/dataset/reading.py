"""Reading a dataset back: arrays in the order of a model's sites."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bilayer_orchestra.terms import FloatArray, Site

if TYPE_CHECKING:
    import xarray as xr


def by_site(array: xr.DataArray, sites: Sequence[Site]) -> FloatArray:
    """Return a function of one or two sites in the order of ``sites``.

    Parameters
    ----------
    array : DataArray
        With dimensions ``layer``, ``x`` and, of two sites, ``layer_``, ``x_``; others come first.

    Returns
    -------
    array, shape (..., N) or (..., N, N)
    """
    import xarray as xr

    layers, places = [site.layer for site in sites], [site.x for site in sites]
    chosen = array.sel(layer=xr.DataArray(layers, dims="site"), x=xr.DataArray(places, dims="site"))
    if "x_" in array.dims:
        chosen = chosen.sel(
            layer_=xr.DataArray(layers, dims="site_"), x_=xr.DataArray(places, dims="site_")
        )
        return np.asarray(chosen.transpose(..., "site", "site_").values)
    return np.asarray(chosen.transpose(..., "site").values)
