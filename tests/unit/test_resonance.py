"""Time steps at which nearly isolated sites hide a part of their averages: docs/decisions/0016."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.linalg import expm

from bilayer_orchestra.engines.alf.settings import ALFNumerics
from bilayer_orchestra.engines.alf.steps import (
    RESONANT,
    resonance,
    resonant_steps,
    time_steps,
)
from bilayer_orchestra.terms import Terms
from tests.support.models import make_model


def pair_of_sites(beta: float, attraction: float, t_perp: float, **layer: float) -> Terms:
    mu = layer.pop("chemical_potential", attraction / 2)
    sites = {"interaction": attraction, "chemical_potential": mu, **layer}
    return make_model(
        {"beta": beta}, 2, P=sites, M={"chemical_potential": -0.7}, t_perp=t_perp
    ).terms()


#: beta, U, t_perp, other settings of P; the resonant number of slices
CASES = [
    (1.0, -6.691355, 0.2295576, {"hopping": 0.4221378, "chemical_potential": -2.7658517}, 5),
    (3.0, -4.8449625, 0.3288071, {"chemical_potential": -2.4581929}, 20),
]


@pytest.mark.parametrize("slices", [3, 6])
def test_it_is_the_second_moment_of_an_isolated_site(slices):
    terms = pair_of_sites(1.0, -5.0, 0.5)
    angle = np.arccos(np.exp(-5.0 / slices / 2))
    fields = np.array(list(itertools.product((1, -1), repeat=slices)))
    weights = np.abs(1 + np.exp(1j * angle * fields.sum(axis=1))) ** 2
    assert resonance(terms, 1.0, slices) == pytest.approx(np.mean(4 / weights))


@pytest.mark.parametrize(("beta", "attraction", "t_perp", "layer", "slices"), CASES)
def test_automatic_steps_avoid_it(beta, attraction, t_perp, layer, slices):
    terms = pair_of_sites(beta, attraction, t_perp, **layer)
    assert resonance(terms, beta, slices) > 2 * RESONANT
    steps = time_steps(terms, ALFNumerics())
    assert all(resonance(terms, beta, round(beta / step)) < 20 for step in steps)
    assert resonant_steps(terms, [beta / slices, *steps]) == [beta / slices]


def test_hybridized_sites_do_not_care():
    beta, attraction, _, layer, slices = CASES[1]
    terms = pair_of_sites(beta, attraction, 1.0, **layer)
    assert resonance(terms, beta, slices) > RESONANT
    assert resonant_steps(terms, [beta / slices]) == []


def second_moment_is_rare(terms: Terms, slices: int) -> float:
    """Probability of the configurations that make half of the variance of pair(P0, P1).

    All of them are summed: the weight of the spin channel is |det(1 + B)|^2, the pair correlation
    of a configuration |<c+_i c_j>|^2.
    """
    beta = terms.state.beta
    active = np.flatnonzero(terms.interaction < 0)
    one_body = terms.one_body - np.diag(terms.chemical_potential - terms.interaction / 2)
    half = expm(-beta / slices / 2 * one_body)
    angle = np.arccos(np.exp(beta / slices * terms.interaction[active] / 2))
    fields = np.array(list(itertools.product((1, -1), repeat=slices * len(active))))
    fields = fields.reshape(-1, slices, len(active))
    product = np.broadcast_to(np.eye(4), (len(fields), 4, 4))
    for k in range(slices):
        phases = np.ones((len(fields), 4), complex)
        phases[:, active] = np.exp(1j * angle * fields[:, k])
        product = half @ (phases[:, :, None] * (half @ product))
    matrix = np.eye(4) + product
    weight = np.abs(np.linalg.det(matrix)) ** 2
    weight /= weight.sum()
    pair = np.abs(np.linalg.inv(matrix)[:, active[1], active[0]]) ** 2
    share = weight * (pair - weight @ pair) ** 2
    order = np.argsort(-share)
    last = int(np.searchsorted(np.cumsum(share[order]), share.sum() / 2))
    return float(weight[order][: last + 1].sum())


def test_the_configurations_that_matter_are_rare_only_there():
    """At other numbers of slices what makes the variance is met ten times as often."""
    beta, attraction, t_perp, layer, slices = CASES[0]
    terms = pair_of_sites(beta, attraction, t_perp, **layer)
    assert second_moment_is_rare(terms, slices) < 1e-4
    for other in (slices - 1, slices + 2):
        assert second_moment_is_rare(terms, other) > 5e-4
