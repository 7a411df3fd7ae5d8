"""Exact statements that one result alone must fulfil: an engine checks itself.

Each says whether it applies to the model at all, and if so whether it holds within the stated
errors. Sources: sum rules of the definitions; pseudospin SU(2) at half filling (C. N. Yang and
S. C. Zhang, Mod. Phys. Lett. B 4, 759 (1990)); closed forms of U = 0 and t_perp = 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from scipy.sparse.csgraph import shortest_path

from bilayer_orchestra.checking.classes import natural_scale
from bilayer_orchestra.checking.closed_forms import averages, no_closed_form
from bilayer_orchestra.checking.consistency import inconsistencies
from bilayer_orchestra.checking.statistics import ROUNDING
from bilayer_orchestra.dataset.reading import by_site, need_chains
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.model.spec import stored_model
from bilayer_orchestra.terms import Canonical, FloatArray, Terms

Standing = Literal["holds", "violated", "undecided", "not applicable"]

#: Deviations beyond this many standard errors violate an identity.
SIGMAS = 6.0
#: Chemical potentials closer than this are equal.
EQUAL = 1e-12


@dataclass(frozen=True)
class Identity:
    """One statement about one result."""

    name: str
    outcome: Standing
    detail: str


class _Sites:
    """A result as matrices over sites in the order of its Terms, with errors."""

    def __init__(self, dataset: xr.Dataset, terms: Terms) -> None:
        self.dataset, self.terms = dataset, terms

    def value(self, name: str) -> FloatArray:
        return by_site(self.dataset[name], self.terms.sites).astype(float)

    def error(self, name: str) -> FloatArray:
        """Systematic and SIGMAS statistical errors, and rounding."""
        value, bias = self.value(name), np.abs(self.value(f"{name}_bias"))
        largest = max(natural_scale(name, self.terms), float(np.abs(value).max()))
        systematic = np.max(bias, initial=0.0, where=np.isfinite(bias))
        total = np.full(value.shape, systematic + ROUNDING * largest)
        if f"{name}_stderr" in self.dataset:
            total += SIGMAS * self.value(f"{name}_stderr")
        return total


#: Takes the result, the name of the identity, and the observables that it is about.
Tester = Callable[..., Iterator[Identity]]


@dataclass(frozen=True)
class _Rule:
    """An identity, the observables without which it cannot be tested, and its test."""

    name: str
    needs: tuple[str, ...]
    canonical: bool
    test: Tester

    def applied(self, result: _Sites) -> Iterator[Identity]:
        if self.canonical and not isinstance(result.terms.state, Canonical):
            yield Identity(self.name, "not applicable", "the particle number fluctuates")
        elif missing := [name for name in self.needs if name not in result.dataset]:
            detail = f"no {' and no '.join(missing)} in this result"
            yield Identity(self.name, "not applicable", detail)
        else:
            yield from self.test(result, self.name, *self.needs)


#: In the order in which they are reported.
RULES: list[_Rule] = []


def _rule(name: str, *needs: str, canonical: bool = False) -> Callable[[Tester], Tester]:
    """Make a test the rule of this name; ``canonical``: only where particle numbers are fixed."""

    def register(test: Tester) -> Tester:
        RULES.append(_Rule(name, needs, canonical, test))
        return test

    return register


def check_identities(dataset: xr.Dataset) -> list[Identity]:
    """Test everything that can be tested in ``dataset``.

    Raises
    ------
    OrchestraError
        If its observables are not those of the sites that were solved.
    """
    need_chains(dataset.dims, "identities")
    model = stored_model(dataset.attrs["model"])
    if model.TRANSLATION:
        raise OrchestraError(
            f"identities are those of `model: bilayer`, this is `model: {model.model}`; run the "
            "bilayer that it maps to, or compare two engines with orchestra check"
        )
    result = _Sites(dataset, model.terms())
    return [identity for rule in RULES for identity in rule.applied(result)]


def _judged(name: str, difference: ArrayLike, allowed: ArrayLike, text: str) -> Identity:
    """Return whether a difference, of the shape of what is ``allowed``, is within the errors."""
    sizes, limits = np.abs(np.ravel(difference)), np.ravel(allowed)
    if not np.isfinite(sizes).all():
        return Identity(name, "violated", f"{text}: not finite")
    worst = int(np.argmax(sizes / limits))
    outcome: Standing = "violated" if sizes[worst] > limits[worst] else "holds"
    detail = f"deviation {sizes[worst]:.1e}, errors allow {limits[worst]:.1e}"
    return Identity(name, outcome, f"{text}: {detail}")


def _spectrum(
    name: str, matrix: FloatArray, error: FloatArray, highest: float, text: str
) -> Identity:
    """Return whether the eigenvalues of a matrix are between 0 and ``highest``.

    Parameters
    ----------
    name : str
        Of the identity.
    matrix, error : array, shape (N, N)
        Values and their errors.
    highest : float
        Largest value that is allowed.
    text : str
        The detail, with places for the lowest and the highest eigenvalue.
    """
    if not np.isfinite(matrix).all():
        return Identity(name, "violated", "not finite")
    levels = np.linalg.eigvalsh((matrix + matrix.T) / 2)
    outside = np.maximum(np.maximum(-levels, levels - highest).max(), 0.0)
    return _judged(name, outside, np.linalg.norm(error), text.format(levels[0], levels[-1]))


@_rule("definitions")
def _definitions(result: _Sites, name: str) -> Iterator[Identity]:
    if broken := inconsistencies(result.dataset, result.terms):
        yield Identity(name, "violated", "; ".join(broken))
    else:
        yield Identity(name, "holds", "symmetric matrices, diagonals, stated errors")


@_rule("trace of green = N", "green", canonical=True)
def _numbers(result: _Sites, name: str, green: str) -> Iterator[Identity]:
    state, trace = tuple(result.terms.state), np.trace(result.value(green), axis1=1, axis2=2)
    error = np.trace(result.error(green), axis1=1, axis2=2)
    yield _judged(name, trace - np.array(state), error, f"N = {state}")


@_rule("natural occupations between 0 and 1", "green")
def _occupations(result: _Sites, name: str, green: str) -> Iterator[Identity]:
    for spin, matrix, error in zip(
        ("up", "down"), result.value(green), result.error(green), strict=True
    ):
        yield _spectrum(f"{name} ({spin})", matrix, error, 1.0, "{:.4g} to {:.4g}")


@_rule("density_density has no negative eigenvalue", "density_density")
@_rule("pair has no negative eigenvalue", "pair")
def _positive(result: _Sites, name: str, matrix: str) -> Iterator[Identity]:
    yield _spectrum(name, result.value(matrix), result.error(matrix), np.inf, "lowest {:.3g}")


@_rule("double occupancy within its bounds", "density", "double_occupancy")
def _bounds(result: _Sites, name: str, density: str, double: str) -> Iterator[Identity]:
    (up, down), doubly = result.value(density), result.value(double)
    outside = np.maximum(doubly - np.minimum(up, down), np.maximum(0.0, up + down - 1.0) - doubly)
    error = result.error(double) + result.error(density).sum(axis=0)
    yield _judged(name, np.maximum(outside, 0.0), error, "n_up + n_dn - 1 <= d <= n_up, n_dn")


@_rule("rows of spin_spin sum to their fixed number", "spin_spin", "density", canonical=True)
@_rule(
    "rows of density_density sum to their fixed number",
    *("density_density", "density"),
    canonical=True,
)
def _fluctuations(result: _Sites, name: str, matrix: str, density: str) -> Iterator[Identity]:
    (n_up, n_down), (up, down) = np.array(result.terms.state), result.value(density)
    expected = (n_up - n_down) / 2 * (up - down) / 2 if matrix == "spin_spin" else 0.0 * up
    error = result.error(matrix)
    allowed = np.sqrt((error**2).sum(axis=1)) + error.max()
    yield _judged(name, result.value(matrix).sum(axis=1) - expected, allowed, "sum over x'")


@_rule("energies")
def _energies(result: _Sites, _: str) -> Iterator[Identity]:
    terms = result.terms
    for name, text, energy, coupling, measured in (
        (
            "kinetic energy = sum h green",
            "from the Green function",
            "kinetic_energy",
            terms.one_body,
            "green",
        ),
        (
            "interaction energy = sum U d",
            "from the double occupancy",
            "interaction_energy",
            terms.interaction,
            "double_occupancy",
        ),
    ):
        if {energy, measured} <= set(result.dataset):
            difference = np.sum(coupling * result.value(measured)) - result.value(energy)
            allowed = np.sum(np.abs(coupling) * result.error(measured)) + result.error(energy)
            yield _judged(name, difference, allowed, text)


def sublattices(terms: Terms) -> FloatArray | None:
    """Return +1 and -1 for the two sublattices of the hopping, or None if not bipartite."""
    linked = terms.one_body != 0
    steps = shortest_path(linked, unweighted=True)
    first = np.isfinite(steps).argmax(axis=1)  # site of the piece that a site belongs to
    signs = 1.0 - 2.0 * (steps[first, np.arange(terms.n_sites)] % 2)
    return None if np.any(linked & (signs[:, None] == signs)) else np.asarray(signs)


def not_pseudospin_symmetric(terms: Terms, signs: FloatArray) -> str | None:
    """Return why the state is no pseudospin singlet (or SU(2) average), or None.

    ``signs`` are those of its :func:`sublattices`.
    """
    shifts = terms.chemical_potential - terms.interaction / 2
    if not isinstance(terms.state, Canonical):
        return "doped: mu_i differs from U_i / 2" if np.abs(shifts).max() > EQUAL else None
    reasons = {
        "doped: not half filled": sum(terms.state) != terms.n_sites,
        "mu_i - U_i / 2 is not the same on all sites": np.ptp(shifts) > EQUAL,
        "spin polarized": terms.state.n_up != terms.state.n_down,
        "a singlet is only guaranteed for U <= 0 and equal sublattices": (
            np.any(terms.interaction > 0) or signs.sum() != 0
        ),
    }
    return next((reason for reason, applies in reasons.items() if applies), None)


@_rule("pseudospin: pair = +-(density correlation)/2", "pair", "density_density")
def _pseudospin(result: _Sites, name: str, pair: str, density: str) -> Iterator[Identity]:
    signs = sublattices(result.terms)
    if signs is None:
        yield Identity(name, "not applicable", "the lattice is not bipartite")
        return
    why_not = not_pseudospin_symmetric(result.terms, signs)
    difference = result.value(pair) - np.outer(signs, signs) * result.value(density) / 2
    error = result.error(pair) + result.error(density) / 2
    if why_not is None:
        yield _judged(name, difference, error, "half filled")
    elif "doped" in why_not:
        broken = bool((np.abs(difference) / error).max() > 1)
        size = float(np.abs(difference).max())
        yield Identity(
            "pseudospin identity broken by doping",
            "holds" if broken else "undecided",
            f"{why_not}; pair and density correlations differ by up to {size:.3g}"
            + ("" if broken else ", which is within the errors"),
        )
    else:
        yield Identity(name, "not applicable", why_not)


@_rule("limits U = 0 and t_perp = 0")
def _closed_form(result: _Sites, name: str) -> Iterator[Identity]:
    if why_not := no_closed_form(result.terms):
        yield Identity(name, "not applicable", why_not)
        return
    free = not np.any(result.terms.interaction)
    limit = "limit U = 0 (Wick)" if free else "limit t_perp = 0 (closed form)"
    for observable, expected in averages(result.terms).items():
        if observable in result.dataset:
            difference = result.value(observable) - expected
            error = result.error(observable)
            yield _judged(f"{limit}: {observable}", difference, error, "closed form")
