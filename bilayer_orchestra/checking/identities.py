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

from bilayer_orchestra.checking.classes import natural_scale
from bilayer_orchestra.checking.closed_forms import averages, no_closed_form
from bilayer_orchestra.checking.consistency import inconsistencies
from bilayer_orchestra.checking.statistics import ROUNDING
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.model.load import stored_model
from bilayer_orchestra.observables import OBSERVABLES
from bilayer_orchestra.terms import Canonical, FloatArray, Terms

Outcome = Literal["holds", "violated", "undecided", "not applicable"]

#: Deviations beyond this many standard errors violate an identity.
SIGMAS = 6.0


@dataclass(frozen=True)
class Identity:
    """One statement about one result."""

    name: str
    outcome: Outcome
    detail: str


def check_identities(dataset: xr.Dataset) -> list[Identity]:
    """Test everything that can be tested in ``dataset``.

    Raises
    ------
    OrchestraError
        If its observables are not those of the sites that were solved.
    """
    model = stored_model(dataset.attrs["model"])
    if model.TRANSLATION:
        raise OrchestraError(
            f"identities are those of `model: bilayer`, this is `model: {model.model}`; run the "
            "bilayer that it maps to, or compare two engines with orchestra check"
        )
    terms = model.terms()
    result = _Sites(dataset, terms)
    found = [identity for rule in RULES for identity in rule(result)]
    broken = inconsistencies(dataset, terms)
    found.insert(
        0,
        Identity(
            "definitions",
            "violated" if broken else "holds",
            "; ".join(broken) or "symmetric matrices, diagonals, stated errors",
        ),
    )
    return found


class _Sites:
    """A result as matrices over sites in the order of its Terms, with errors."""

    def __init__(self, dataset: xr.Dataset, terms: Terms) -> None:
        self.dataset, self.terms = dataset, terms

    def has(self, *names: str) -> bool:
        return all(name in self.dataset for name in names)

    def value(self, name: str) -> FloatArray:
        return self._matrix(self.dataset[name], name)

    def error(self, name: str) -> FloatArray:
        """Systematic and SIGMAS statistical errors, and rounding."""
        bias = np.abs(self._matrix(self.dataset[f"{name}_bias"], name))
        bias = np.full_like(bias, np.nanmax(bias)) if np.isfinite(bias).any() else 0.0 * bias
        largest = max(natural_scale(name, self.terms), float(np.abs(self.value(name)).max()))
        total = np.nan_to_num(bias) + ROUNDING * largest
        if f"{name}_stderr" in self.dataset:
            total = total + SIGMAS * self._matrix(self.dataset[f"{name}_stderr"], name)
        return np.asarray(total)

    def _matrix(self, array: xr.DataArray, name: str) -> FloatArray:
        dims = OBSERVABLES[name].dims
        if not dims:
            return np.asarray(array.values, dtype=float)
        rows = {str(v): k for k, v in enumerate(array["layer"].values)}
        columns = {int(v): k for k, v in enumerate(array["x"].values)}
        layer = np.array([rows[s.layer] for s in self.terms.sites])
        x = np.array([columns[s.x] for s in self.terms.sites])
        spin = "spin" in dims
        if spin:
            array = array.sel(spin=["up", "down"])
        if "x_" not in dims:
            values = array.transpose(*(("spin",) if spin else ()), "layer", "x").values
            return np.asarray(values[..., layer, x], dtype=float)
        for dim in ("layer", "x"):  # labels of both sides in one order
            array = array.reindex({f"{dim}_": array[dim].values})
        values = array.transpose(*(("spin",) if spin else ()), *OBSERVABLES["pair"].dims).values
        return np.asarray(
            values[..., layer[:, None], x[:, None], layer[None, :], x[None, :]], dtype=float
        )


def _judged(name: str, difference: FloatArray, allowed: FloatArray, text: str) -> Identity:
    difference, allowed = np.atleast_1d(np.abs(difference)), np.atleast_1d(allowed)
    if not np.isfinite(difference).all():
        return Identity(name, "violated", f"{text}: not finite")
    worst = int(np.argmax(difference / allowed))
    largest, limit = (
        float(difference.flat[worst]),
        float(np.broadcast_to(allowed, difference.shape).flat[worst]),
    )
    outcome: Outcome = "violated" if largest > limit else "holds"
    return Identity(name, outcome, f"{text}: deviation {largest:.1e}, errors allow {limit:.1e}")


def _numbers(result: _Sites) -> Iterator[Identity]:
    state = result.terms.state
    name = "trace of green = N"
    if not isinstance(state, Canonical):
        yield Identity(name, "not applicable", "the particle number fluctuates")
    elif not result.has("green"):
        yield Identity(name, "not applicable", "no green in this result")
    else:
        trace = np.trace(result.value("green"), axis1=1, axis2=2)
        error = np.trace(result.error("green"), axis1=1, axis2=2)
        yield _judged(name, trace - np.array(state, dtype=float), error, f"N = {tuple(state)}")


def _occupations(result: _Sites) -> Iterator[Identity]:
    name = "natural occupations between 0 and 1"
    if not result.has("green"):
        yield Identity(name, "not applicable", "no green in this result")
        return
    for spin, matrix, error in zip(
        ("up", "down"), result.value("green"), result.error("green"), strict=True
    ):
        if not np.isfinite(matrix).all():
            yield Identity(f"{name} ({spin})", "violated", "not finite")
            continue
        levels = np.linalg.eigvalsh((matrix + matrix.T) / 2)
        outside = max(0.0, -float(levels[0]), float(levels[-1]) - 1.0)
        yield _judged(
            f"{name} ({spin})",
            np.array(outside),
            np.array(np.linalg.norm(error)),
            f"{levels[0]:.4g} to {levels[-1]:.4g}",
        )


def _positive(result: _Sites) -> Iterator[Identity]:
    for name in ("pair", "density_density"):
        title = f"{name} has no negative eigenvalue"
        if not result.has(name):
            yield Identity(title, "not applicable", f"no {name} in this result")
            continue
        matrix = result.value(name)
        if not np.isfinite(matrix).all():
            yield Identity(title, "violated", "not finite")
            continue
        lowest = float(np.linalg.eigvalsh((matrix + matrix.T) / 2)[0])
        yield _judged(
            title,
            np.array(max(0.0, -lowest)),
            np.array(np.linalg.norm(result.error(name))),
            f"lowest {lowest:.3g}",
        )


def _bounds(result: _Sites) -> Iterator[Identity]:
    name = "double occupancy within its bounds"
    if not result.has("density", "double_occupancy"):
        yield Identity(name, "not applicable", "density or double_occupancy is missing")
        return
    up, down = result.value("density")
    doubly = result.value("double_occupancy")
    outside = np.maximum(doubly - np.minimum(up, down), np.maximum(0.0, up + down - 1.0) - doubly)
    error = result.error("double_occupancy") + result.error("density").sum(axis=0)
    yield _judged(name, np.maximum(outside, 0.0), error, "n_up + n_dn - 1 <= d <= n_up, n_dn")


def _fluctuations(result: _Sites) -> Iterator[Identity]:
    canonical = isinstance(result.terms.state, Canonical)
    for name, total in (("density_density", 0.0), ("spin_spin", None)):
        title = f"rows of {name} sum to their fixed number"
        if not canonical:
            yield Identity(title, "not applicable", "the particle number fluctuates")
        elif not result.has(name, "density"):
            yield Identity(title, "not applicable", f"no {name} in this result")
        else:
            state = result.terms.state
            assert isinstance(state, Canonical)
            up, down = result.value("density")
            spin = (state.n_up - state.n_down) / 2 * (up - down) / 2
            expected = spin if total is None else np.zeros_like(up)
            error = np.sqrt((result.error(name) ** 2).sum(axis=1)) + result.error(name).max()
            yield _judged(title, result.value(name).sum(axis=1) - expected, error, "sum over x'")


def _energies(result: _Sites) -> Iterator[Identity]:
    terms = result.terms
    if result.has("green", "kinetic_energy"):
        kinetic = np.sum(terms.one_body * result.value("green").sum(axis=0))
        error = np.sum(np.abs(terms.one_body) * result.error("green").sum(axis=0))
        yield _judged(
            "kinetic energy = sum h green",
            kinetic - result.value("kinetic_energy"),
            error + result.error("kinetic_energy"),
            "from the Green function",
        )
    if result.has("double_occupancy", "interaction_energy"):
        interaction = np.sum(terms.interaction * result.value("double_occupancy"))
        error = np.sum(np.abs(terms.interaction) * result.error("double_occupancy"))
        yield _judged(
            "interaction energy = sum U d",
            interaction - result.value("interaction_energy"),
            error + result.error("interaction_energy"),
            "from the double occupancy",
        )


def sublattices(terms: Terms) -> FloatArray | None:
    """Return +1 and -1 for the two sublattices of the hopping, or None if not bipartite."""
    hopping = terms.one_body - np.diag(np.diagonal(terms.one_body))
    if np.any(np.diagonal(terms.one_body)):
        return None
    signs = np.zeros(terms.n_sites)
    for start in range(terms.n_sites):
        if signs[start]:
            continue
        signs[start] = 1.0
        stack = [start]
        while stack:
            site = stack.pop()
            for other in np.flatnonzero(hopping[site]):
                if signs[other] == 0:
                    signs[other] = -signs[site]
                    stack.append(int(other))
                elif signs[other] == signs[site]:
                    return None
    return signs


def not_pseudospin_symmetric(terms: Terms) -> str | None:  # noqa: PLR0911  (one per reason)
    """Return why the state is no pseudospin singlet (or SU(2) average), or None."""
    signs = sublattices(terms)
    if signs is None:
        return "the lattice is not bipartite"
    shifts = terms.chemical_potential - terms.interaction / 2
    if isinstance(terms.state, Canonical):
        if sum(terms.state) != terms.n_sites:
            return "doped: not half filled"
        if np.ptp(shifts) > 1e-12:
            return "mu_i - U_i / 2 is not the same on all sites"
        if terms.state.n_up != terms.state.n_down:
            return "spin polarized"
        if np.any(terms.interaction > 0) or signs.sum() != 0:
            return "a singlet is only guaranteed for U <= 0 and equal sublattices"
        return None
    if np.abs(shifts).max() > 1e-12:
        return "doped: mu_i differs from U_i / 2"
    return None


def _pseudospin(result: _Sites) -> Iterator[Identity]:
    name = "pseudospin: pair = +-(density correlation)/2"
    if not result.has("pair", "density_density"):
        yield Identity(name, "not applicable", "pair or density_density is missing")
        return
    signs = sublattices(result.terms)
    why_not = not_pseudospin_symmetric(result.terms)
    if signs is None:
        yield Identity(name, "not applicable", str(why_not))
        return
    difference = result.value("pair") - np.outer(signs, signs) * result.value("density_density") / 2
    error = result.error("pair") + result.error("density_density") / 2
    if why_not is None:
        yield _judged(name, difference, error, "half filled")
    elif "doped" in why_not:
        size, limit = float(np.abs(difference).max()), float((np.abs(difference) / error).max())
        broken = limit > 1
        yield Identity(
            "pseudospin identity broken by doping",
            "holds" if broken else "undecided",
            f"{why_not}; pair and density correlations differ by up to {size:.3g}"
            + ("" if broken else ", which is within the errors"),
        )
    else:
        yield Identity(name, "not applicable", why_not)


def _closed_form(result: _Sites) -> Iterator[Identity]:
    why_not = no_closed_form(result.terms)
    free = not np.any(result.terms.interaction)
    name = "limit U = 0 (Wick)" if free else "limit t_perp = 0 (closed form)"
    if why_not:
        yield Identity("limits U = 0 and t_perp = 0", "not applicable", why_not)
        return
    expected = averages(result.terms)
    for observable, value in expected.items():
        if result.has(observable):
            yield _judged(
                f"{name}: {observable}",
                result.value(observable) - value,
                result.error(observable),
                "closed form",
            )


RULES: tuple[Callable[[_Sites], Iterator[Identity]], ...] = (
    _numbers,
    _occupations,
    _positive,
    _bounds,
    _fluctuations,
    _energies,
    _pseudospin,
    _closed_form,
)
