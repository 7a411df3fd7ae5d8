"""The verdict: its false-alarm rate, and broken results that it must notice."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from bilayer_orchestra.checking import statistics
from bilayer_orchestra.checking.comparison import Pair
from bilayer_orchestra.checking.elements import Elements, elements_of
from bilayer_orchestra.checking.plan import compare_files
from bilayer_orchestra.checking.report import write_report
from bilayer_orchestra.checking.verdict import Verdict, holm, judge_all
from bilayer_orchestra.cli.app import app
from bilayer_orchestra.dataset.reading import statement
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.observables import OBSERVABLES
from tests.support.checks import judge
from tests.support.models import make_model

STATE = {"beta": 3.0}
MU = {"P": {"interaction": -4.0, "chemical_potential": -1.7}, "M": {"chemical_potential": -0.4}}


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    from bilayer_orchestra.engines.registry import get_engine
    from bilayer_orchestra.running.point import Runner, run_point

    root = tmp_path_factory.mktemp("runs")

    def run(**changes):
        model = make_model(changes.pop("state", STATE), 2, **(MU | changes))
        return run_point(model, get_engine("exact"), Runner(root)).dataset

    return run


def sampled(truth: xr.Dataset, seed: int, blocks: int = 48, size: float = 0.01) -> xr.Dataset:
    """A Monte Carlo result with the averages of ``truth`` and correlated Gaussian errors.

    Errors are ``size`` times each element, or 1e-4 of the largest where that is larger.
    """
    rng = np.random.default_rng(seed)
    result = truth.copy(deep=True)
    result.attrs |= {"backend": "alf", "converged": 1, **statement(True, ("Trotter",))}
    common = rng.standard_normal((blocks, 3))  # moves all elements together, as charge does
    for name in OBSERVABLES:
        if name not in truth:
            continue
        value = truth[name].values
        own = rng.standard_normal((blocks, *value.shape))
        shared = np.tensordot(
            common, np.random.default_rng(7).standard_normal((3, *value.shape)), 1
        )
        error = size * np.maximum(np.abs(value), 1e-4 * np.abs(value).max())
        samples = np.sqrt(blocks) * error * (own + shared)
        if "x_" in truth[name].dims:
            axes = [1 + truth[name].dims.index(d) for d in ("layer_", "x_", "layer", "x")]
            order = list(range(samples.ndim))
            for place, axis in zip(("layer", "x", "layer_", "x_"), axes, strict=True):
                order[1 + truth[name].dims.index(place)] = axis
            samples = (samples + samples.transpose(order)) / 2
        mean = samples.mean(axis=0)
        deviations = (samples - mean) / np.sqrt(blocks * (blocks - 1))
        result[name] = (truth[name].dims, value + mean, truth[name].attrs)
        result[name].attrs["covariance_degrees_of_freedom"] = blocks - 1
        result[f"{name}_deviation"] = (("block", *truth[name].dims), deviations)
        result[f"{name}_stderr"] = (truth[name].dims, np.sqrt((deviations**2).sum(axis=0)))
        result[f"{name}_bias"] = (truth[name].dims, np.zeros_like(value))
    return result


@pytest.mark.slow
def test_agreeing_results_are_rarely_called_different(exact, monkeypatch):
    monkeypatch.setattr(statistics, "DRAWS", 100)
    truth = exact()
    words = [judge(truth, sampled(truth, seed)).word for seed in range(24)]
    assert words.count("disagree") <= 2  # 1 % wanted; 3 of 24 would happen once in 600 suites


def test_p_values_are_what_they_claim(monkeypatch):
    """Correlated Gaussian data, few blocks: alarms at 5 % come in 5 % of the cases or fewer."""
    monkeypatch.setattr(statistics, "DRAWS", 400)
    rng = np.random.default_rng(1)
    mixing = rng.standard_normal((30, 30)) * np.exp(-0.2 * np.arange(30))
    zero = Elements(np.zeros(30), np.zeros((0, 30)), np.inf, {}, [str(k) for k in range(30)])

    def measured():
        blocks = rng.standard_normal((40, 30)) @ mixing.T
        deviations = (blocks - blocks.mean(axis=0)) / np.sqrt(40 * 39)
        return zero._replace(values=blocks.mean(axis=0), deviations=deviations, degrees=39.0)

    p_values = [
        statistics.compare(measured(), zero, np.zeros(30), 0.01).p_value for _ in range(150)
    ]
    alarms = np.mean(np.array(p_values) < 0.05)
    assert alarms <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)


def test_systematic_errors_beside_well_known_combinations_raise_no_alarm(monkeypatch):
    """Elements known to 1 % together, far better in combination, and wrong by what is allowed.

    Taking the allowance off element by element would leave parts of it in combinations that are
    known a thousand times better: an alarm in every third comparison with real Monte Carlo runs.
    """
    monkeypatch.setattr(statistics, "DRAWS", 200)
    rng = np.random.default_rng(3)
    mixing = np.linalg.qr(rng.standard_normal((10, 10)))[0] * 10.0 ** -np.linspace(0, 4, 10)
    stderr = np.sqrt(np.sum(mixing**2, axis=1) / 60)
    allowance = 0.1 * stderr
    exact = Elements(np.zeros(10), np.zeros((0, 10)), np.inf, {}, [str(k) for k in range(10)])

    def p_value(wrong):
        blocks = rng.standard_normal((60, 10)) @ mixing.T
        deviations = (blocks - blocks.mean(axis=0)) / np.sqrt(60 * 59)
        measured = exact._replace(
            values=blocks.mean(axis=0) + wrong, deviations=deviations, degrees=59.0
        )
        return statistics.compare(measured, exact, allowance, 0.01).p_value

    within = [p_value(allowance * rng.uniform(-1, 1, 10)) for _ in range(100)]
    assert np.mean(np.array(within) < 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 100)
    beyond = [p_value(1.2 * stderr * (-1) ** np.arange(10)) for _ in range(20)]
    assert max(beyond) < 1e-3  # no element is off by much, but never all of them in this way


def swap_layers(dataset):
    renamed = {"layer": ["M", "P"]} | ({"layer_": ["M", "P"]} if "layer_" in dataset.dims else {})
    return dataset.assign_coords(renamed)


MUTATIONS = {
    "mu shifted by U/2": lambda exact: exact(P=MU["P"] | {"chemical_potential": -3.7}),
    "a missing bond": lambda exact: exact(M=MU["M"] | {"hopping": 0.0}),
    "beta off by 2 %": lambda exact: exact(state={"beta": 3.06}),
    "t_perp off by 2 %": lambda exact: exact(t_perp=0.51),
    "periodic instead of open": lambda exact: exact(boundary="periodic"),
    "spin-summed green": lambda exact: exact().assign(green=lambda d: 2 * d.green),
    "wrong fermion sign": lambda exact: exact().assign(
        green=lambda d: d.green.where(d.layer == d.layer_, -d.green)
    ),
    "swapped layers": lambda exact: swap_layers(exact()),
    "energy with -mu N": lambda exact: exact().assign(
        energy=lambda d: d.energy + 1.7 * d.density.sel(layer="P").sum()
    ),
    "density correlation not connected": lambda exact: exact().assign(
        density_density=lambda d: d.density_density + 0.5
    ),
}


MUTATIONS |= {
    "U off by 3 %": lambda exact: exact(P=MU["P"] | {"interaction": -4.12}),
    "wrong sign of t_perp": lambda exact: exact(t_perp=-0.5),
    "repulsion instead of attraction": lambda exact: exact(P=MU["P"] | {"interaction": 4.0}),
    "hopping in the wrong layer": lambda exact: exact(
        P=MU["P"] | {"hopping": 1.0}, M={"hopping": 0.0}
    ),
    "pair half as large": lambda exact: exact().assign(pair=lambda d: 0.5 * d.pair),
    "shifted by one site": lambda exact: exact().assign(
        green=lambda d: d.green.roll(x=1, roll_coords=False)
    ),
    "layers transposed in pair": lambda exact: exact().assign(
        pair=lambda d: d.pair.assign_coords(layer_=["M", "P"])
    ),
    "density correlation subtracted twice": lambda exact: exact().assign(
        density_density=lambda d: d.density_density - 0.3
    ),
    "spin correlation four times": lambda exact: exact().assign(
        spin_spin=lambda d: 4 * d.spin_spin
    ),
    "one element wrong": lambda exact: exact().assign(
        pair=lambda d: d.pair.where((d.x != 0) | (d.x_ != 1) | (d.layer != "P"), d.pair + 0.05)
    ),
    "NaN": lambda exact: exact().assign(
        green=lambda d: d.green.where((d.x != 0) | (d.x_ != 1) | (d.layer != "P"))
    ),
    "energy without interaction": lambda exact: exact().assign(energy=lambda d: d.kinetic_energy),
}


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS.keys())
def test_broken_results_are_noticed(exact, mutation):
    truth = exact()
    broken = mutation(exact)
    broken.attrs |= {"terms_hash": truth.attrs["terms_hash"]}
    for name in OBSERVABLES:
        if name in broken:
            broken[name].attrs = truth[name].attrs
    verdict = judge(truth, sampled(broken, seed=3, size=0.002))
    assert verdict.word == "disagree", verdict.reason


def test_errors_stated_too_small_are_noticed(exact):
    """Half the error bars: pulls are twice as wide, and the report says so."""
    truth, narrow = exact(), sampled(exact(), seed=5)
    for name in OBSERVABLES:
        if f"{name}_deviation" in narrow:
            narrow[f"{name}_deviation"] = narrow[f"{name}_deviation"] / 3
            narrow[f"{name}_stderr"] = narrow[f"{name}_stderr"] / 3
    verdict = judge(truth, narrow)
    assert verdict.word == "disagree"
    assert "too small" in verdict.note


def test_an_error_bar_that_its_deviations_deny_is_noticed(exact):
    result = sampled(exact(), seed=5)
    result["pair_stderr"] = result["pair_stderr"] / 2
    verdict = judge(exact(), result)
    assert verdict.word == "disagree"
    assert "pair_stderr is 0.5 times" in verdict.reason


def test_errors_stated_too_large_are_said(exact):
    result = sampled(exact(), seed=5, size=0.001)
    for name in OBSERVABLES:
        if f"{name}_deviation" in result:
            result[f"{name}_deviation"] = 5 * result[f"{name}_deviation"]
            result[f"{name}_stderr"] = 5 * result[f"{name}_stderr"]
    verdict = judge(exact(), result)
    assert verdict.word == "agree"
    assert "too large" in verdict.note


@pytest.mark.lowest
@pytest.mark.parametrize(
    ("mutation", "cause"),
    [
        ("spin-summed green", "twice as large"),
        ("wrong fermion sign", "opposite sign between the layers"),
        ("swapped layers", "layers exchanged"),
        ("pair half as large", "half as large"),
        ("mu shifted by U/2", "chemical potential"),
    ],
)
def test_the_likely_cause_is_named(exact, mutation, cause):
    truth, broken = exact(), MUTATIONS[mutation](exact)
    broken.attrs |= {"terms_hash": truth.attrs["terms_hash"]}
    for name in OBSERVABLES:
        if name in broken:
            broken[name].attrs = truth[name].attrs
    verdict = judge(truth, sampled(broken, seed=3, size=0.002))
    assert cause in verdict.cause + verdict.reason


@pytest.mark.lowest
def test_a_missing_observable_is_no_agreement(exact):
    verdict = judge(exact(), sampled(exact(), seed=1).drop_vars("pair"))
    assert verdict.word == "undecided"


@pytest.mark.lowest
def test_what_one_method_alone_measures_is_no_doubt(exact, tmp_path):
    """Such as the entanglement entropy of one DMRG; other observables are asked for by name."""
    first = exact()
    second = first.copy(deep=True)
    second["entanglement_entropy"] = ("cut", np.zeros(3))
    assert judge(first, second).word == "agree"
    del first["pair"]
    verdict = judge(first, second)
    assert verdict.word == "undecided"
    outcome = Verdict("missing", None, [verdict])
    assert write_report(outcome, tmp_path, "undecided")


def test_correction_counts_all_pairs(exact):
    """Twenty pairs that agree: no alarm, although one p-value in 180 is small by chance."""
    truth = exact()
    pairs = [Pair(truth, sampled(truth, seed), ("exact", "alf")) for seed in range(8)]
    single = judge_all(pairs[:1])[0].findings
    joint = judge_all(pairs)[0].findings
    assert all(b.corrected_p >= a.corrected_p for a, b in zip(single, joint, strict=True))
    assert any(b.corrected_p > a.corrected_p for a, b in zip(single, joint, strict=True))


@pytest.mark.slow
def test_two_hundred_seeds(exact):
    """False alarms at most as claimed; and p-values below 20 % do come: the test is no dud."""
    truth = exact()
    verdicts = [judge(truth, sampled(truth, 1000 + seed)) for seed in range(200)]
    alarms = sum(v.word == "disagree" for v in verdicts)
    assert alarms <= 7  # 1 % of 200 is 2; more than 7 once in 1000 suites
    single = np.array([min(f.test.p_value for f in v.findings) for v in verdicts])
    assert np.mean(single < 0.1) > 0.05


@pytest.mark.lowest
def test_large_errors_are_undecided_and_never_agreement(exact):
    truth = exact()
    verdict = judge(truth, sampled(truth, seed=1, size=0.5))
    assert verdict.word == "undecided"
    assert any("too large" in finding.reason for finding in verdict.findings)


def test_unconverged_results_are_undecided(exact):
    truth = exact()
    other = sampled(truth, seed=1)
    other.attrs["converged"] = 0
    assert judge(truth, other).word == "undecided"


def test_an_error_that_was_not_estimated_is_undecided(exact):
    truth = exact()
    other = sampled(truth, seed=1)
    other["pair_bias"] = xr.full_like(other.pair_bias, np.nan)
    verdict = judge(truth, other)
    assert verdict.word == "undecided"
    assert next(f for f in verdict.findings if f.name == "pair").word == "undecided"


def test_what_a_dataset_states_decides_and_not_who_wrote_it(exact):
    """The same numbers under a foreign name; without a statement no error counts as zero."""
    truth = exact()
    for wrong, word in ((0.0, "agree"), (0.05, "disagree")):
        ours = sampled(truth, seed=1)
        ours["pair"] = ours.pair * (1 + wrong)
        biased = ours.assign(pair_bias=xr.full_like(ours.pair, wrong * float(ours.pair.max())))
        for name in ("alf", "guest"):
            assert judge(truth, ours.assign_attrs(backend=name)).word == word
            found = {
                f.name: f.word for f in judge(truth, biased.assign_attrs(backend=name)).findings
            }
            assert found["pair"] != "disagree"
            assert found == {f.name: f.word for f in judge(truth, biased).findings}
    silent = sampled(truth, seed=1)
    del silent.attrs["systematics"]
    assert judge(truth, silent).word == "undecided"


@pytest.mark.lowest
def test_different_models_are_refused(exact):
    with pytest.raises(OrchestraError, match="cannot be compared"):
        compare_files({"a": exact(), "b": exact(t_perp=0.6)}, "couplings")


def test_symmetric_elements_are_counted_once(exact):
    elements = elements_of(exact(), "pair")
    assert len(elements.values) == 4 * 5 // 2


def test_holm_on_a_worked_example():
    # Holm (1979): sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, made monotone
    corrected = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    assert corrected == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_without_the_plot_extra_the_page_is_missing_and_that_is_said(exact, tmp_path, monkeypatch):
    paths = []
    for name, dataset in (("a", exact()), ("b", sampled(exact(), seed=1))):
        paths.append(tmp_path / f"{name}.nc")
        dataset.to_netcdf(paths[-1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "bilayer_orchestra.plots.check_page", raising=False)
    monkeypatch.setitem(sys.modules, "jinja2", None)  # importing it fails
    done = CliRunner().invoke(app, ["check", *map(str, paths)])
    assert done.exit_code == 0, done.output
    assert "no report: pip install matplotlib jinja2" in done.output
    assert not list(tmp_path.rglob("check.html"))
    assert list(tmp_path.rglob("check.nc"))
