"""T -> 0: chemical potentials, how cold, and what is compared with the ground state."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from bilayer_orchestra.checking.plan import Check
from bilayer_orchestra.checking.report import write_report
from bilayer_orchestra.checking.sectors import Level, place_potentials, solve_sectors, with_beta
from bilayer_orchestra.engines.registry import get_engine
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.plots.check_page import write_page
from bilayer_orchestra.running.point import Runner
from bilayer_orchestra.tuning.point import run_model
from tests.support.models import make_model

#: Three rungs with room between the levels.
EASY = {"t_perp": 1.0, "P": {"interaction": -2.0, "chemical_potential": 0.1}}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def easy(root):
    model = make_model({"n_up": 1, "n_down": 1}, 2, **EASY)
    return Check(model, ["exact", "block2"], root, lambda line: None).run()


def test_the_limit_agrees_with_the_ground_state(easy):
    kinds = {(v.first, v.second): v.word for v in easy.verdicts}
    assert kinds == {
        ("exact", "block2"): "agree",
        ("exact T->0", "exact"): "agree",
        ("exact T->0", "block2"): "agree",
    }


def test_the_residual_is_that_of_the_exact_ensemble(easy):
    """The estimated weight of other sectors against the particle number of the thermal state."""
    ladder = easy.ladder
    coldest = ladder.rungs[-1]
    thermal = easy.thermal["exact"][coldest.beta]
    assert ladder.placement.residual(coldest.beta) <= 0.01
    # weight of each sector times its change of N; the exact state knows all sectors
    weights = ladder.placement.weights(coldest.beta)
    norm = 1 + sum(weights.values())
    shift = sum(
        weights[f"({level.n_up}, {level.n_down})"] / norm * (level.n_up + level.n_down - 2)
        for level in ladder.placement.others
    )
    assert float(thermal["density"].sum()) - 2 == pytest.approx(shift, abs=2e-4)


def test_a_wrong_chemical_potential_is_noticed(easy, root):
    """The mutation that matters most on a ladder: mu off by U/2 ends in another sector."""
    from bilayer_orchestra.checking.comparison import Pair
    from bilayer_orchestra.checking.verdict import judge_all

    rung = easy.ladder.rungs[-1]
    wrong = with_beta(rung.model, rung.beta, -1.0)
    dataset = run_model(wrong, get_engine("exact"), Runner(root)).dataset
    right = next(v for v in easy.verdicts if v.first == "exact T->0")
    pair = Pair(dataset, right.pair.second, ("exact T->0", "exact"), "limit", right.pair.extra)
    assert judge_all([pair])[0].word == "disagree"


def test_a_tiny_gap_is_out_of_reach(root):
    """Four rungs, 3 + 3, t_perp = 0.5, U = -4: gap 1.7e-3; nothing is extrapolated through it."""
    model = make_model({"n_up": 3, "n_down": 3}, 4)
    outcome = Check(model, ["exact"], root, lambda line: None).run()
    assert "out of reach" in outcome.ladder.describe()[-1]
    assert "0.0017" in outcome.ladder.out_of_reach
    assert not outcome.ladder.rungs
    assert outcome.word == "undecided"


def test_a_polarized_sector_has_no_thermal_limit(root):
    model = make_model({"n_up": 2, "n_down": 1}, 2, **EASY)
    outcome = Check(model, ["exact"], root, lambda line: None).run()
    assert outcome.ladder.out_of_reach


def test_levels_by_hand():
    # E = (N - 2)^2: the window of mu for N = 2 is (-1, 1), its middle 0
    levels = [Level(n, n, float((2 * n - 2) ** 2)) for n in (0, 2)]
    levels += [Level(1, 0, 1.0), Level(2, 1, 1.0)]
    placement = place_potentials(Level(1, 1, 0.0), levels)
    assert (placement.lower, placement.upper, placement.mu) == (-1.0, 1.0, 0.0)
    beta = placement.needed_beta(0.01)
    assert 2 * np.exp(-beta) + 2 * np.exp(-4 * beta) == pytest.approx(0.01 / 0.99, rel=1e-6)


def test_an_odd_sector_between_bound_pairs_is_refused():
    odd = Level(1, 0, 1.0)
    with pytest.raises(OrchestraError, match="no chemical potential"):
        place_potentials(odd, [Level(0, 0, 0.0), Level(1, 1, 0.0)])


def test_neighbours_use_the_mirror_image(root):
    solved = []

    def solve(model):
        solved.append(model.state)
        return run_model(model, get_engine("exact"), Runner(root)).dataset

    _, others, results = solve_sectors(make_model({"n_up": 1, "n_down": 1}, 2, **EASY), solve)
    assert all(state.n_up >= state.n_down for state in solved)
    assert {(level.n_up, level.n_down) for level in others} >= {(2, 1), (1, 2), (0, 0), (2, 2)}
    assert len(results) == len(solved)


def test_the_report_is_complete_and_escaped(easy, tmp_path):
    easy.notes.append("<script>alert(1)</script>")
    dataset = write_report(easy, tmp_path, "headline & more")
    page = write_page(easy, tmp_path / "check.html", "headline & more").read_text()
    assert "<script>" not in page
    assert "headline &amp; more" in page
    assert "http" not in page.replace("http-equiv", "")
    with xr.open_dataset(dataset) as dataset:
        assert dataset.attrs["verdict"] == "agree"
        assert list(dataset["verdict"].values) == ["agree"] * 3
        pair = dataset["pair_difference"].sel(pair="exact / block2")
        assert float(np.abs(pair).max()) < 1e-6
        assert np.isfinite(pair).all()
        assert "temperature" in dataset["systematic"].values
        thermal = dataset["pair_systematic"].sel(
            pair="exact T->0 / exact", systematic="temperature"
        )
        assert float(thermal.max()) > 0


def test_truncation_at_twenty_states_is_noticed(root):
    model = make_model({"n_up": 3, "n_down": 3}, 6, t_perp=1.0, P={"interaction": -2.0})
    few = {"block2": {"max_bond_dimension": 20}}
    model = type(model).model_validate(model.model_dump(exclude_unset=True) | {"numerics": few})
    outcome = Check(model, ["exact", "block2"], root, lambda line: None).run()
    verdict = next(v for v in outcome.verdicts if v.second == "block2")
    assert verdict.word == "disagree"
    assert "truncation" in verdict.cause
    assert any("no engine here" in note for note in outcome.notes)  # 12 sites, no AFQMC named
