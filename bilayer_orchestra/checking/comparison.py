"""Two results side by side: what can be compared, in which classes, and how each class came out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bilayer_orchestra.checking.classes import (
    ElementClass,
    classes_of,
    natural_scale,
    solved_model,
)
from bilayer_orchestra.checking.elements import Elements, elements_of, vector
from bilayer_orchestra.checking.statistics import ZERO, Test, compare, spread
from bilayer_orchestra.checking.systematics import systematic_terms
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
    doubt : str
        A reason why no difference between these two would mean anything, or "".
    """

    first: xr.Dataset
    second: xr.Dataset
    labels: tuple[str, str]
    kind: Literal["same state", "limit"] = "same state"
    extra: dict[str, dict[str, xr.DataArray]] = field(default_factory=dict)
    doubt: str = ""


class Comparison:
    """One pair: which observables can be compared, their elements, systematic terms and tests."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        model = solved_model(pair.first)
        self.terms = model.terms() if model else None
        self.ring = model is not None and model.periodic
        self.untested: list[tuple[str, Word, str]] = []
        self.elements: dict[str, tuple[Elements, Elements]] = {}
        self.bounds: dict[str, tuple[FloatArray, FloatArray]] = {}
        self.systematics: dict[str, dict[str, FloatArray]] = {}
        self.classes: dict[str, list[ElementClass]] = {}
        self.tests: dict[tuple[str, str], Test] = {}
        for name in OBSERVABLES:
            self._prepare(name)

    def _prepare(self, name: str) -> None:
        a, b = self.pair.first, self.pair.second
        if name not in a or name not in b:
            if (name in a or name in b) and name not in EXTRAS:
                only = self.pair.labels[0 if name in a else 1]
                self.untested.append((name, "undecided", f"only {only} has it"))
            return
        one, other = elements_of(a, name), elements_of(b, name)
        if one.labels != other.labels:
            self.untested.append((name, "disagree", "the two do not have the same elements"))
            return
        bad = [~np.isfinite(e.values) for e in (one, other)]
        if (bad[0] | bad[1]).any():
            both = bool((bad[0] & bad[1])[bad[0] | bad[1]].all())
            place = one.labels[int(np.argmax(bad[0] | bad[1]))]
            word: Word = "undecided" if both else "disagree"
            self.untested.append((name, word, f"not a finite number at {place}"))
            return
        if not all(np.isfinite(e.deviations).all() for e in (one, other)):
            self.untested.append((name, "undecided", "the error bars are not finite"))
            return
        own = [systematic_terms(dataset, elements) for dataset, elements in ((a, one), (b, other))]
        terms = {
            f"{what} ({label})": size
            for stated, label in zip(own, self.pair.labels, strict=True)
            for what, size in stated.items()
        }
        for what, sizes in self.pair.extra.items():
            if name in sizes:
                terms[what] = vector(sizes[name], name)
        self.elements[name] = (one, other)
        self.bounds[name] = (_bound(one, own[0]), _bound(other, own[1]))
        self.systematics[name] = terms
        self.classes[name] = classes_of(a, name, self.ring)

    def run(self, level: float) -> None:
        """Test every class of every observable at ``level``."""
        for name, (one, other) in self.elements.items():
            terms = self.systematics[name].values()
            allowance = sum((np.nan_to_num(size) for size in terms), np.zeros(len(one.values)))
            scale = natural_scale(name, self.terms)
            for part in self.classes[name]:
                chosen = part.members
                size = self._size(name, chosen, ZERO * scale, scale)
                self.tests[name, part.name] = compare(
                    one.of(chosen), other.of(chosen), allowance[chosen], level, scale, size
                )

    def _size(self, name: str, chosen: NDArray[np.intp], zero: float, scale: float) -> float | None:
        """Return what a deviation is a part of where one of the two knows that elements vanish.

        It is no part of their values then, but of the largest value of the observable, as the one
        that knows has it; None where neither does.
        """
        sizes = []
        for each, bound in zip(self.elements[name], self.bounds[name], strict=True):
            if bound[chosen].max(initial=0.0) <= zero:
                largest = float(np.abs(each.values).max())
                sizes.append(largest if largest > zero else scale)
        return max(sizes, default=None)

    def whole(self, name: str) -> Test:
        """Return the test of all elements of ``name``: that of the most different class."""
        one, other = self.elements[name]
        parts = self.classes[name]
        tests = [self.tests[name, part.name] for part in parts]
        decides = min(tests, key=lambda test: (test.p_value, -test.modes))

        def joined(column: str) -> FloatArray:
            values = np.empty(len(one.values))
            for part, test in zip(parts, tests, strict=True):
                values[part.members] = getattr(test, column)
            return values

        pulls = joined("pulls")
        width, width_p, _ = spread(one, other, natural_scale(name, self.terms))
        return decides._replace(
            pulls=pulls,
            difference=joined("difference"),
            stderr=joined("stderr"),
            allowance=joined("allowance"),
            worst=int(np.argmax(np.abs(pulls))),
            width=width,
            width_p=width_p,
        )


def _bound(elements: Elements, systematics: dict[str, FloatArray]) -> FloatArray:
    """Return what the size of every element can be at most, errors included; inf if not known."""
    stderr = np.sqrt(np.sum(elements.deviations**2, axis=0)) if len(elements.deviations) else 0.0
    bound = np.abs(elements.values) + 3 * stderr
    return np.nan_to_num(sum(systematics.values(), bound), nan=np.inf)
