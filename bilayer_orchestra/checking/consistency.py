"""What every result must fulfil by its definitions, whatever the model: a broken file shows here.

These relations hold for each sample of a Monte Carlo run and for every state of a DMRG run, so a
violation is no matter of statistics. They are read from the labelled arrays alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from bilayer_orchestra.checking.classes import natural_scale
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
    scaled = _Scaled(dataset, terms)
    return [*_finite(dataset), *_errors(dataset), *_symmetric(scaled), *_definitions(scaled)]


@dataclass(frozen=True)
class _Scaled:
    """A result and the scale of its observables."""

    dataset: xr.Dataset
    terms: Terms | None

    def allowed(self, name: str, values: xr.DataArray) -> xr.DataArray:
        """Violation that the stated errors of an observable explain, element by element.

        Bias counts: elements are extrapolated one by one, so that sums and differences of them
        agree within it and not to rounding. So do statistical errors: connected functions and
        extrapolated ones have their noise removed observable by observable.
        """
        dataset = self.dataset
        largest = float(np.abs(values.values).max(initial=0.0))
        rounding = ROUNDING * largest + RESOLUTION * natural_scale(name, self.terms)
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

    def differ(
        self, text: str, one: tuple[str, xr.DataArray], other: tuple[str, xr.DataArray]
    ) -> Iterator[str]:
        """Yield ``text`` and the worst place if two arrays differ by more than errors allow.

        Parameters
        ----------
        text : str
            What is violated then.
        one, other : tuple of str and DataArray
            The observable that an array is made of, and the array.
        """
        allowed = self.allowed(*one) + self.allowed(*other)
        yield from _violation(text, abs(one[1] - other[1]), allowed)


def _finite(dataset: xr.Dataset) -> Iterator[str]:
    for name in OBSERVABLES:
        if name in dataset:
            bad = int((~np.isfinite(dataset[name].values)).sum())
            if bad:
                yield f"{name} has {bad} elements that are not finite"


def _errors(dataset: xr.Dataset) -> Iterator[str]:
    for name in OBSERVABLES:
        if f"{name}_stderr" not in dataset:
            continue
        stderr = dataset[f"{name}_stderr"]
        if not (stderr.values >= 0).all():
            yield f"{name}_stderr is negative or NaN somewhere"
        elif f"{name}_deviation" in dataset:
            deviations = dataset[f"{name}_deviation"].astype(float)
            norm = float(np.sqrt((deviations**2).sum("block")).sum())
            ratio = float(stderr.sum()) / max(norm, 1e-300)
            if norm > 0 and not abs(ratio - 1.0) <= SAME_ERROR:
                yield f"{name}_stderr is {ratio:.3g} times what {name}_deviation says"


def _symmetric(result: _Scaled) -> Iterator[str]:
    for name, observable in OBSERVABLES.items():
        if name in result.dataset and observable.two_point:
            values = result.dataset[name]
            difference = abs(values - mirrored(values))
            allowed = result.allowed(name, values)
            yield from _violation(f"{name} is not symmetric", difference, allowed)


def _definitions(result: _Scaled) -> Iterator[str]:
    """Elements that two observables share."""
    dataset = result.dataset
    for name, (words, source, expected) in ON_SITE.items():
        if {name, *OBSERVABLES[name].fixed_on_site} <= set(dataset):
            follows = expected(dataset)
            yield from result.differ(
                f"the diagonal of {name} is not {words}",
                (name, on_site(dataset[name])),
                (source, follows),
            )
    parts = ("kinetic_energy", "interaction_energy")
    if {*parts, "energy"} <= set(dataset):
        yield from result.differ(
            "energy is not kinetic plus interaction energy",
            (parts[0], dataset[parts[0]] + dataset[parts[1]]),
            ("energy", dataset["energy"]),
        )


def _violation(text: str, difference: xr.DataArray, allowed: xr.DataArray) -> Iterator[str]:
    difference, allowed = xr.align(difference, allowed, join="exact")
    excess = difference - allowed.transpose(*difference.dims)
    if not (excess > 0).any():  # NaN has been said already
        return
    place = excess.fillna(-np.inf).argmax(...) if excess.ndim else {}
    largest = float(difference.isel(place) if place else difference)
    where = " ".join(f"{dim}={difference[dim].values[int(k)]}" for dim, k in place.items())
    yield f"{text} (by {largest:.2g}{' at ' + where if where else ''})"
