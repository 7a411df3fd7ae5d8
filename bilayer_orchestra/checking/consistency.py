"""What every result must fulfil by its definitions, whatever the model: a broken file shows here.

These relations hold for each sample of a Monte Carlo run and for every state of a DMRG run, so a
violation is no matter of statistics. They are read from the labelled arrays alone.
"""

from collections.abc import Callable, Iterator

import numpy as np
import xarray as xr

from bilayer_orchestra.checking.elements import natural_scale
from bilayer_orchestra.checking.statistics import RESOLUTION, ROUNDING
from bilayer_orchestra.dataset.reading import mirrored, on_site
from bilayer_orchestra.observables import OBSERVABLES
from bilayer_orchestra.terms import Terms

#: Allowed violation in stated errors: extrapolation treats every element by itself.
SIGMAS = 6.0
#: Stated errors are the norm of the stated deviations; this much may be rounding or convention.
SAME_ERROR = 0.1

#: Observable -> what its elements with equal sites are, in words, the observable whose errors this
#: has, and how it follows.
ON_SITE: dict[str, tuple[str, str, Callable[[xr.Dataset], xr.DataArray]]] = {
    "pair": ("double_occupancy", "double_occupancy", lambda d: d["double_occupancy"]),
    "green": ("density", "density", lambda d: d["density"]),
    "density_density": (
        "n + 2 d - n^2",
        "density",
        lambda d: _density(d) + 2 * d["double_occupancy"] - _density(d) ** 2,
    ),
    "spin_spin": (
        "(n - 2 d) / 4",
        "density",
        lambda d: (_density(d) - 2 * d["double_occupancy"]) / 4,
    ),
}


def _density(dataset: xr.Dataset) -> xr.DataArray:
    return dataset["density"].sum("spin")


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


#: An observable, and an array that is made of it.
Part = tuple[str, xr.DataArray]


def _relations(dataset: xr.Dataset) -> Iterator[tuple[str, xr.DataArray, list[Part]]]:
    """Yield what is violated if a difference does not vanish, the difference, and its parts."""
    for name, observable in OBSERVABLES.items():
        if name in dataset and observable.two_point:
            values = dataset[name]
            yield f"{name} is not symmetric", values - mirrored(values), [(name, values)]
    for name, (words, source, expected) in ON_SITE.items():
        if {name, *OBSERVABLES[name].fixed_on_site} <= set(dataset):
            diagonal, follows = on_site(dataset[name]), expected(dataset)
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
