"""Exact diagonalization against brute force, closed forms and the reference numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import eigh
from scipy.special import expit

from bilayer_orchestra.engines.registry import get_engine
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.running.choice import AUTO, engine_for
from bilayer_orchestra.running.point import make_request
from tests.support.brute_force import oracle, reflected_states
from tests.support.datasets import assert_matches, site_matrix
from tests.support.free_fermions import wick
from tests.support.models import make_model

pytestmark = pytest.mark.lowest


@pytest.mark.parametrize(
    "model",
    [
        make_model({"n_up": 1, "n_down": 1}, 2),
        make_model({"n_up": 3, "n_down": 2}, 2, P={"hopping": 0.3}, M={"chemical_potential": 0.4}),
        make_model({"n_up": 2, "n_down": 1}, 2, boundary="periodic", M={"interaction": 1.5}),
        make_model({"beta": 1.3}, 2, P={"chemical_potential": -2.2}),
        make_model({"beta": 4.0}, 2, boundary="periodic", M={"chemical_potential": -0.5}),
    ],
)
def test_every_observable_against_the_full_fock_space(solve, model):
    assert_matches(solve(model, "exact"), oracle(model.terms()), 1e-10)


@pytest.mark.parametrize(
    ("model", "energy"),
    [
        (make_model({"n_up": 1, "n_down": 1}, 2, t_perp=0.8), -4.354554895800679),
        (make_model({"n_up": 3, "n_down": 3}, 4), -12.430100699607),
    ],
)
def test_reference_energies(solve, model, energy):
    assert float(solve(model, "exact").energy) == pytest.approx(energy, abs=1e-10)


def test_gap_of_the_reference_case(solve):
    assert float(solve(make_model({"n_up": 3, "n_down": 3}), "exact").gap) == pytest.approx(
        1.7e-3, rel=0.01
    )


def test_free_fermions_at_zero_temperature(solve):
    model = make_model({"n_up": 3, "n_down": 2}, 3, P={"interaction": 0.0, "hopping": 0.2})
    filled = {0: 3, 1: 2}
    expected = wick(model.terms(), lambda levels, s: np.arange(len(levels)) < filled[s])
    assert_matches(solve(model, "exact"), expected, 1e-10)


def test_free_fermions_at_finite_temperature(solve):
    model = make_model(
        {"beta": 2.5}, 3, boundary="periodic", P={"interaction": 0.0}, M={"chemical_potential": 0.3}
    )
    expected = wick(model.terms(), lambda levels, _: expit(-2.5 * levels))
    assert_matches(solve(model, "exact"), expected, 1e-10)


def test_decoupled_layers_at_finite_temperature(solve):
    """t_perp = 0: isolated attractive sites beside a free chain."""
    beta, mu = 3.0, -1.7
    model = make_model({"beta": beta}, 3, t_perp=0.0, P={"chemical_potential": mu})
    dataset = solve(model, "exact")
    single, double = np.exp(beta * mu), np.exp(beta * (2 * mu + 4.0))
    partition = 1 + 2 * single + double
    np.testing.assert_allclose(dataset.density.sel(layer="P"), (single + double) / partition)
    np.testing.assert_allclose(dataset.double_occupancy.sel(layer="P"), double / partition)
    chain = -np.diag(np.ones(2), 1) - np.diag(np.ones(2), -1)
    levels, orbitals = eigh(chain)
    green = orbitals @ np.diag(expit(-beta * levels)) @ orbitals.T
    metal = dataset.green.sel(layer="M", layer_="M", spin="up").transpose("x", "x_")
    np.testing.assert_allclose(metal, green, atol=1e-12)
    np.testing.assert_allclose(dataset.pair.sel(layer="P", layer_="M"), 0.0, atol=1e-12)


@pytest.mark.parametrize(("boundary", "length"), [("open", 3), ("periodic", 2)])
def test_half_filling_ties_pairs_to_density(solve, boundary, length):
    """Pseudospin SU(2) at mu_P = U/2: <Delta+_i Delta_j> = +- <dn_i dn_j> / 2; doping breaks it."""

    def difference(n_up):
        model = make_model(
            {"n_up": n_up, "n_down": n_up},
            length,
            boundary=boundary,
            P={"chemical_potential": -2.0},
        )
        dataset = solve(model, "exact")
        pair, density = site_matrix(dataset, "pair"), site_matrix(dataset, "density_density")
        off = ~np.eye(2 * length, dtype=bool)
        sublattice = np.array([(-1) ** (x + layer) for x in range(length) for layer in (0, 1)])
        signed = np.outer(sublattice, sublattice) * density / 2
        return np.abs(pair - signed)[off].max()

    assert difference(length) < 1e-9  # n_up = length: half filling of 2 L sites
    assert difference(length - 1) > 1e-2


@pytest.mark.slow
def test_thermal_reference_case_of_four_rungs(solve):
    """Reference numbers: periodic, beta = 4, U = -4, t_perp = 0.5, mu_P = -2.2, mu_M = -0.5."""
    model = make_model(
        {"beta": 4.0},
        boundary="periodic",
        P={"chemical_potential": -2.2},
        M={"chemical_potential": -0.5},
        observables=("density", "double_occupancy", "pair"),
    )
    dataset = solve(model, "exact")
    assert float(dataset.kinetic_energy) == pytest.approx(-4.5321, abs=5e-5)
    assert float(dataset.double_occupancy.sel(layer="P").sum()) == pytest.approx(0.81576, abs=5e-6)
    particles = dataset.density.sum(["spin", "x"])
    assert float(particles.sel(layer="P")) == pytest.approx(1.7495, abs=5e-5)
    assert float(particles.sel(layer="M")) == pytest.approx(2.6413, abs=5e-5)
    pair = dataset.pair.sel(x=0, x_=2)
    assert float(pair.sel(layer="P", layer_="P")) == pytest.approx(0.00333, abs=5e-6)
    assert float(pair.sel(layer="M", layer_="M")) == pytest.approx(0.02716, abs=5e-6)


def outer_pair(dataset) -> float:
    """<Delta+ Delta> between the outer P sites."""
    return float(dataset.pair.sel(layer="P", layer_="P", x=0, x_=dataset.sizes["x"] - 1))


@pytest.mark.parametrize("common", [0.0, 100.0, -1000.0])
@pytest.mark.parametrize(("t_perp", "gap"), [(0.2, 1.0253e-8), (0.1, 5.45e-10)])
def test_a_small_gap_does_not_depend_on_a_constant(solve, common, t_perp, gap):
    """Two charge patterns that tunnel; the reference tells even and odd apart by symmetry."""
    layers = {
        "P": {"interaction": -8.0, "chemical_potential": common},
        "M": {"chemical_potential": common},
    }
    model = make_model({"n_up": 3, "n_down": 3}, t_perp=t_perp, **layers)
    bare = make_model({"n_up": 3, "n_down": 3}, t_perp=t_perp, P={"interaction": -8.0})
    (energy, pair), (above, _) = reflected_states(bare.terms())
    assert above - energy == pytest.approx(gap, rel=2e-3)
    dataset = solve(model, "exact")
    assert dataset.attrs["converged"], dataset.attrs["converged_reason"]
    assert float(dataset.degeneracy) == 1
    assert float(dataset.energy) == pytest.approx(energy, abs=1e-11)
    assert float(dataset.gap) == pytest.approx(above - energy, rel=1e-3, abs=3e-13)
    assert abs(outer_pair(dataset)) > 0.49
    np.testing.assert_allclose(site_matrix(dataset, "pair"), pair, atol=2e-4 * 1e-9 / gap)


@pytest.mark.parametrize("unit", [1e-7, 1e3])
def test_levels_are_compared_in_the_units_of_the_model(solve, unit):
    """The same ladder with energies in other units: same states, same degeneracy."""

    def scaled(unit):
        layer = {"P": {"interaction": -4.0 * unit}, "M": {"hopping": unit}}
        return make_model({"n_up": 3, "n_down": 3}, t_perp=0.5 * unit, **layer)

    dataset, reference = solve(scaled(unit), "exact"), solve(scaled(1.0), "exact")
    assert float(dataset.degeneracy) == 1
    assert float(dataset.gap) / unit == pytest.approx(float(reference.gap), rel=1e-6)
    np.testing.assert_allclose(dataset.pair, reference.pair, atol=1e-8)


@pytest.mark.parametrize("common", [0.0, 100.0])
def test_a_gap_too_small_to_resolve_is_called_that(solve, common):
    """At t_perp = 0.02 the two patterns differ by 8e-13: neither one level nor two."""
    layers = {
        "P": {"interaction": -8.0, "chemical_potential": common},
        "M": {"chemical_potential": common},
    }
    dataset = solve(make_model({"n_up": 3, "n_down": 3}, t_perp=0.02, **layers), "exact")
    assert not dataset.attrs["converged"]
    reason = dataset.attrs["converged_reason"]
    assert "a gap too small to resolve (tolerance" in reason
    assert "correlators are not determined" in reason


def test_degenerate_ground_level_is_averaged(solve):
    """Two pairs on three disconnected attractive sites: three equivalent places for the hole."""
    model = make_model({"n_up": 2, "n_down": 2}, 3, t_perp=0.0, P={"interaction": -20.0})
    dataset = solve(model, "exact")
    assert float(dataset.degeneracy) == 3
    assert dataset.attrs["converged"]
    assert "3 states (closer than" in dataset.attrs["converged_reason"]
    np.testing.assert_allclose(dataset.double_occupancy.sel(layer="P"), 2 / 3, atol=1e-10)


def test_thermal_state_approaches_the_ground_state(solve):
    """T -> 0 with the chemical potentials inside the gap of one sector."""
    shared = {"P": {"chemical_potential": -1.2}, "M": {"chemical_potential": 0.6}}
    cold = solve(make_model({"beta": 400.0}, 2, t_perp=0.8, **shared), "exact")
    numbers = cold.density.sum(["layer", "x"]).round(6)
    state = {"n_up": int(numbers.sel(spin="up")), "n_down": int(numbers.sel(spin="down"))}
    ground = solve(make_model(state, 2, t_perp=0.8, **shared), "exact")
    np.testing.assert_allclose(cold.pair, ground.pair, atol=1e-3)
    assert float(cold.energy) == pytest.approx(float(ground.energy), abs=1e-3)


def test_more_sites_than_bits_are_refused_whatever_the_sector():
    """Few particles on many sites make a small sector, whose states no integer can hold."""
    model = make_model({"n_up": 1, "n_down": 1}, 50)
    backend = get_engine("exact")
    with pytest.raises(OrchestraError, match="100 sites are out of reach"):
        backend.check(make_request(model, backend))
    assert engine_for(model, AUTO).name != "exact"
    backend.check(make_request(make_model({"n_up": 1, "n_down": 1}, 31), backend))
