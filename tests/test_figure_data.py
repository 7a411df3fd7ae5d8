"""What docs/figures.md claims, on the data that it shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bilayer_orchestra.dataset import open_result
from bilayer_orchestra.figures.common import curve
from bilayer_orchestra.figures.exponents import fits

DATA = Path(__file__).parents[1] / "docs" / "data"


@pytest.mark.parametrize("layer", ["P", "M"])
def test_half_filling_is_degenerate_and_doping_breaks_it(layer):
    dataset = open_result(DATA / "fig3.nc")
    ratios = {}
    for name in ("half filled", "doped"):
        point = dataset.sel(densities=name)
        pair = curve(point, "pair", layer, periodic=False).mean
        density = curve(point, "density_density", layer, periodic=False).mean
        ratios[name] = np.abs(pair) / np.abs(density / 2)
    assert ratios["half filled"] == pytest.approx(1, abs=1e-3)
    assert (ratios["doped"] > 1.2).all()  # pairs dominate


@pytest.mark.parametrize("layer", ["P", "M"])
def test_the_coldest_monte_carlo_is_near_the_ground_state(layer):
    dataset = open_result(DATA / "fig6.nc")
    pairs = {
        name: curve(dataset.sel(temperature=name), "pair", layer, periodic=False).mean
        for name in ("T = 0", "beta = 32", "beta = 16", "beta = 4")
    }
    off = {name: np.abs(pair / pairs["T = 0"] - 1) for name, pair in pairs.items()}
    assert off["beta = 32"].max() < 0.025
    assert 0.1 < off["beta = 16"].max() < 0.3
    assert (off["beta = 4"][2:] > 0.8).all()


def test_attraction_stiffens_the_metal_and_its_length_is_finite_where_the_docs_say_so():
    numbers = fits(open_result(DATA / "fig4.nc")).sel(densities="non-diluted", layer="M")
    numbers = numbers.sortby("U_P", ascending=False)  # ever stronger
    k, error = numbers["pair_K"].values, numbers["pair_K_systematic"].values
    assert (np.diff(k) > np.hypot(error[1:], error[:-1])).all()
    inverse = numbers["green_inverse_xi"].values
    assert (inverse > 10 * numbers["green_inverse_xi_systematic"].values).all()
    assert (inverse[1:] < inverse[:-1]).all()
