"""Agreement reaches as far as there is power: classes of elements, distances, and zeros.

The results are free fermions in closed form on a ladder that is long enough for correlations to
decay, with errors of a chosen size at every distance.
"""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from bilayer_orchestra.averages import Averages
from bilayer_orchestra.checking.closed_forms import averages
from bilayer_orchestra.checking.comparison import Pair
from bilayer_orchestra.checking.elements import classes_of, elements_of, natural_scale
from bilayer_orchestra.checking.verdict import judge_all
from bilayer_orchestra.cli.app import app
from bilayer_orchestra.dataset.reading import statement
from bilayer_orchestra.dataset.schema import build
from bilayer_orchestra.observables import OBSERVABLES
from tests.support.checks import judge
from tests.support.models import make_model

LENGTH = 10


@pytest.fixture(scope="module")
def free():
    """Return the thermal state of a free ladder as a result of some engine."""
    layers = {
        "P": {"interaction": 0.0, "chemical_potential": -0.3},
        "M": {"chemical_potential": -0.7},
    }
    return result_of(make_model({"beta": 4.0}, LENGTH, t_perp=0.7, **layers))


def result_of(model) -> xr.Dataset:
    terms = model.terms()
    dataset = build(terms, Averages(averages(terms)), model.observables)
    dataset.attrs = {
        "orchestra_schema": 1,
        "model": model.to_yaml(),
        "model_name": model.name,
        "request_hash": "any",
        "terms_hash": "the same",
        "seed": -1,
        "ensemble": "grand canonical",
        "backend": "exact",
        "engine": "closed form",
        "converged": 1,
        "converged_reason": "closed form",
        **statement(False, ()),
    }
    return dataset


def separation(array: xr.DataArray) -> xr.DataArray:
    """Steps along the chains, and one more from layer to layer."""
    if "x_" not in array.dims:
        return xr.zeros_like(array, dtype=int)
    steps = abs(array["x"] - array["x_"]) + (array["layer"] != array["layer_"])
    return steps.broadcast_like(array).transpose(*array.dims)


def sampled(truth, seed=1, relative=lambda distance: 0.01, blocks=48, stated=lambda distance: 1.0):
    """A Monte Carlo result: errors ``relative`` to each element, at each distance.

    ``stated`` is what the stated errors are, in units of the true ones.
    """
    rng = np.random.default_rng(seed)
    result = truth.copy(deep=True)
    result.attrs |= {"backend": "alf", "engine": "sampled", **statement(True, ("Trotter",))}
    for name in OBSERVABLES:
        if name not in truth:
            continue
        value, distance = truth[name].values, separation(truth[name]).values
        error, factor = np.zeros(value.shape), np.ones(value.shape)
        for steps in np.unique(distance):
            here = distance == steps
            error[here] = relative(steps) * np.abs(value[here])
            factor[here] = stated(steps)
        noise = rng.standard_normal((blocks, *value.shape))
        if "x_" in truth[name].dims:
            two = noise.reshape(blocks, -1, 2, LENGTH, 2, LENGTH)
            noise = ((two + two.transpose(0, 1, 4, 5, 2, 3)) / np.sqrt(2)).reshape(noise.shape)
        samples = np.sqrt(blocks) * error * noise
        mean = samples.mean(axis=0)
        deviations = factor * (samples - mean) / np.sqrt(blocks * (blocks - 1))
        attributes = truth[name].attrs | {"covariance_degrees_of_freedom": blocks - 1}
        result[name] = (truth[name].dims, value + mean, attributes)
        result[f"{name}_deviation"] = (("block", *truth[name].dims), deviations)
        result[f"{name}_stderr"] = (truth[name].dims, np.sqrt((deviations**2).sum(axis=0)))
        result[f"{name}_bias"] = (truth[name].dims, np.zeros_like(value))
    return result


def changed(truth, name, factor):
    """Multiply ``name`` by a factor for each distance."""
    steps = separation(truth[name])
    wrong = truth[name] * xr.apply_ufunc(np.vectorize(factor, otypes=[float]), steps)
    return truth.assign({name: wrong.transpose(*truth[name].dims).assign_attrs(truth[name].attrs)})


def test_large_errors_off_site_hide_large_deviations_and_are_no_agreement(free):
    """The diagonal, known to 0.1 %, is the double occupancy and says nothing of pairs."""
    rng = np.random.default_rng(0)
    wrong = changed(free, "pair", lambda steps: rng.uniform(2.3, 3.2) if steps else 1.0)
    wrong["pair"] = (wrong["pair"] + free["pair"]) / 2  # 65 to 110 % off, symmetric enough
    measured = sampled(wrong, relative=lambda steps: 0.62 if steps else 0.001)
    verdict = judge(free, measured)
    pair = next(f for f in verdict.findings if f.name == "pair")
    assert pair.word != "agree"
    assert verdict.word != "agree"
    assert pair.distance == 0


@pytest.mark.parametrize(("error", "distance"), [(0.002, 10), (0.2, 0)])
def test_what_one_of_them_knows_to_vanish_needs_errors_small_beside_the_others(
    free, error, distance
):
    """No error is a part of nothing: that of a thermal state beside an exact zero."""
    truth = changed(free, "pair", lambda steps: 0.0 if steps else 1.0)
    measured, ones = sampled(truth), xr.ones_like(truth["pair"])
    noise = sampled(truth.assign(pair=ones), relative=lambda steps: error if steps else 0.001)
    measured["pair"] = (truth["pair"] + noise["pair"] - ones).assign_attrs(noise["pair"].attrs)
    for part in ("pair_deviation", "pair_stderr"):
        measured[part] = noise[part]
    finding = next(f for f in judge(truth, measured).findings if f.name == "pair")
    assert finding.distance == distance, finding
    assert (finding.word == "agree") == (distance > 0)


def test_agreement_ends_where_the_errors_are_too_large(free):
    measured = sampled(free, relative=lambda steps: 0.01 if steps <= 3 else 0.5)
    (near,) = judge_all([Pair(free, measured, ("a", "b"))])
    assert (near.word, near.distance) == ("agree", 3)
    assert "up to distance 3" in near.reason
    (far,) = judge_all([Pair(free, measured, ("a", "b"))], distance=4)
    assert far.word == "undecided"
    assert "distance 4 was asked for" in far.reason


@pytest.mark.parametrize("name", ["pair", "green", "density_density", "spin_spin"])
def test_one_correlation_known_badly_limits_the_distance(free, name):
    good = sampled(free)
    poor = sampled(free, relative=lambda steps: 0.01 if steps <= 2 else 0.5)
    for part in (name, f"{name}_deviation", f"{name}_stderr"):
        good[part] = poor[part]
    verdict = judge(free, good)
    assert (verdict.word, verdict.distance) == ("agree", 2)
    assert name in verdict.reason


def test_errors_too_large_across_a_rung_are_undecided(free):
    """Neighbours within the layers are known, sites of one rung are not."""
    measured = sampled(free)
    unknown = separation(measured["pair"]) * (measured["layer"] != measured["layer_"])
    for part in ("pair_deviation", "pair_stderr"):
        measured[part] = measured[part].where(unknown == 0, 40 * measured[part])
    verdict = judge(free, measured)
    assert verdict.word == "undecided"
    assert "M-P at 1" in verdict.reason


def test_without_correlations_there_is_no_distance(free):
    few = free[["energy", "energy_bias", "density", "density_bias"]]
    assert judge(few, sampled(few)).distance is None
    assert judge(few, sampled(few)).word == "agree"


MUTATIONS = {
    "decay too fast at long distance only": lambda d: changed(
        d, "pair", lambda r: np.exp(-max(r - 4, 0) / 3)
    ),
    "decay too slow at long distance only": lambda d: changed(
        d, "green", lambda r: np.exp(max(r - 4, 0) / 5)
    ),
    "truncated beyond a distance": lambda d: changed(d, "density_density", lambda r: r <= 6),
    "spin correlation alternates beyond a distance": lambda d: changed(
        d, "spin_spin", lambda r: (-1.0) ** r if r > 5 else 1.0
    ),
}


@pytest.mark.cases(2)
@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS.keys())
def test_what_is_wrong_at_long_distance_only_is_noticed(free, mutation):
    assert judge(free, sampled(mutation(free))).word == "disagree"


@pytest.mark.cases(2)
@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS.keys())
def test_what_is_wrong_beyond_the_stated_distance_is_not_vouched_for(free, mutation):
    """Errors of half the value beyond distance 4: the verdict does not reach what is wrong."""
    broken = sampled(mutation(free), relative=lambda steps: 0.01 if steps <= 4 else 0.5)
    verdict = judge(free, broken)
    assert verdict.word == "disagree" or verdict.distance == 4


def test_errors_of_distant_elements_stated_three_times_too_small_are_noticed(free):
    words = [
        judge(free, sampled(free, seed, stated=lambda steps: 1 / 3 if steps >= 5 else 1.0)).word
        for seed in range(3)
    ]
    assert words == ["disagree"] * 3


def test_errors_of_distant_elements_stated_three_times_too_large_cost_distance(free):
    def errors(steps):
        return 0.005 * (1 + steps)

    right = judge(free, sampled(free, relative=errors))
    wide = judge(free, sampled(free, relative=errors, stated=lambda r: 3.0 if r >= 3 else 1.0))
    assert (right.word, wide.word) == ("agree", "agree")
    assert wide.distance < right.distance


@pytest.mark.slow
def test_two_hundred_seeds_at_every_distance(free):
    """No more false alarms than claimed with hundreds of classes, and no blunt test either."""
    verdicts = [
        judge(free, sampled(free, seed, relative=lambda r: 0.003 * (1 + r))) for seed in range(200)
    ]
    assert sum(v.word == "disagree" for v in verdicts) <= 7  # 1 % of 200 is 2
    assert sum(v.word == "agree" for v in verdicts) >= 190
    smallest = np.array([min(f.test.p_value for f in v.findings) for v in verdicts])
    assert np.mean(smallest < 0.01) > 0.05


def test_classes_count_steps_and_rings_the_shorter_way():
    ring = result_of(make_model({"beta": 1.0}, 6, boundary="periodic", P={"interaction": 0.0}))
    names = [part.name for part in classes_of(ring, "pair", ring=True)]
    assert names[:4] == ["M on site", "P on site", "M at 1", "M-P at 1"]
    assert max(part.distance for part in classes_of(ring, "pair", ring=True)) == 4
    assert max(part.distance for part in classes_of(ring, "pair", ring=False)) == 6
    parts = classes_of(ring, "pair", ring=True)
    members = np.sort(np.concatenate([part.members for part in parts]))
    np.testing.assert_array_equal(members, np.arange(len(elements_of(ring, "pair").values)))
    assert [part.repeats for part in parts[:3]] == [True, True, False]
    alone = ring.drop_vars("double_occupancy")
    assert not classes_of(alone, "pair", ring=True)[0].repeats


#: Models in which something vanishes, as the command line gets them.
VANISHING = {
    "U = 0": make_model({"n_up": 3, "n_down": 3}, 3, P={"interaction": 0.0}),
    "polarized": make_model({"n_up": 3, "n_down": 0}, 4),
    "one electron": make_model({"n_up": 1, "n_down": 0}, 2),
    "large couplings": make_model(
        {"n_up": 2, "n_down": 2}, 2, t_perp=800.0, P={"interaction": -4e3}, M={"hopping": 1e3}
    ),
    "small couplings": make_model(
        {"n_up": 2, "n_down": 2}, 2, t_perp=8e-4, P={"interaction": -4e-3}, M={"hopping": 1e-3}
    ),
}


@pytest.mark.cases(2)
@pytest.mark.parametrize("model", VANISHING.values(), ids=VANISHING.keys())
def test_what_vanishes_agrees_with_what_vanishes(model, solve):
    verdict = judge(solve(model, "exact"), solve(model, "block2"))
    assert verdict.word == "agree", (verdict.reason, verdict.cause)


def test_a_difference_that_matters_is_no_rounding_in_small_units(solve):
    """Couplings of 1e-3: an energy off by 1e-5 is off by a per cent."""
    right = solve(VANISHING["small couplings"], "exact")
    wrong = right.copy(deep=True)
    wrong["kinetic_energy"] = wrong["kinetic_energy"] * 1.01
    assert judge(right, wrong).word == "disagree"
    assert natural_scale("energy", VANISHING["small couplings"].terms()) == pytest.approx(4e-3)


@pytest.mark.slow
def test_the_distance_that_is_asked_for_decides_the_exit_code(free, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    free.to_netcdf("a.nc")
    sampled(free, relative=lambda steps: 0.01 if steps <= 3 else 0.5).to_netcdf("b.nc")
    codes = {
        distance: CliRunner().invoke(app, ["check", "a.nc", "b.nc", "--distance", distance])
        for distance in ("1", "3", "4", "100", "0")
    }
    assert {d: done.exit_code for d, done in codes.items()} == {
        "1": 0,
        "3": 0,
        "4": 2,
        "100": 2,
        "0": 3,
    }
    assert "AGREE up to distance 3" in codes["3"].output
    report = xr.load_dataset("check.nc")
    assert report.attrs["verdict"] == "undecided"
    assert float(report["distance"].sel(observable="pair").max()) == 3
    assert float(report["noticed"].sel(observable="pair", **{"class": "P at 3"}).max()) < 0.2
    assert float(report["noticed"].sel(observable="pair", **{"class": "P at 4"}).min()) > 0.2
    page = (tmp_path / "check.html").read_text()
    assert "would notice" in page
    assert "P at 4" in page


@pytest.mark.parametrize(("size", "told"), [(1e-15, False), (1e-3, True)])
def test_errors_at_rounding_are_not_called_too_small(free, size, told):
    """Without interaction Monte Carlo has errors of 1e-16 and is off by a few times as much."""
    measured = sampled(free, relative=lambda _: size, stated=lambda _: 0.2)
    assert ("look too small" in judge(free, measured).note) == told
