"""The limit dtau -> 0 without any noise: exact averages of the discretized weight on two rungs."""

from __future__ import annotations

import numpy as np
import pytest

from bilayer_orchestra.analysis.estimates import Estimate
from bilayer_orchestra.analysis.trotter import Extrapolated, extrapolate
from bilayer_orchestra.engines.alf.results import (
    against_line,
    against_steps,
    biases,
    too_coarse,
)
from bilayer_orchestra.engines.alf.settings import ALFNumerics
from bilayer_orchestra.engines.alf.steps import time_steps
from bilayer_orchestra.terms import Terms
from tests.support.discretized import averages, operators
from tests.support.models import make_model


def random_terms(rng: np.random.Generator) -> Terms:
    attraction = -rng.uniform(1, 8)
    return make_model(
        {"beta": float(rng.choice([2, 4, 8]))},
        2,
        P={
            "interaction": attraction,
            "chemical_potential": attraction / 2 + rng.uniform(-0.5, 0.5),
            "hopping": float(rng.choice([0.0, 0.4])),
        },
        M={
            "interaction": float(rng.choice([0.0, -3.0])),
            "chemical_potential": rng.uniform(-1.5, 0.5),
        },
        t_perp=rng.uniform(0.2, 1.5),
    ).terms()


def limit_of(terms: Terms, steps: tuple[float, ...]) -> Extrapolated:
    none = np.zeros((2, len(operators())))
    return extrapolate(list(steps), [Estimate(averages(terms, s), none, 1.0) for s in steps])


@pytest.mark.parametrize("seed", range(6))
def test_what_is_left_is_within_the_stated_bias(seed):
    terms = random_terms(np.random.default_rng(seed))
    exact = averages(terms, 0)
    automatic = time_steps(terms, ALFNumerics())
    for steps, size in ((automatic, 3e-4), ((0.2, 0.1), 4e-3)):
        found = limit_of(terms, steps)
        left = np.abs(found.estimate.value - exact)
        assert left.max() < size
        # also of single elements that cross zero
        assert (left <= found.bias).all()
        assert np.linalg.norm(left) < 0.5 * np.linalg.norm(found.bias)
        # and the stated size is no excuse for everything
        assert found.bias.max() < 0.3 * np.abs(found.correction).max()
        assert not too_coarse(found)


def energies(terms: Terms, dtau: float) -> dict[str, np.ndarray]:
    """Kinetic, interaction and total energy of the discretized weight."""
    pair, green, *_ = averages(terms, dtau).reshape(-1, 4).T
    row, column = np.triu_indices(4)
    weight = np.where(row == column, 2, 4)  # two spins, and both triangles
    kinetic = np.sum(weight * terms.one_body[row, column] * green)
    interaction = np.sum(terms.interaction * pair[row == column])
    return {
        "kinetic_energy": kinetic,
        "interaction_energy": interaction,
        "energy": kinetic + interaction,
    }


def test_a_sum_whose_second_order_cancels_is_no_reason_against_the_steps():
    """Kinetic and interaction energy converge well; the dtau^2 terms of their sum nearly cancel."""
    terms = random_terms(np.random.default_rng(32))
    steps = list(time_steps(terms, ALFNumerics()))
    found = [energies(terms, step) for step in steps]
    none = np.zeros(2)
    limits = {
        name: extrapolate(steps, [Estimate(one[name], none, 1.0) for one in found])
        for name in found[0]
    }
    assert too_coarse(limits["energy"]), "this model is no example"
    assert not list(against_line(limits))
    left = abs(limits["energy"].estimate.value - energies(terms, 0)["energy"])
    assert left < 1e-4
    # what the sum alone says of itself is not enough where it crosses zero, what its parts say is
    assert (left <= biases(limits)["energy"]).all()


def test_steps_far_too_coarse_hide_what_is_left_and_are_refused_by_their_size():
    """Steps of 0.5 at |U| = 16: off by 0.54 where they themselves say 0.02."""
    layer = {"interaction": -16.0, "chemical_potential": -8.3}
    terms = make_model({"beta": 4.0}, 2, P=layer, t_perp=1.5).terms()
    found = limit_of(terms, (2.0, 1.0, 0.5))
    left = np.abs(found.estimate.value - averages(terms, 0)).max()
    assert left > 10 * found.bias.max()
    assert list(against_steps([2.0, 1.0, 0.5], terms))
    automatic = time_steps(terms, ALFNumerics())
    assert not list(against_steps(list(automatic), terms))
    assert np.abs(limit_of(terms, automatic).estimate.value - averages(terms, 0)).max() < 3e-4
