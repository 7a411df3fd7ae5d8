"""An engine checks itself: identities hold on sound results and fail on broken ones."""

from __future__ import annotations

import numpy as np
import pytest

from bilayer_orchestra.checking.closed_forms import averages
from bilayer_orchestra.checking.identities import check_identities
from tests.support.brute_force import oracle
from tests.support.models import make_model

FREE = {"P": {"interaction": 0.0, "hopping": 0.3}, "M": {"chemical_potential": 0.2}}
ATOMS = {"t_perp": 0.0, "P": {"interaction": -3.0, "chemical_potential": -1.3}}


@pytest.mark.parametrize(
    "model",
    [
        make_model({"beta": 2.0}, 2, **FREE),
        make_model({"n_up": 2, "n_down": 1}, 2, **FREE),
        make_model({"beta": 2.0}, 2, **ATOMS),
    ],
    ids=["free thermal", "free ground state", "atoms"],
)
def test_closed_forms_against_the_full_fock_space(model):
    expected = oracle(model.terms())
    for name, value in averages(model.terms()).items():
        if name in expected:
            np.testing.assert_allclose(value, expected[name], atol=1e-10, err_msg=name)


def outcomes(dataset):
    return {identity.name: identity.outcome for identity in check_identities(dataset)}


@pytest.mark.parametrize("backend", ["exact", "block2"])
def test_half_filling(solve, backend):
    found = outcomes(
        solve(make_model({"n_up": 3, "n_down": 3}, 3, P={"chemical_potential": -2.0}), backend)
    )
    assert found["pseudospin: pair = +-(density correlation)/2"] == "holds"
    assert "violated" not in found.values()


def test_doping_breaks_the_pseudospin_identity(solve):
    found = outcomes(solve(make_model({"n_up": 2, "n_down": 2}, 3), "exact"))
    assert found["pseudospin identity broken by doping"] == "holds"
    assert found["limits of free and of isolated sites"] == "not applicable"


@pytest.mark.parametrize("changes", [FREE, ATOMS], ids=["U = 0", "t_perp = 0"])
def test_limits(solve, changes):
    found = outcomes(solve(make_model({"beta": 3.0}, 3, **changes), "exact"))
    assert sum("limit" in name for name in found) == 9
    assert "violated" not in found.values()


BROKEN = {
    "green doubled": (lambda d: d.assign(green=2 * d.green), "trace of green = N"),
    "pair not positive": (lambda d: d.assign(pair=-d.pair), "pair has no negative eigenvalue"),
    "pair transposed layers": (
        lambda d: d.assign(pair=d.pair.assign_coords(layer_=["M", "P"])),
        "definitions",
    ),
    "energy with mu N": (lambda d: d.assign(energy=d.energy - 2.0), "definitions"),
    "kinetic energy": (
        lambda d: d.assign(kinetic_energy=1.02 * d.kinetic_energy),
        "kinetic energy = sum h green",
    ),
    "not connected": (
        lambda d: d.assign(density_density=d.density_density + 0.2),
        "rows of density_density sum to their fixed number",
    ),
    "NaN": (lambda d: d.assign(pair=d.pair.where(d.x != 0)), "definitions"),
    "one element": (
        lambda d: d.assign(green=d.green.where((d.x != 0) | (d.x_ != 1), d.green + 0.01)),
        "definitions",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_results_are_noticed(solve, name):
    change, identity = BROKEN[name]
    sound = solve(make_model({"n_up": 2, "n_down": 2}, 3), "exact")
    broken = change(sound)
    broken.attrs = sound.attrs
    assert outcomes(sound)[identity] == "holds"
    assert outcomes(broken)[identity] == "violated"
