"""What docs/figures.md and docs/verdict.md claim, on the data that they show."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from bilayer_orchestra.checking.comparison import WEAKEST
from bilayer_orchestra.dataset.schema import open_result
from bilayer_orchestra.model.spec import load_model, parse_model
from bilayer_orchestra.plots.common import curve
from bilayer_orchestra.plots.study_figure import fits
from tests.support.paths import DOCS_DATA, ROOT


def test_the_kept_verdict_is_that_of_its_file_and_its_page():
    with xr.open_dataset(DOCS_DATA / "crosscheck.nc") as verdict:
        asked = load_model(ROOT / "examples" / "crosscheck.yaml")
        assert parse_model(verdict.attrs["model"], "crosscheck.nc") == asked
        assert set(verdict["verdict"].values) == {"agree"}
        assert (verdict["observable_verdict"] == "agree").all()
        assert verdict.sizes["observable"] == 9
        pairs = " ".join(verdict["pair"].values)
        for engine in ("exact", "block2", "itensor", "alf projector", "alf T->0"):
            assert engine in pairs
        against_alf = verdict["detectable"].sel(
            pair=["alf projector" in p or "alf T" in p for p in verdict["pair"].values]
        )
        energies = [name for name in verdict["observable"].values if name.endswith("energy")]
        assert float(against_alf.min()) > 4e-4
        assert float(against_alf.sel(observable=energies).max()) < 0.012
        assert float(against_alf.max()) < WEAKEST  # up to the distance that is told
        assert verdict.attrs["distance"] == 1
        page = (ROOT / "docs" / "reports" / "crosscheck.html").read_text(encoding="utf-8")
        assert verdict.attrs["summary"] in page


@pytest.mark.parametrize("layer", ["P", "M"])
def test_half_filling_is_degenerate_and_doping_breaks_it(layer):
    dataset = open_result(DOCS_DATA / "fig3.nc")
    ratios = {}
    for name in ("half filled", "doped"):
        point = dataset.sel(densities=name)
        pair = curve(point, "pair", layer).mean
        density = curve(point, "density_density", layer).mean
        ratios[name] = np.abs(pair) / np.abs(density / 2)
    assert ratios["half filled"] == pytest.approx(1, abs=1e-3)
    assert (ratios["doped"] > 1.2).all()  # pairs dominate


@pytest.mark.parametrize("layer", ["P", "M"])
def test_the_coldest_monte_carlo_is_near_the_ground_state(layer):
    dataset = open_result(DOCS_DATA / "fig6.nc")
    pairs = {
        name: curve(dataset.sel(temperature=name), "pair", layer).mean
        for name in ("T = 0", "beta = 32", "beta = 16", "beta = 4")
    }
    off = {name: np.abs(pair / pairs["T = 0"] - 1) for name, pair in pairs.items()}
    assert off["beta = 32"].max() < 0.025
    assert 0.1 < off["beta = 16"].max() < 0.3
    assert (off["beta = 4"][2:] > 0.8).all()


def test_attraction_stiffens_the_metal_and_its_length_is_finite_where_the_docs_say_so():
    numbers = fits(open_result(DOCS_DATA / "fig4.nc")).sel(densities="non-diluted", layer="M")
    numbers = numbers.sortby("U_P", ascending=False)  # ever stronger
    k, error = numbers["pair_K"].values, numbers["pair_K_systematic"].values
    assert (np.diff(k) > np.hypot(error[1:], error[:-1])).all()
    inverse = numbers["green_inverse_xi"].values
    assert (inverse > 10 * numbers["green_inverse_xi_systematic"].values).all()
    assert (inverse[1:] < inverse[:-1]).all()
