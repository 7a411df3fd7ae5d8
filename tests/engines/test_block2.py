"""The embedded DMRG against exact diagonalization, closed forms and reference energies."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from bilayer_orchestra.engines.block2 import process as engine
from bilayer_orchestra.engines.block2.operators import measure, symmetry_of
from bilayer_orchestra.engines.dmrg.results import averages_from_stages
from bilayer_orchestra.engines.registry import get_engine
from bilayer_orchestra.errors import EngineError, OrchestraError
from bilayer_orchestra.running.point import checked_request, make_request
from tests.support.brute_force import assert_entropies
from tests.support.datasets import assert_matches
from tests.support.free_fermions import free_entropies, wick
from tests.support.models import make_model

pytest.importorskip("block2", reason="block2 is missing: pip install block2")

OBSERVABLES = ("density", "double_occupancy", "pair", "green", "density_density", "spin_spin")

CASES = {
    "open": make_model({"n_up": 3, "n_down": 3}),
    "periodic": make_model({"n_up": 3, "n_down": 3}, boundary="periodic", t_perp=0.7),
    "polarized": make_model({"n_up": 3, "n_down": 1}),
    "polarized ring": make_model({"n_up": 4, "n_down": 3}, boundary="periodic", P={"hopping": 0.2}),
    "P hops": make_model({"n_up": 2, "n_down": 2}, P={"hopping": 0.3}),
    "tilted": make_model(
        {"n_up": 2, "n_down": 2}, P={"chemical_potential": -1.1}, M={"chemical_potential": 0.7}
    ),
    "repulsive metal": make_model({"n_up": 3, "n_down": 3}, 3, M={"interaction": 2.0}),
}


@pytest.mark.cases(1)
@pytest.mark.parametrize("model", CASES.values(), ids=CASES.keys())
def test_every_observable_against_exact(solve, model):
    dmrg, exact = solve(model, "block2"), solve(model, "exact")
    assert dmrg.attrs["converged"], dmrg.attrs["converged_reason"]
    for name in ("energy", "kinetic_energy", "interaction_energy", *OBSERVABLES):
        np.testing.assert_allclose(dmrg[name], exact[name], atol=1e-6, err_msg=name)
    assert float(dmrg.gap) == pytest.approx(float(exact.gap), rel=0.01)
    # what is claimed as error must cover the true one
    error = np.abs(dmrg.pair - exact.pair).max()
    assert float(error) < max(10 * float(np.abs(dmrg.pair_bias).max()), 1e-7)


@pytest.mark.slow
def test_entanglement_entropy(solve):
    """Where block2 counts states; it counts a multiplet of SU(2) as one: none is reported."""
    model = make_model({"n_up": 3, "n_down": 2}, 3, M={"interaction": -1.0}, t_perp=0.7)
    assert_entropies(solve(model, "block2"), model)
    free = make_model({"n_up": 3, "n_down": 2}, 5, P={"interaction": 0.0, "hopping": 0.2})
    green = wick(free.terms(), lambda levels, s: np.arange(len(levels)) < (3, 2)[s])["green"]
    expected = free_entropies(green)  # the chain's order is that of the sites, rung by rung
    np.testing.assert_allclose(solve(free, "block2").entanglement_entropy, expected, atol=1e-6)
    singlet = make_model({"n_up": 2, "n_down": 2}, 3)
    assert symmetry_of(singlet.terms()) == "SU2"
    assert "entanglement_entropy" not in solve(singlet, "block2")


def test_free_fermions(solve):
    model = make_model({"n_up": 3, "n_down": 2}, 3, P={"interaction": 0.0, "hopping": 0.2})
    filled = {0: 3, 1: 2}
    expected = wick(model.terms(), lambda levels, s: np.arange(len(levels)) < filled[s])
    assert_matches(solve(model, "block2"), expected, 1e-6)


@pytest.mark.parametrize(
    ("model", "energy"),
    [
        (make_model({"n_up": 1, "n_down": 1}, 2, t_perp=0.8), -4.354554895800679),
        pytest.param(
            make_model({"n_up": 3, "n_down": 3}, 8, t_perp=0.8),
            -13.3084592552,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            make_model({"n_up": 12, "n_down": 12}, 16), -49.82956955, marks=pytest.mark.slow
        ),
    ],
    ids=["2 rungs", "8 rungs", "16 rungs"],
)
def test_reference_energies(solve, model, energy):
    tolerance = 1e-9 if model.length <= 8 else 1e-5
    assert float(solve(model, "block2").energy) == pytest.approx(energy, abs=tolerance)


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("model", "gap"),
    [
        (make_model({"n_up": 4, "n_down": 4}, M={"chemical_potential": 50.0}), 48.391392),
        (make_model({"n_up": 4, "n_down": 4}, M={"chemical_potential": 200.0}), 198.384432),
        (make_model({"n_up": 4, "n_down": 4}, P={"chemical_potential": 60.0}, t_perp=0.3), None),
        (make_model({"n_up": 2, "n_down": 2}, 2, P={"interaction": -60.0}), None),
        (make_model({"n_up": 4, "n_down": 0}, 2), np.inf),
    ],
    ids=["mu_M 50", "mu_M 200", "mu_P 60", "U -60", "one state"],
)
def test_the_gap_is_none_of_the_penalty(solve, model, gap):
    """The lowest state orthogonal to the ground state, not the ground state with a penalty."""
    dmrg, exact = float(solve(model, "block2").gap), float(solve(model, "exact").gap)
    assert dmrg == pytest.approx(exact, rel=1e-6)
    assert gap is None or dmrg == pytest.approx(gap, rel=1e-6)


def test_a_penalty_below_the_gap_is_raised(solve, monkeypatch, tmp_path):
    """Whatever the first guess: its energy is measured without it, and its share looked at."""
    model = make_model({"n_up": 1, "n_down": 1}, 2, t_perp=0.8)
    backend = get_engine("block2")
    request = make_request(model, backend)
    job = backend.render(request)
    for name, text in job.files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(engine.operators, "largest_move", lambda terms: 1e-3)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    engine.run(tmp_path)
    gap = float(backend.parse(tmp_path, request).diagnostics["gap"])
    assert gap == pytest.approx(float(solve(model, "exact").gap), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("common", [100.0, -1000.0])
def test_a_constant_in_the_chemical_potentials_changes_nothing(solve, common):
    layers = {"P": {"chemical_potential": common}, "M": {"chemical_potential": common}}
    state = {"n_up": 3, "n_down": 3}
    plain, moved = (solve(make_model(state, **more), "block2") for more in ({}, layers))
    for name in ("energy", "gap", "pair", "pair_bias", "energy_variance"):
        np.testing.assert_array_equal(moved[name], plain[name], err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("unit", [2.0**-10, 2.0**10])
def test_thresholds_are_in_the_units_of_the_model(solve, unit):
    """All energies times one number: the same states, and the same verdict on them."""

    def scaled(unit):
        layers = {"P": {"interaction": -4.0 * unit}, "M": {"hopping": unit}}
        return make_model({"n_up": 3, "n_down": 3}, t_perp=0.5 * unit, **layers)

    other, plain = solve(scaled(unit), "block2"), solve(scaled(1.0), "block2")
    assert other.attrs["converged"]
    for name in ("pair", "pair_bias", "green"):
        np.testing.assert_array_equal(other[name], plain[name], err_msg=name)
    for name in ("energy", "energy_bias", "kinetic_energy", "kinetic_energy_bias", "gap"):
        assert float(other[name]) / unit == pytest.approx(float(plain[name]), rel=1e-12), name
    exact = float(solve(scaled(unit), "exact").energy)
    assert float(other.energy) == pytest.approx(exact, abs=1e-9 * unit)


def test_states_too_close_to_tell_apart_are_not_called_converged(solve):
    """Gap 1.2e-6 (exact): the energy is right, the correlators are anybody's guess."""
    model = make_model(
        {"n_up": 3, "n_down": 3}, t_perp=0.3, P={"interaction": -6.0}, observables=("pair",)
    )
    dmrg, exact = solve(model, "block2"), solve(model, "exact")
    assert float(dmrg.energy) == pytest.approx(float(exact.energy), abs=1e-8)
    assert not dmrg.attrs["converged"]
    assert "correlators are not determined" in dmrg.attrs["converged_reason"]
    assert "gap_resolution = 1e-05" in dmrg.attrs["converged_reason"]
    assert np.isnan(dmrg.pair_bias).all(), "an error of what is not determined"
    assert np.isfinite(dmrg.energy_bias)


@pytest.mark.cases(1)
@pytest.mark.parametrize("name", ["open", "periodic", "polarized ring", "P hops", "tilted"])
def test_the_bias_covers_what_the_solver_leaves_where_nothing_is_truncated(solve, name):
    """Weights below 1e-14: two stages agree to rounding, the true error is that of the solver."""
    dmrg, exact = solve(CASES[name], "block2"), solve(CASES[name], "exact")
    assert float(dmrg.discarded_weight) < 1e-14
    for observable in ("energy", "kinetic_energy", "interaction_energy", *OBSERVABLES):
        error, bias = np.abs(dmrg[observable] - exact[observable]), dmrg[f"{observable}_bias"]
        assert (bias > 0).all(), observable
        assert (error <= bias).all(), (observable, float((error / bias).max()))


@pytest.mark.slow
def test_the_energy_is_not_variational_without_the_chemical_potentials(solve):
    """Truncation moves electrons between layers: <H> - <H - mu N> is off in first order."""
    model = make_model(
        {"n_up": 4, "n_down": 4},
        5,
        boundary="periodic",
        M={"chemical_potential": -0.4},
        numerics={"block2": {"initial_bond_dimension": 12, "max_bond_dimension": 24}},
    )
    dmrg, exact = solve(model, "block2"), solve(model, "exact")
    assert float(dmrg.discarded_weight) > 1e-7
    assert abs(float(dmrg.energy - exact.energy)) < float(dmrg.energy_bias)
    assert float(dmrg.energy_bias) > float(dmrg.energy_truncation)


FROZEN = {
    "reflection": make_model({"n_up": 2, "n_down": 2}, 3, t_perp=0.0),
    "translation": make_model({"n_up": 2, "n_down": 2}, 3, t_perp=0.0, boundary="periodic"),
    "exchange": make_model({"n_up": 2, "n_down": 2}, 4, t_perp=0.0),
}


@pytest.mark.parametrize(
    ("name", "pairs"),
    [("reflection", (1, 1, 0)), ("translation", (1, 0, 1)), ("exchange", (1, 0, 0, 1))],
)
def test_a_frozen_pattern_is_not_called_converged_however_large_the_gap(name, pairs):
    """Pairs on disconnected sites, which neither a second start nor the next state has moved."""
    request = make_request(FROZEN[name], get_engine("block2"))
    sites = request.terms.n_sites
    occupied = np.zeros(sites)
    occupied[[site.layer == "P" for site in request.terms.sites]] = pairs
    stages = {
        "green": np.stack([np.diag(occupied)] * 2),
        "pair": np.diag(occupied),
        "double_occupancy": occupied,
    }
    output = {key: np.stack([value, value]) for key, value in stages.items()} | {
        "bond_dimension": np.array([12, 24]),
        "discarded_weight": np.array([1e-30, 1e-30]),
        "energy_with_mu": np.array([-8.0, -8.0]),
        "energy_variance": np.zeros(2),
        "drift": np.zeros(2),
        "proof_bond_dimension": np.array(24),
        "second_energy": np.array(-8.0),
        "second_deviation": np.array(0.0),
        "orthogonal_energy": np.array(-7.0),
    }
    found = averages_from_stages(output, request.terms, request.numerics)
    assert not found.converged
    assert "breaks a symmetry of H by 1" in found.reason
    assert np.isnan(found.bias["pair"]).all()
    # the same numbers where the sites do differ are no reason
    tilted = np.where(occupied > 0, 1.0, -1.0) * np.arange(1, sites + 1)
    terms = replace(request.terms, chemical_potential=tilted)
    assert averages_from_stages(output, terms, request.numerics).converged


@pytest.mark.parametrize("lower", [1e-8, 1e-3])
def test_a_second_start_that_ends_lower_is_the_better_one(lower):
    """Whatever the engine makes of it: the main run is not the ground state then."""
    request = make_request(CASES["open"], get_engine("block2"))
    sites = request.terms.n_sites
    output = {
        "bond_dimension": np.array([50, 100]),
        "discarded_weight": np.full(2, 1e-14),
        "energy_with_mu": np.full(2, -1.0),
        "energy_variance": np.zeros(2),
        "drift": np.zeros(2),
        "green": np.zeros((2, 2, sites, sites)),
        "pair": np.zeros((2, sites, sites)),
        "double_occupancy": np.zeros((2, sites)),
        "proof_bond_dimension": np.array(100),
        "second_energy": np.array(-1.0 - lower),
        "second_deviation": np.array(0.0),
        "orthogonal_energy": np.array(-0.5),
    }
    found = averages_from_stages(output, request.terms, request.numerics)
    wrong = lower > 1e-6
    assert found.converged is not wrong, found.reason
    assert ("a second start ended 1.0e-03 lower" in found.reason) is wrong
    assert np.isnan(found.bias["pair"]).all() == wrong
    if wrong:
        assert float(found.bias["energy"]) == pytest.approx(lower) or np.isnan(found.bias["energy"])


def test_truncated_correlators_are_within_their_bias(solve):
    few = {"block2": {"initial_bond_dimension": 24, "max_bond_dimension": 48}}
    model = make_model({"n_up": 3, "n_down": 3}, 5, t_perp=0.8, numerics=few)
    dmrg, exact = solve(model, "block2"), solve(model, "exact")
    for name in OBSERVABLES:
        ratio = np.abs(dmrg[name] - exact[name]) / np.abs(dmrg[f"{name}_bias"])
        assert float(ratio.max()) < 6, name
        assert float((ratio > 1).mean()) < 0.1, name


def test_agreement_of_two_stages_by_accident_is_no_small_bias():
    """Truncation disturbs all elements alike: the one that did not move is not better known."""
    request = make_request(CASES["open"], get_engine("block2"))
    sites = request.terms.n_sites
    rng = np.random.default_rng(1)
    pair = np.stack([1e-3 * rng.standard_normal((sites, sites)), np.zeros((sites, sites))])
    pair[:, 2, 5] = 0.0
    output = {
        "bond_dimension": np.array([50, 100]),
        "discarded_weight": np.array([1e-6, 1e-8]),
        "energy_with_mu": np.array([-1.0, -1.0]),
        "energy_variance": np.array([1e-6, 1e-8]),
        "drift": np.zeros(2),
        "green": np.zeros((2, 2, sites, sites)),
        "pair": pair,
        "double_occupancy": np.zeros((2, sites)),
        "proof_bond_dimension": np.array(100),
        "second_energy": np.array(-1.0),
        "second_deviation": np.array(0.0),
        "orthogonal_energy": np.array(-0.5),
    }
    bias = averages_from_stages(output, request.terms, request.numerics).bias["pair"]
    typical = np.sqrt(np.mean(bias**2))
    assert 0.3 * typical < abs(bias[2, 5]) < typical


def test_too_small_a_bond_dimension_is_not_called_converged(solve):
    numerics = {"block2": {"max_bond_dimension": 16, "initial_bond_dimension": 8}}
    model = make_model({"n_up": 3, "n_down": 3}, 6, observables=("pair",), numerics=numerics)
    dataset = solve(model, "block2")
    assert not dataset.attrs["converged"]
    assert "max_bond_dimension" in dataset.attrs["converged_reason"]
    exact = solve(model, "exact")
    error = float(dataset.energy - exact.energy)
    assert abs(error) < 3 * abs(float(dataset.energy_bias))
    assert float(dataset.energy_variance) > 1e-6


@pytest.mark.slow
def test_truncated_states_settle_and_state_what_truncation_costs(solve):
    """The ways there and back end in different states: no reason to sweep on, but an error."""
    model = make_model(
        {"n_up": 3, "n_down": 3},
        5,
        t_perp=0.8,
        numerics={"block2": {"max_bond_dimension": 24, "initial_bond_dimension": 12}},
    )
    dmrg, exact = solve(model, "block2"), solve(model, "exact")
    assert float(dmrg.discarded_weight) > 1e-7, "this bond dimension truncates nothing"
    assert "still changed" not in dmrg.attrs["converged_reason"]
    for name in ("pair", "green", "density"):
        assert float((np.abs(dmrg[name] - exact[name]) / np.abs(dmrg[f"{name}_bias"])).max()) < 4


def test_same_seed_same_numbers(solve, tmp_path):
    model = make_model({"n_up": 2, "n_down": 2}, 3, observables=("pair",))
    first = solve(model, "block2")
    renamed = model.model_copy(update={"name": "again"})
    second = solve(renamed, "block2")
    np.testing.assert_array_equal(first.pair, second.pair)


def test_symmetry_is_su2_only_where_the_ground_state_is_a_singlet():
    assert symmetry_of(CASES["open"].terms()) == "SU2"
    assert symmetry_of(CASES["polarized"].terms()) == "SZ"
    assert symmetry_of(CASES["repulsive metal"].terms()) == "SZ"


def working_memory(gib, **changes):
    numerics = {"block2": {"stack_memory_gib": gib}}
    return make_model({"n_up": 2, "n_down": 2}, numerics=numerics, **changes)


def test_working_memory_that_the_machine_does_not_have_is_refused_before(solve, monkeypatch):
    with pytest.raises(OrchestraError, match=r"stack_memory_gib = 4096 .* allows \d+\.\d GiB"):
        solve(working_memory(4096), "block2")
    block2 = get_engine("block2")
    monkeypatch.setattr("bilayer_orchestra.engines.block2.engine.memory_limit", lambda: 2**31)
    block2.check(make_request(working_memory(1.9), block2))
    with pytest.raises(OrchestraError, match=r"stack_memory_gib = 2\.1 .* allows 2\.0 GiB"):
        block2.check(make_request(working_memory(2.1), block2))


def test_working_memory_that_a_compute_node_does_not_give_is_said_there(tmp_path):
    """Where a job was rendered for another machine, the engine itself looks before it begins."""
    block2 = get_engine("block2")
    job = block2.render(make_request(working_memory(9), block2))
    (tmp_path / "job.json").write_text(job.files["job.json"])
    command = ["sh", "-c", 'ulimit -v 8000000 && exec "$0" "$@"', sys.executable, *job.arguments]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=tmp_path, env=job.environment
    )
    assert done.returncode == 1
    place = "9 GiB of working memory (numerics.block2.stack_memory_gib)"
    assert f"block2: this machine does not give {place}; take less" in done.stderr


def test_too_little_working_memory_is_named_once_block2_crashed(solve):
    with pytest.raises(EngineError) as error:
        solve(working_memory(1e-7), "block2")
    first, has, says = str(error.value).splitlines()
    assert "was killed by SIGABRT" in first
    assert "numerics.block2.stack_memory_gib" in has
    assert "exceeding allowed memory" in says


class Driver:
    """Answers like block2's driver, with zeros, and counts the elements that it is asked for."""

    def __init__(self, sites: int, spins: int) -> None:
        self.sites, self.spins, self.elements = sites, spins, 0

    def get_npdm(self, state, pdm_type, npdm_expr, mask=None, iprint=1):
        assert pdm_type == 2
        indices = 4 if mask is None else len(set(mask))
        self.elements += self.sites**indices
        return np.zeros((self.sites,) * min(indices, 2))

    def get_1pdm(self, state, iprint=1):
        self.elements += self.sites**2
        return np.zeros((self.spins, self.sites, self.sites)[2 - self.spins :])

    def get_bipartite_entanglement(self, state):
        self.elements += self.sites - 1
        return np.zeros(self.sites - 1)


@pytest.mark.parametrize(("symmetry", "spins"), [("SU2", 1), ("SZ", 2)])
def test_measurement_stays_quadratic_in_the_number_of_sites(symmetry, spins):
    """The full two-body density matrix, with the fourth power, is never asked for."""

    def asked(sites):
        driver = Driver(sites, spins)
        raw = measure(driver, None, symmetry, tuple(OBSERVABLES))
        assert {"pair", "green", "density_product", "spin_spin"} <= set(raw)
        return driver.elements

    assert 0 < asked(40) <= 100 * asked(4)


def test_stages_grow_up_to_the_bond_dimension_that_is_allowed():
    backend = get_engine("block2")
    job = backend.render(make_request(CASES["open"], backend))
    assert json.loads(job.files["job.json"])["settings"]["stages"] == [50, 100, 200, 400]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (make_model({"beta": 2.0}), "does not solve thermal states"),
        (make_model({"n_up": 0, "n_down": 0}), "one electron"),
        (make_model({"n_up": 1, "n_down": 1}, 1), "4 sites"),
        (
            make_model({"n_up": 1, "n_down": 1}, t_perp=0, P={"interaction": 0}, M={"hopping": 0}),
            "H is zero",
        ),
    ],
)
def test_what_it_cannot_do_is_refused(model, message):
    backend = get_engine("block2")
    with pytest.raises(OrchestraError, match=message):
        checked_request(model, backend)
