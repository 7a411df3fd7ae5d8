"""Density targets: chemical potentials that give them, jumps, noise, kills."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.optimize import root
from scipy.special import expit

from bilayer_orchestra.dataset.schema import open_result
from bilayer_orchestra.engines.registry import get_engine
from bilayer_orchestra.errors import Interrupted, MissingEngineError, OrchestraError, SpecError
from bilayer_orchestra.model.spec import parse_model
from bilayer_orchestra.running.directory import RunDirectory, find_runs
from bilayer_orchestra.running.point import Runner, run_point
from bilayer_orchestra.runtimes.local import LocalRuntime
from bilayer_orchestra.tuning.monotone import JumpError, OutOfRangeError, Point, monotone_root
from bilayer_orchestra.tuning.point import run_model
from bilayer_orchestra.tuning.search import Step
from bilayer_orchestra.tuning.thermal import ThermalSearch
from tests.support.alf import missing_alf
from tests.support.brute_force import oracle
from tests.support.models import make_model


def filled(p, m, length=2, state=None, **changes):
    """Return a bilayer with a filling; without a state, its ground state."""
    changes.setdefault("observables", ("density", "pair"))
    if state is not None:
        changes["state"] = state
    data = make_model({"n_up": 1, "n_down": 1}, length).to_data()
    layers = {k: data["layers"][k] | changes.pop(k, {}) for k in ("P", "M")}
    del data["state"]
    data |= {"layers": layers, "filling": {"P": p, "M": m}} | changes
    return type(make_model({"beta": 1.0})).model_validate(data)


def engine_or_skip(name):
    try:
        get_engine(name).version()
    except MissingEngineError as error:
        pytest.skip(str(error))


def densities(values):
    """Layer densities of the oracle's site-ordered spin densities."""
    total = values["density"].sum(axis=0)
    return total[0::2].mean(), total[1::2].mean()


# the search itself


def two_level(mu, gap, place=0.7, low=1.0, high=3.0):
    """Two levels whose tangents cross at ``place``, coupled by ``gap`` / 2: an avoided crossing."""
    x = (high - low) * (mu - place) / 2
    split = np.hypot(x, gap / 2)
    number = (low + high) / 2 + (high - low) / 2 * (x / split if split else 0.0)
    return Point(mu, number, -mu * (low + high) / 2 - split, 0.0)


@pytest.mark.parametrize("gap", [3.0, 0.1, 1e-3, 1e-5])
@pytest.mark.parametrize("target", [1.1, 1.9, 2.6])
def test_avoided_crossings_are_resolved(gap, target):
    runs = []

    def run(mu):
        runs.append(two_level(mu, gap))
        return runs[-1]

    found, _ = monotone_root(run, target, 1e-5, [0.0], 0.5, (-50, 50), 1.0)
    assert found.number == pytest.approx(target, abs=1e-5)
    assert len(runs) <= 14


def test_a_crossing_is_reported_with_its_sides_and_without_bisection():
    runs = []

    def run(mu):
        runs.append(two_level(mu, 0.0))
        return runs[-1]

    with pytest.raises(JumpError) as caught:
        monotone_root(run, 1.7, 1e-5, [0.0], 0.5, (-50, 50), 1.0)
    assert caught.value.mu == pytest.approx(0.7, abs=1e-8)
    assert (caught.value.below.number, caught.value.above.number) == (1.0, 3.0)
    assert len(runs) <= 8


def test_numbers_beyond_the_range_are_recognized():
    with pytest.raises(OutOfRangeError):
        monotone_root(lambda mu: two_level(mu, 0.1), 3.5, 1e-5, [0.0], 0.5, (-20, 20), 1.0)


def test_smooth_curves_take_few_runs():
    runs = []

    def run(mu):
        runs.append(Point(mu, 4 * expit(mu), -4 * np.logaddexp(0, mu), 0.0))
        return runs[-1]

    for target in (0.3, 1.0, 2.2, 3.9):
        runs.clear()
        found, _ = monotone_root(run, target, 1e-5, [0.2], 1.0, (-50, 50), 1.0)
        assert found.number == pytest.approx(target, abs=1e-5)
        assert len(runs) <= 9


# ground states


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    "model",
    [
        filled(0.7, 0.3),
        filled(1.6, 0.4, boundary="periodic", t_perp=0.8),
        filled(0.9, 0.6, state={"n_up": 2, "n_down": 1}, P={"hopping": 0.2}),
        filled(0.5, 0.5, M={"interaction": 1.0}, P={"chemical_potential": 0.3}),
    ],
)
def test_ground_state_densities_against_the_full_fock_space(solve, model):
    dataset = solve(model, "exact")
    mu = dataset.chemical_potential.sel(layer=["P", "M"]).values
    assert mu[0] == model.layers.P.chemical_potential  # only the difference matters
    expected = densities(oracle(model.at(*mu).terms()))
    np.testing.assert_allclose(expected, (model.filling.P, model.filling.M), atol=1.1e-5)
    assert dataset.attrs["converged"] == 1
    assert dataset.tuning_density.isel(step=-1).values == pytest.approx(expected, abs=1e-8)
    assert float(dataset.tuning_cost) >= 1
    assert parse_model(dataset.attrs["tuned_model"]) == model.at(*mu).model_copy(
        update={"observables": ("density", "pair")}
    )


def test_pairs_on_disconnected_layers_jump(solve):
    with pytest.raises(OrchestraError) as caught:
        solve(filled(0.3, 0.7, 4, t_perp=0.0, P={"interaction": -6.0}), "exact")
    message = str(caught.value)
    assert "(P: 0.500000, M: 0.500000) to (P: 0.000000, M: 1.000000)" in message
    # pairs cost -6 on P, two electrons in the second level of the chain -2 (0.618 + mu_M)
    assert "2.381966" in message


@pytest.mark.slow
def test_dmrg_finds_the_same_potential_as_exact(solve):
    pytest.importorskip("block2", reason="block2 is missing: pip install block2")
    model = filled(0.6, 0.9, 4, t_perp=0.8)
    one, other = solve(model, "exact"), solve(model, "block2")
    assert other.attrs["converged"] == 1, other.attrs["converged_reason"]
    potential = [float(d.chemical_potential.sel(layer="M")) for d in (one, other)]
    assert potential[0] == pytest.approx(potential[1], abs=1e-4)
    np.testing.assert_allclose(
        other.tuning_density.isel(step=-1), (model.filling.P, model.filling.M), atol=1.1e-5
    )


# thermal states


@pytest.mark.cases(2)
@pytest.mark.parametrize("boundary", ["open", "periodic"])
@pytest.mark.parametrize(
    ("beta", "p", "m"), [(0.5, 0.5, 0.25), (4.0, 0.05, 1.8), (16.0, 1.5, 0.3), (64.0, 0.5, 0.25)]
)
def test_thermal_densities_against_the_full_fock_space(solve, beta, p, m, boundary):
    model = filled(p, m, state={"beta": beta}, boundary=boundary)
    dataset = solve(model, "exact")
    mu = dataset.chemical_potential.sel(layer=["P", "M"]).values
    expected = densities(oracle(model.at(*mu).terms()))
    np.testing.assert_allclose(expected, (p, m), atol=1.1e-5)
    assert dataset.attrs["ensemble"] == "grand canonical"


@pytest.mark.slow
def test_potentials_of_free_electrons(solve):
    model = filled(0.4, 1.3, 3, {"beta": 2.0}, P={"interaction": 0.0, "hopping": 0.3})
    mu = solve(model, "exact").chemical_potential.sel(layer=["P", "M"]).values
    expected = root(lambda x: free(model, x)[0] - (0.4, 1.3), (0.0, 0.0), tol=1e-12).x
    np.testing.assert_allclose(mu, expected, atol=1e-4)


def free(model, mu):
    """Densities and fluctuations (beta / L) <dN_l dN_l'> of free electrons, by Wick's theorem."""
    potential = np.tile(mu, model.length)
    levels, orbitals = np.linalg.eigh(model.terms().one_body - np.diag(potential))
    green = orbitals @ np.diag(expit(-model.state.beta * levels)) @ orbitals.T
    density = 2 * green.diagonal().reshape(-1, 2).mean(axis=0)
    correlation = 2 * green * (np.eye(len(green)) - green).T
    layers = correlation.reshape(model.length, 2, model.length, 2).sum(axis=(0, 2))
    return density, model.state.beta / model.length * layers


class NoisySearch(ThermalSearch):
    """Free electrons measured with noise: what Monte Carlo is to the search, in no time."""

    def __init__(self, model, rng, sigma):
        super().__init__(model, get_engine("alf"), RunDirectory(Path()), Runner(Path()))
        self.rng, self.sigma, self.effort = rng, sigma, 0.0

    def solve(self, model, mu):
        share = model.numerics.alf.sweeps / self.model.numerics.alf.sweeps
        density, fluctuations = free(model, mu)
        covariance = self.sigma**2 / share * np.array([[1.0, 0.3], [0.3, 0.5]])
        measured = self.rng.multivariate_normal(density, covariance)
        noisy = fluctuations * (1 + 0.3 * self.sigma / np.sqrt(share) * self.rng.normal())
        correlation = noisy * model.length / model.state.beta
        dataset = xr.Dataset(
            {"density_density": (("layer", "layer_", "x", "x_"), correlation[:, :, None, None])},
            {"layer": ["P", "M"], "layer_": ["P", "M"]},
        )
        self.done.append(Step(np.array(mu), measured, covariance, 100.0, share, dataset))
        self.effort += share
        return self.done[-1]


def test_noisy_search_is_unbiased_honest_and_cheap():
    tolerance = 2e-3
    model = filled(
        0.5,
        0.25,
        6,
        {"beta": 4.0},
        P={"interaction": 0.0, "hopping": 0.3},
        numerics={"alf": {"sweeps": 10_000}},
        filling={"P": 0.5, "M": 0.25, "tolerance": tolerance},
    )
    truth = root(lambda x: free(model, x)[0] - (0.5, 0.25), (-0.5, -1.0), tol=1e-12).x
    pulls, misses, cost = [], [], []
    for seed in range(60):
        search = NoisySearch(model, np.random.default_rng(seed), 5e-4)
        last, uncertainty, _ = search.find()
        pulls.append((last.mu - truth) / uncertainty)
        misses.append(np.abs(free(model, last.mu)[0] - (0.5, 0.25)).max())
        cost.append(search.effort)
    assert np.mean(np.array(misses) < tolerance) > 0.95
    assert 0.3 < np.mean(np.square(pulls)) < 2.0
    assert np.abs(np.mean(pulls, axis=0)).max() < 0.5
    assert np.mean(cost) < 3


@pytest.mark.skipif(missing_alf() is not None, reason=f"{missing_alf()}")
def test_monte_carlo_search_against_exact(solve):
    alf = {"sweeps": 6000, "sweeps_per_bin": 20, "dtau": [0.2, 0.1], "chains": 2}
    target = {"P": 1.4, "M": 0.6, "tolerance": 4e-3}
    model = filled(1.4, 0.6, 2, {"beta": 2.0}, filling=target, numerics={"alf": alf}, t_perp=0.8)
    dataset = solve(model, "alf")
    assert dataset.attrs["converged"] == 1, dataset.attrs["converged_reason"]
    mu = dataset.chemical_potential.sel(layer=["P", "M"]).values
    np.testing.assert_allclose(densities(oracle(model.at(*mu).terms())), (1.4, 0.6), atol=6e-3)
    assert (dataset.tuning_density_stderr > 0).all()
    assert (dataset.chemical_potential_uncertainty > 0).all()
    assert 1 < float(dataset.tuning_cost) < 6


# runs


class KillAfter(LocalRuntime):
    """Interrupts the job after so many have run; counts what it runs."""

    def __init__(self, runs: int) -> None:
        super().__init__()
        self.left, self.count = runs, 0

    def execute(self, job, tools, directory, lock, on_poll):
        if self.left == 0:
            raise Interrupted
        self.left -= 1
        self.count += 1
        return super().execute(job, tools, directory, lock, on_poll)


@pytest.mark.slow
@pytest.mark.parametrize("model", [filled(0.7, 0.3), filled(0.5, 0.25, state={"beta": 4.0})])
def test_a_killed_search_goes_on_where_it_was(model, tmp_path):
    backend = get_engine("exact")
    whole = run_model(model, backend, Runner(tmp_path / "whole", KillAfter(99)))
    with pytest.raises(Interrupted):
        run_model(model, backend, Runner(tmp_path / "killed", KillAfter(3)))
    (run,) = find_runs(tmp_path / "killed")
    assert run.status()[0] == "failed"
    assert len(find_runs(run.path / "steps")) >= 3
    rest = KillAfter(99)
    again = run_model(model, backend, Runner(tmp_path / "killed", rest))
    assert rest.count == whole.dataset.sizes["step"] - 3
    clock = [name for name in whole.dataset if "seconds" in str(name) or "cost" in str(name)]
    xr.testing.assert_identical(
        whole.dataset.drop_vars(clock).drop_attrs(), again.dataset.drop_vars(clock).drop_attrs()
    )
    assert (again.dataset.tuning_seconds > 0).all()  # of the runs before the kill, too
    assert run_model(model, backend, Runner(tmp_path / "killed", KillAfter(0))).reused


def test_other_targets_are_other_runs(tmp_path):
    backend, root_ = get_engine("exact"), tmp_path
    one = run_model(filled(0.7, 0.3), backend, Runner(root_))
    other = run_model(filled(0.8, 0.2), backend, Runner(root_))
    assert one.run.path != other.run.path
    assert not other.reused
    assert json.loads((one.run.path / "run.json").read_text())["state"] == "finished"


def test_a_single_run_does_not_pass_for_a_search(tmp_path):
    """Its chemical potentials would be those that the file does not give."""
    with pytest.raises(OrchestraError, match=r"takes several runs.*run_model"):
        run_point(filled(0.7, 0.3), get_engine("exact"), Runner(tmp_path))


def test_density_that_nobody_asked_for_stays_away(solve):
    dataset = solve(filled(0.7, 0.3, observables=("pair",)), "exact")
    assert "density" not in dataset
    assert "pair" in dataset


# model files

GOOD = """\
version: 1
name: filling
model: bilayer
length: 4
layers:
  P: {hopping: 0.0, interaction: -4.0}
  M: {hopping: 1.0}
t_perp: 0.5
filling: {P: 0.5, M: 1.0}
"""


def test_a_filling_needs_no_state():
    model = parse_model(GOOD)
    assert (model.state.n_up, model.state.n_down) == (3, 3)
    assert parse_model(model.to_yaml()) == model


@pytest.mark.parametrize(
    ("old", "new", "line", "expected"),
    [
        ("M: 1.0}", "M: 1.25}", 9, "nearest: M: 1 (6 electrons) or M: 1.5 (8 electrons)"),
        ("M: 1.0}", "M: 0.9}", 9, "0.5 and 0.9 electrons per site make 5.6 electrons"),
        ("P: 0.5", "P: 2.0", 9, "less than 2"),
        ("P: 0.5", "P: 0", 9, "greater than 0"),
        ("P: 0.5", "Q: 0.5", 9, "did you mean `P`?"),
        ("filling: {P: 0.5, M: 1.0}\n", "", None, "`state` is missing"),
        ("M: 1.0}\n", "M: 1.0}\nstate: {n_up: 3, n_down: 2}\n", 10, "has 5 electrons"),
        ("M: 1.0}\n", "M: 1.0, tolerance: 1}\n", 9, "less than or equal to 0.1"),
    ],
)
def test_broken_fillings(old, new, line, expected):
    assert old in GOOD
    with pytest.raises(SpecError) as caught:
        parse_model(GOOD.replace(old, new, 1), "model.yaml")
    (problem,) = caught.value.problems
    assert expected in problem
    if line is not None:
        assert problem.startswith(f"line {line}: ")


def test_odd_numbers_are_possible_with_unequal_spins():
    model = parse_model(GOOD.replace("M: 1.0}", "M: 0.75}\nstate: {n_up: 3, n_down: 2}"))
    assert model.state.n_up + model.state.n_down == 5


# where a search begins


@pytest.mark.slow
@pytest.mark.parametrize("name", ["block2", "itensor"])
def test_runs_of_a_search_begin_from_the_state_before(tmp_path, name):
    """But for those without a proof; with the correlators of exact diagonalization."""
    engine_or_skip(name)
    numerics = {name: {"max_bond_dimension": 80, "initial_bond_dimension": 20}}
    model = filled(0.75, 0.25, 4, numerics=numerics, observables=("density", "pair", "green"))
    found = run_model(model, get_engine(name), Runner(tmp_path / "warm"))
    steps = [open_result(run.result) for run in find_runs(found.run.path / "steps")]
    proven = [
        getattr(parse_model(step.attrs["model"], "step").numerics, name).proof for step in steps
    ]
    assert proven == ["started_from" in step.attrs for step in steps]
    assert 1 <= sum(proven) < len(steps)
    assert found.dataset.attrs["started_from"] in {
        run.path.name for run in find_runs(found.run.path / "steps")
    }
    assert found.dataset.attrs["converged"], found.dataset.attrs["converged_reason"]
    exact = run_point(
        parse_model(found.dataset.attrs["tuned_model"], "tuned"),
        get_engine("exact"),
        Runner(tmp_path / "exact"),
    ).dataset
    for observable in ("density", "pair", "green"):
        np.testing.assert_allclose(found.dataset[observable], exact[observable], atol=2e-6)


def test_dmrg_sees_a_jump_though_no_sweep_moves_electrons_between_the_layers(solve):
    """Begun from each other's states, all runs would keep the first one's electrons on P."""
    pytest.importorskip("block2", reason="block2 is missing: pip install block2")
    numerics = {"block2": {"max_bond_dimension": 80}}
    model = filled(0.5, 0.5, 2, t_perp=0.0, P={"interaction": -6.0}, numerics=numerics)
    with pytest.raises(OrchestraError, match=r"\(P: 1.0+, M: 0.0+\) to \(P: 0.0+, M: 1.0+\)"):
        solve(model, "block2")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["block2", "itensor"])
def test_a_state_that_does_not_fit_is_not_used_and_said(tmp_path, name):
    """Other numbers of electrons, other lengths, damaged or cut files: as if it were not there."""
    engine_or_skip(name)
    backend = get_engine(name)
    said = []

    def solved(number, where, start=None, length=2):
        said.clear()
        model = make_model({"n_up": number, "n_down": number}, length, t_perp=0.8)
        runtime, root_ = LocalRuntime(), tmp_path / where
        return run_point(model, backend, Runner(root_, runtime, tell=said.append), start)

    def not_used(outcome, why):
        assert "started_from" not in outcome.dataset.attrs
        assert f"the state of another run was not used: {why}" in said[-1]
        assert float(outcome.dataset.energy) == pytest.approx(float(cold.dataset.energy), abs=1e-9)

    other, longer, cold = solved(2, "other"), solved(1, "longer", length=3), solved(1, "cold")
    not_used(solved(1, "warm", other.run), "it belongs to another")
    not_used(solved(1, "warmer", longer.run), "it belongs to another")
    same = solved(1, "same", cold.run)
    assert same.dataset.attrs["started_from"] == cold.run.path.name
    assert "begun from the state of" in same.dataset.attrs["history"]
    assert float(same.dataset.energy) == pytest.approx(float(cold.dataset.energy), abs=1e-9)
    assert not (same.run.job / "start").exists()  # a copy, which has served

    state = cold.run.job / backend.state_name
    largest = max([state, *state.glob("*")], key=lambda f: f.stat().st_size * f.is_file())
    whole = largest.read_bytes()
    middle = len(whole) // 2
    largest.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    not_used(solved(1, "flipped", cold.run), "it is damaged")
    largest.write_bytes(whole[:middle])
    not_used(solved(1, "cut", cold.run), "it is")
    for file in [state, *state.glob("*")]:
        if file.is_file():
            file.write_bytes(b"")
    not_used(solved(1, "empty", cold.run), "it is incomplete")


@pytest.mark.slow
def test_a_killed_search_begins_its_runs_from_the_same_states(tmp_path):
    pytest.importorskip("block2", reason="block2 is missing: pip install block2")
    backend = get_engine("block2")
    numerics = {"block2": {"max_bond_dimension": 80, "initial_bond_dimension": 20}}
    model = filled(0.7, 0.3, numerics=numerics)

    def starts(root_):
        (run,) = find_runs(root_)
        return {s.path.name: s.started_from() for s in find_runs(run.path / "steps")}

    whole = run_model(model, backend, Runner(tmp_path / "whole", KillAfter(99)))
    with pytest.raises(Interrupted):
        run_model(model, backend, Runner(tmp_path / "killed", KillAfter(2)))
    again = run_model(model, backend, Runner(tmp_path / "killed", KillAfter(99)))
    assert starts(tmp_path / "whole") == starts(tmp_path / "killed")
    assert any(starts(tmp_path / "whole").values())
    for name in ("energy", "density", "pair", "tuning_chemical_potential"):
        np.testing.assert_array_equal(whole.dataset[name], again.dataset[name], err_msg=name)
