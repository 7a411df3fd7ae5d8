"""Terms: what must hold for every model, as properties."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bilayer_orchestra.engines.exact.fock import Sector
from bilayer_orchestra.model.spec import parse_model
from bilayer_orchestra.terms import Canonical, GrandCanonical, Site, Terms
from tests.support.models import make_model

coupling = st.floats(-8, 8).map(lambda value: round(value, 3))


@st.composite
def models(draw, max_length=4):
    length = draw(st.integers(1, max_length))
    number = st.integers(0, 2 * length)
    state = draw(
        st.one_of(
            st.fixed_dictionaries({"n_up": number, "n_down": number}),
            st.fixed_dictionaries({"beta": st.floats(0.01, 100)}),
        )
    )
    layer = st.fixed_dictionaries(
        {"hopping": coupling, "interaction": coupling, "chemical_potential": coupling}
    )
    return make_model(
        state,
        length,
        name=draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)),
        boundary=draw(st.sampled_from(["open", "periodic"])),
        t_perp=draw(coupling),
        P=draw(layer),
        M=draw(layer),
        observables=tuple(
            draw(st.lists(st.sampled_from(["pair", "green"]), min_size=1, unique=True))
        ),
        numerics={"alf": {"dtau": draw(st.sampled_from([0.1, (0.2, 0.1), "auto"]))}},
    )


@given(models(max_length=12))
def test_yaml_round_trip(model):
    assert parse_model(model.to_yaml()) == model


@given(models(max_length=12))
def test_one_body_is_hermitian_and_labelled(model):
    terms = model.terms()
    assert np.array_equal(terms.one_body, terms.one_body.T)
    assert len(set(terms.sites)) == terms.n_sites == 2 * model.length
    restored = Terms.from_dict(json.loads(json.dumps(terms.to_dict())))
    for name in ("one_body", "interaction", "chemical_potential"):
        np.testing.assert_array_equal(getattr(restored, name), getattr(terms, name))
    assert (restored.sites, restored.state) == (terms.sites, terms.state)


def spectrum(terms, n_up, n_down):
    return np.linalg.eigvalsh(Sector(terms, n_up, n_down).matrix().toarray())


@settings(deadline=None, max_examples=25)
@given(models(max_length=2), st.randoms(use_true_random=False), st.data())
def test_spectrum_does_not_depend_on_the_site_order(model, random, data):
    terms = model.terms()
    n_up, n_down = (data.draw(st.integers(0, terms.n_sites)) for _ in range(2))
    order = list(range(terms.n_sites))
    random.shuffle(order)
    shuffled = terms.permuted(order)
    assert shuffled.sites[0] == terms.sites[order[0]]
    np.testing.assert_allclose(
        spectrum(shuffled, n_up, n_down), spectrum(terms, n_up, n_down), atol=1e-9
    )


@settings(deadline=None, max_examples=25)
@given(models(max_length=2), st.data())
def test_particle_hole_transformation(model, data):
    """c_i -> s_i c+_i on a bipartite lattice: h stays, mu -> U - mu, constant U - 2 mu per site."""
    terms = model.terms()
    ring_of_one = model.length == 1
    signs = np.array([(-1) ** (site.x + (site.layer == "M")) for site in terms.sites])
    bipartite = not np.any((terms.one_body != 0) & (np.outer(signs, signs) > 0))
    assert bipartite or ring_of_one
    from dataclasses import replace

    mirrored = replace(terms, chemical_potential=terms.interaction - terms.chemical_potential)
    n_up, n_down = (data.draw(st.integers(0, terms.n_sites)) for _ in range(2))
    constant = np.sum(terms.interaction - 2 * terms.chemical_potential)
    np.testing.assert_allclose(
        spectrum(terms, n_up, n_down),
        spectrum(mirrored, terms.n_sites - n_up, terms.n_sites - n_down) + constant,
        atol=1e-9,
    )


@given(models(), st.floats(-1000, 1000).map(lambda value: round(value, 1)))
def test_a_constant_is_gone_where_particle_numbers_are_fixed(model, constant):
    terms = model.terms()
    moved = replace(terms, chemical_potential=terms.chemical_potential + constant)
    one, other = terms.centred(), moved.centred()
    if isinstance(terms.state, GrandCanonical):
        np.testing.assert_array_equal(other.chemical_potential, moved.chemical_potential)
        return
    np.testing.assert_allclose(other.chemical_potential, one.chemical_potential, atol=1e-12)
    levels = one.one_body.diagonal() - one.chemical_potential
    assert levels.max() == pytest.approx(-levels.min(), abs=1e-12)
    if len(set(terms.chemical_potential)) == 1:  # then not even rounding is left of it
        assert not other.chemical_potential.any()


def test_a_ring_of_two_has_its_bond_twice():
    model = make_model({"n_up": 1, "n_down": 1}, 2, boundary="periodic")
    assert model.terms().one_body[1, 3] == -2.0
    assert make_model({"n_up": 1, "n_down": 1}, 2).terms().one_body[1, 3] == -1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sites": (Site("P", 0), Site("P", 0))}, "distinct"),
        ({"one_body": np.array([[0.0, 1.0], [2.0, 0.0]])}, "symmetric"),
        ({"one_body": np.zeros((3, 3))}, "shape"),
        ({"interaction": np.array([np.nan, 0.0])}, "NaN"),
        ({"state": Canonical(3, 0)}, "fit"),
        ({"state": GrandCanonical(-1.0)}, "beta"),
    ],
)
def test_impossible_terms_are_refused(change, message):
    good = {
        "sites": (Site("P", 0), Site("M", 0)),
        "one_body": np.array([[0.0, 1.0], [1.0, 0.0]]),
        "interaction": np.zeros(2),
        "chemical_potential": np.zeros(2),
        "state": Canonical(1, 1),
    }
    Terms(**good)
    with pytest.raises(ValueError, match=message):
        Terms(**(good | change))
