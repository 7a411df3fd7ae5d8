"""Two results side by side: what can be compared, in which classes, and how each class came out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bilayer_orchestra.analysis.common import at_least_common
from bilayer_orchestra.checking.classes import (
    ElementClass,
    classes_of,
    natural_scale,
    solved_model,
)
from bilayer_orchestra.checking.elements import Elements, elements_of, vector
from bilayer_orchestra.checking.statistics import ZERO, Test, compare, spread
from bilayer_orchestra.dataset.reading import NOT_STATED, systematics_of
from bilayer_orchestra.observables import EXTRAS, OBSERVABLES
from bilayer_orchestra.terms import FloatArray

Word = Literal["agree", "disagree", "undecided"]


@dataclass(frozen=True)
class Pair:
    """Two results that shall be equal up to what is named.

    Parameters
    ----------
    first, second : Dataset
        The results.
    labels : tuple of str
        What the results are called in the report.
    kind : str
        ``"same state"``, or ``"limit"``: a thermal state against the ground state it goes over to.
    extra : dict
        Systematic term -> observable -> its size; on top of those that the results state.
    """

    first: xr.Dataset
    second: xr.Dataset
    labels: tuple[str, str]
    kind: Literal["same state", "limit"] = "same state"
    extra: dict[str, dict[str, xr.DataArray]] = field(default_factory=dict)

    def sides(self) -> Iterator[tuple[str, xr.Dataset]]:
        """Yield both results with their labels."""
        yield from zip(self.labels, (self.first, self.second), strict=True)


@dataclass
class Compared:
    """One observable of two results: its elements, what may be systematic, and its tests.

    Parameters
    ----------
    name : str
        Of the observable.
    sides : tuple of Elements
        Those of both results.
    bounds : list of arrays, shape (p,)
        What the size of every element can be at most by each result, errors included.
    systematics : dict
        Named systematic error -> its size, shape (p,).
    classes : list of ElementClass
        In the order of their distance.
    scale : float
        Natural size of the observable.
    tests : list of Test
        One per class, once they are made.
    p_value : float
        Their smallest, once it is corrected for the number of tests.
    """

    name: str
    sides: tuple[Elements, Elements]
    bounds: list[FloatArray]
    systematics: dict[str, FloatArray]
    classes: list[ElementClass]
    scale: float
    tests: list[Test] = field(default_factory=list)
    p_value: float = 1.0

    def run(self, level: float) -> None:
        """Test every class at ``level``."""
        one, other = self.sides
        sizes = (np.nan_to_num(size) for size in self.systematics.values())
        allowance = sum(sizes, np.zeros(len(one.values)))
        for part in self.classes:
            chosen = part.members
            self.tests.append(
                compare(
                    one.of(chosen),
                    other.of(chosen),
                    allowance[chosen],
                    level,
                    self.scale,
                    self._size(chosen),
                )
            )

    def _size(self, chosen: NDArray[np.intp]) -> float | None:
        """Return what a deviation is a part of where one of the two knows that elements vanish.

        It is no part of their values then, but of the largest value of the observable, as the one
        that knows has it; None where neither does.
        """
        zero, sizes = ZERO * self.scale, []
        for side, bound in zip(self.sides, self.bounds, strict=True):
            if bound[chosen].max(initial=0.0) <= zero:
                largest = float(np.abs(side.values).max())
                sizes.append(largest if largest > zero else self.scale)
        return max(sizes, default=None)

    def whole(self) -> Test:
        """Return the test of all elements: that of the most different class."""
        order = np.argsort(np.concatenate([part.members for part in self.classes]))
        pulls, difference, stderr, allowance = (
            np.concatenate([getattr(test, column) for test in self.tests])[order]
            for column in ("pulls", "difference", "stderr", "allowance")
        )
        width, width_p = spread(*self.sides, self.scale)
        return min(self.tests, key=lambda test: (test.p_value, -test.modes))._replace(
            pulls=pulls,
            difference=difference,
            stderr=stderr,
            allowance=allowance,
            worst=int(np.argmax(np.abs(pulls))),
            width=width,
            width_p=width_p,
        )


class Comparison:
    """One pair: which observables can be compared, and why the others cannot."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        model = solved_model(pair.first)
        self.terms = model.terms() if model else None
        self.ring = model is not None and model.periodic
        self.compared: dict[str, Compared] = {}
        self.untested: list[tuple[str, Word, str]] = []
        for name in OBSERVABLES:
            present = [label for label, dataset in pair.sides() if name in dataset]
            if len(present) == 1 and name not in EXTRAS:
                self.untested.append((name, "undecided", f"only {present[0]} has it"))
            if len(present) < 2:
                continue
            sides = elements_of(pair.first, name), elements_of(pair.second, name)
            obstacle = _obstacle(*sides)
            if obstacle is None:
                self.compared[name] = self._prepared(name, sides)
            else:
                self.untested.append((name, *obstacle))

    def _prepared(self, name: str, sides: tuple[Elements, Elements]) -> Compared:
        bounds, terms = [], dict[str, FloatArray]()
        for (label, dataset), side in zip(self.pair.sides(), sides, strict=True):
            stated = _systematics(dataset, side)
            terms |= {f"{what} ({label})": size for what, size in stated.items()}
            bounds.append(_bound(side, stated))
        for what, sizes in self.pair.extra.items():
            if name in sizes:
                terms[what] = vector(sizes[name], name)
        return Compared(
            name,
            sides,
            bounds,
            terms,
            classes_of(self.pair.first, name, self.ring),
            natural_scale(name, self.terms),
        )


def _obstacle(one: Elements, other: Elements) -> tuple[Word, str] | None:
    """Return what must be said of elements that cannot be tested, or None."""
    if one.labels != other.labels:
        return "disagree", "the two do not have the same elements"
    bad = np.stack([~np.isfinite(side.values) for side in (one, other)])
    if bad.any():
        place = one.labels[int(np.argmax(bad.any(axis=0)))]
        both = bool((bad[0] == bad[1]).all())
        return "undecided" if both else "disagree", f"not a finite number at {place}"
    if not all(np.isfinite(side.deviations).all() for side in (one, other)):
        return "undecided", "the error bars are not finite"
    return None


def _bound(elements: Elements, systematics: dict[str, FloatArray]) -> FloatArray:
    """Return what the size of every element can be at most, errors included; inf if not known."""
    bound = np.abs(elements.values) + 3 * elements.stderr
    return np.nan_to_num(sum(systematics.values(), bound), nan=np.inf)


def _systematics(dataset: xr.Dataset, elements: Elements) -> dict[str, FloatArray]:
    """Return name -> size (p,) of the systematic errors; NaN where one is not estimated.

    Judged by what the dataset states, whoever computed it: an error that is named and not a number,
    or no statement at all, counts as not estimated, never as zero.
    """
    named = systematics_of(dataset)
    if named is None:
        return {NOT_STATED: np.full_like(elements.bias, np.nan)}
    return {" and ".join(named): at_least_common(elements.bias, 1.0)} if named else {}
