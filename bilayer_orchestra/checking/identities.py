"""Exact statements that one result alone must fulfil: an engine checks itself.

What holds by definition, whatever the model, is read from the labelled arrays: it holds for each
sample of a Monte Carlo run and for every state of a DMRG run, so a violation is no matter of
statistics but a broken file. Every other identity says whether it applies to the model at all, and
if so whether it holds within the stated errors.

Sources: sum rules of the definitions; pseudospin SU(2) at half filling (C. N. Yang and S. C. Zhang,
Mod. Phys. Lett. B 4, 759 (1990)); closed forms of free and of isolated sites.
"""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from scipy.sparse.csgraph import shortest_path

from bilayer_orchestra.checking.closed_forms import averages, no_closed_form
from bilayer_orchestra.checking.elements import natural_scale
from bilayer_orchestra.checking.statistics import RESOLUTION, ROUNDING
from bilayer_orchestra.dataset.reading import by_site, mirrored, need_chains, on_site
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.model.spec import stored_model
from bilayer_orchestra.observables import OBSERVABLES
from bilayer_orchestra.terms import Canonical, FloatArray, Terms

Standing = Literal["holds", "violated", "undecided", "not applicable"]

#: Deviations beyond this many standard errors violate an identity: extrapolation treats every
#: element by itself.
SIGMAS = 6.0
#: Stated errors are the norm of the stated deviations; this much may be rounding or convention.
SAME_ERROR = 0.1
#: Chemical potentials closer than this are equal.
EQUAL = 1e-12
#: Observable -> what its elements with equal sites are, in words, the observable whose errors this
#: has, and how it follows from the densities per spin and summed, and from double occupancy.
ON_SITE: dict[str, tuple[str, str, Callable[..., xr.DataArray]]] = {
    "pair": ("double_occupancy", "double_occupancy", lambda per_spin, n, d: d),
    "green": ("density", "density", lambda per_spin, n, d: per_spin),
    "density_density": ("n + 2 d - n^2", "density", lambda per_spin, n, d: n + 2 * d - n**2),
    "spin_spin": ("(n - 2 d) / 4", "density", lambda per_spin, n, d: (n - 2 * d) / 4),
}
#: An observable, and an array that is made of it.
Part = tuple[str, xr.DataArray]


def inconsistencies(dataset: xr.Dataset, terms: Terms | None) -> list[str]:
    """Return one sentence per definition that ``dataset`` violates; empty if it is sound.

    Parameters
    ----------
    dataset : Dataset
        A result.
    terms : Terms or None
        What was solved, for the scale on which values vanish; see :func:`natural_scale`.
    """
    bad = {name: ~np.isfinite(dataset[name].values) for name in OBSERVABLES if name in dataset}
    said = [f"{k} has {b.sum()} elements that are not finite" for k, b in bad.items() if b.any()]
    said += [text for name in bad for text in _errors(dataset, name)]
    for text, difference, parts in _relations(dataset):
        allowed = sum((_allowed(dataset, terms, *part) for part in parts), xr.DataArray(0.0))
        size, allowed = xr.align(abs(difference), allowed, join="exact")
        excess = size - allowed.transpose(*size.dims)
        if (excess > 0).any():  # NaN has been said already
            place = excess.fillna(-np.inf).argmax(...) if excess.ndim else {}
            largest = float(size.isel(place) if place else size)
            where = " ".join(f"{dim}={size[dim].values[int(k)]}" for dim, k in place.items())
            said.append(f"{text} (by {largest:.2g}{' at ' + where if where else ''})")
    return said


def _errors(dataset: xr.Dataset, name: str) -> Iterator[str]:
    """Say what is wrong with the stated errors of an observable."""
    if f"{name}_stderr" not in dataset:
        return
    stderr = dataset[f"{name}_stderr"]
    if not (stderr.values >= 0).all():
        yield f"{name}_stderr is negative or NaN somewhere"
    elif f"{name}_deviation" in dataset:
        deviations = dataset[f"{name}_deviation"].astype(float)
        norm = float(np.sqrt((deviations**2).sum("block")).sum())
        ratio = float(stderr.sum()) / max(norm, 1e-300)
        if norm > 0 and not abs(ratio - 1.0) <= SAME_ERROR:
            yield f"{name}_stderr is {ratio:.3g} times what {name}_deviation says"


def _relations(dataset: xr.Dataset) -> Iterator[tuple[str, xr.DataArray, list[Part]]]:
    """Yield what is violated if a difference does not vanish, the difference, and its parts."""
    for name, observable in OBSERVABLES.items():
        if name in dataset and observable.two_point:
            values = dataset[name]
            yield f"{name} is not symmetric", values - mirrored(values), [(name, values)]
    per_spin = dataset.get("density", xr.DataArray([np.nan], dims="spin"))
    occupied = per_spin, per_spin.sum("spin"), dataset.get("double_occupancy")
    for name, (words, source, expected) in ON_SITE.items():
        if {name, *OBSERVABLES[name].fixed_on_site} <= set(dataset):
            diagonal, follows = on_site(dataset[name]), expected(*occupied)
            parts = [(name, diagonal), (source, follows)]
            yield f"the diagonal of {name} is not {words}", diagonal - follows, parts
    if {"energy", "kinetic_energy", "interaction_energy"} <= set(dataset):
        whole, total = dataset["energy"], dataset["kinetic_energy"] + dataset["interaction_energy"]
        parts = [("kinetic_energy", total), ("energy", whole)]
        yield "energy is not kinetic plus interaction energy", total - whole, parts


def _allowed(
    dataset: xr.Dataset, terms: Terms | None, name: str, values: xr.DataArray
) -> xr.DataArray:
    """Return the violation that the stated errors of an observable explain, element by element.

    Bias counts: elements are extrapolated one by one, so that sums and differences of them agree
    within it and not to rounding. So do statistical errors: connected functions and extrapolated
    ones have their noise removed observable by observable.

    Parameters
    ----------
    dataset, terms
        As in :func:`inconsistencies`.
    name : str
        The observable.
    values : DataArray
        What is made of it: of single sites, perhaps, or summed over spins.
    """
    largest = float(np.abs(values.values).max(initial=0.0))
    rounding = ROUNDING * largest + RESOLUTION * natural_scale(name, terms)
    bias = np.abs(dataset[f"{name}_bias"].values)
    allowed = xr.zeros_like(dataset[name]) + rounding
    allowed = allowed + np.max(bias, initial=0.0, where=np.isfinite(bias))
    if f"{name}_stderr" in dataset:
        allowed = allowed + SIGMAS * dataset[f"{name}_stderr"]
    if "x_" in allowed.dims and "x_" not in values.dims:
        allowed = on_site(allowed)
    if "spin" in allowed.dims and "spin" not in values.dims:
        allowed = allowed.sum("spin")
    return allowed


class Identity(NamedTuple):
    """One statement about one result."""

    name: str
    outcome: Standing
    detail: str


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
    found: list[Identity] = []
    for rule in _RULES:
        missing = [name for name in rule.needs if name not in dataset]
        if rule.canonical and not isinstance(result.terms.state, Canonical):
            found.append(Identity(rule.name, "not applicable", "the particle number fluctuates"))
        elif missing:
            why = f"no {' and no '.join(missing)} in this result"
            found.append(Identity(rule.name, "not applicable", why))
        else:
            found += rule.test(result, rule.name, *rule.needs)
    return found


class _Sites(NamedTuple):
    """A result as matrices over sites in the order of its Terms, with errors."""

    dataset: xr.Dataset
    terms: Terms

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


class _Rule(NamedTuple):
    """An identity, the observables that it is about, its test, and whether N has to be fixed."""

    name: str
    needs: tuple[str, ...]
    test: Callable[..., Iterator[Identity]]
    canonical: bool = False


def _judged(name: str, difference: ArrayLike, allowed: ArrayLike, text: str) -> Identity:
    """Return whether a difference, of the shape of what is ``allowed``, is within the errors."""
    sizes, limits = np.abs(np.ravel(difference)), np.ravel(allowed)
    if not np.isfinite(sizes).all():
        return Identity(name, "violated", f"{text}: not finite")
    worst = int(np.argmax(sizes / limits))
    outcome: Standing = "violated" if sizes[worst] > limits[worst] else "holds"
    detail = f"deviation {sizes[worst]:.1e}, errors allow {limits[worst]:.1e}"
    return Identity(name, outcome, f"{text}: {detail}")


def _definitions(result: _Sites, name: str) -> Iterator[Identity]:
    broken = inconsistencies(result.dataset, result.terms)
    sound = "symmetric matrices, diagonals, stated errors"
    yield Identity(name, "violated" if broken else "holds", "; ".join(broken) or sound)


def _numbers(result: _Sites, name: str, green: str) -> Iterator[Identity]:
    state, trace = tuple(result.terms.state), np.trace(result.value(green), axis1=1, axis2=2)
    error = np.trace(result.error(green), axis1=1, axis2=2)
    yield _judged(name, trace - np.array(state), error, f"N = {state}")


def _spectrum(result: _Sites, name: str, observable: str) -> Iterator[Identity]:
    """Eigenvalues of <c+ c> lie between 0 and 1, those of other products are not negative."""
    values, errors = result.value(observable), result.error(observable)
    highest, spins = (1.0, (" (up)", " (down)")) if observable == "green" else (np.inf, ("",))
    matrices = values.reshape(len(spins), *values.shape[-2:])
    for spin, matrix, error in zip(spins, matrices, errors.reshape(matrices.shape), strict=True):
        if not np.isfinite(matrix).all():
            yield Identity(f"{name}{spin}", "violated", "not finite")
            continue
        levels = np.linalg.eigvalsh((matrix + matrix.T) / 2)
        outside = np.maximum(np.maximum(-levels, levels - highest).max(), 0.0)
        text = f"{levels[0]:.4g} to {levels[-1]:.4g}"
        yield _judged(f"{name}{spin}", outside, np.linalg.norm(error), text)


def _bounds(result: _Sites, name: str, density: str, double: str) -> Iterator[Identity]:
    (up, down), doubly = result.value(density), result.value(double)
    outside = np.maximum(doubly - np.minimum(up, down), np.maximum(0.0, up + down - 1.0) - doubly)
    error = result.error(double) + result.error(density).sum(axis=0)
    yield _judged(name, np.maximum(outside, 0.0), error, "n_up + n_dn - 1 <= d <= n_up, n_dn")


def _fluctuations(result: _Sites, name: str, matrix: str, density: str) -> Iterator[Identity]:
    (n_up, n_down), (up, down) = np.array(result.terms.state), result.value(density)
    expected = (n_up - n_down) / 2 * (up - down) / 2 if matrix == "spin_spin" else 0.0 * up
    error = result.error(matrix)
    allowed = np.sqrt((error**2).sum(axis=1)) + error.max()
    yield _judged(name, result.value(matrix).sum(axis=1) - expected, allowed, "sum over x'")


def _energy(result: _Sites, name: str, energy: str, measured: str) -> Iterator[Identity]:
    terms = result.terms
    coupling = terms.one_body if measured == "green" else terms.interaction
    difference = np.sum(coupling * result.value(measured)) - result.value(energy)
    allowed = np.sum(np.abs(coupling) * result.error(measured)) + result.error(energy)
    yield _judged(name, difference, allowed, f"from {measured}")


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
        detail = f"pair and density correlations differ by up to {np.abs(difference).max():.3g}"
        yield Identity(
            "pseudospin identity broken by doping",
            "holds" if broken else "undecided",
            f"{why_not}; {detail}" + ("" if broken else ", which is within the errors"),
        )
    else:
        yield Identity(name, "not applicable", why_not)


def _closed_form(result: _Sites, name: str) -> Iterator[Identity]:
    if why_not := no_closed_form(result.terms):
        yield Identity(name, "not applicable", why_not)
        return
    free = not np.any(result.terms.interaction)
    limit = "limit U = 0 (Wick)" if free else "limit of isolated sites (closed form)"
    for observable, expected in averages(result.terms).items():
        if observable in result.dataset:
            difference = result.value(observable) - expected
            error = result.error(observable)
            yield _judged(f"{limit}: {observable}", difference, error, "closed form")


#: In the order in which they are reported.
_RULES = (
    _Rule("definitions", (), _definitions),
    _Rule("trace of green = N", ("green",), _numbers, canonical=True),
    _Rule("natural occupations between 0 and 1", ("green",), _spectrum),
    _Rule("pair has no negative eigenvalue", ("pair",), _spectrum),
    _Rule("density_density has no negative eigenvalue", ("density_density",), _spectrum),
    _Rule("double occupancy within its bounds", ("density", "double_occupancy"), _bounds),
    *(
        _Rule(f"rows of {name} sum to their fixed number", (name, "density"), _fluctuations, True)
        for name in ("density_density", "spin_spin")
    ),
    _Rule("kinetic energy = sum h green", ("kinetic_energy", "green"), _energy),
    _Rule("interaction energy = sum U d", ("interaction_energy", "double_occupancy"), _energy),
    _Rule("pseudospin: pair = +-(density correlation)/2", ("pair", "density_density"), _pseudospin),
    _Rule("limits of free and of isolated sites", (), _closed_form),
)
