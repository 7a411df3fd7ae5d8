"""Datasets against arrays in site order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

TWO_POINT = ("pair", "green", "density_density", "spin_spin")


def site_matrix(dataset: xr.Dataset, name: str) -> Any:
    """Return a two-point function as a matrix over sites ordered P0 M0 P1 M1 ..."""
    stacked = dataset[name].stack(i=("x", "layer"), j=("x_", "layer_"))
    order = [(x, layer) for x in dataset.x.values for layer in ("P", "M")]
    return stacked.sel(i=order, j=order).transpose(..., "i", "j").values


def assert_matches(dataset, expected, tolerance):
    assert float(dataset.energy) == pytest.approx(float(expected["energy"]), abs=tolerance)
    for name in TWO_POINT:
        np.testing.assert_allclose(
            site_matrix(dataset, name), expected[name], atol=tolerance, err_msg=name
        )
    for spin in (0, 1):
        np.testing.assert_allclose(
            dataset.density.isel(spin=spin).transpose("x", "layer").values.ravel(),
            expected["density"][spin],
            atol=tolerance,
        )
    np.testing.assert_allclose(
        dataset.double_occupancy.transpose("x", "layer").values.ravel(),
        expected["double_occupancy"],
        atol=tolerance,
    )
