"""Reading a dataset back: arrays in the order of a model's sites."""

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
    """Return a function of one or two sites in the order of ``sites``.

    Parameters
    ----------
    array : DataArray
        With the fields of the sites' labels as dimensions (``layer``, ``x``) and, of two sites,
        those of the second one (``layer_``, ``x_``); others come first.
    sites : sequence of Site
        The labels.

    Returns
    -------
    array, shape (..., N) or (..., N, N)
    """
    import xarray as xr

    ends = []
    for end in ("", "_"):
        if f"{sites[0]._fields[0]}{end}" in array.dims:
            ends.append(f"site{end}")
            places = zip(sites[0]._fields, zip(*sites, strict=True), strict=True)
            array = array.sel(
                {f"{dim}{end}": xr.DataArray(list(one), dims=ends[-1]) for dim, one in places}
            )
    return np.asarray(array.transpose(..., *ends).values)


def site_dims(dataset: xr.Dataset) -> tuple[str, ...]:
    """Return the fields of the labels of a dataset's sites."""
    return tuple(str(dataset.attrs.get(SITE_DIMS, " ".join(Site._fields))).split())
