"""One observable of two results: whether it can be compared, and what its tests say."""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import xarray as xr

from bilayer_orchestra.checking.elements import (
    ElementClass,
    Elements,
    classes_of,
    elements_of,
    natural_scale,
    vector,
)
from bilayer_orchestra.checking.statistics import ZERO, Test, compare, spread
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.model.spec import Model, stored_model
from bilayer_orchestra.observables import EXTRAS, OBSERVABLES
from bilayer_orchestra.terms import FloatArray, Terms

Word = Literal["agree", "disagree", "undecided"]

#: False-alarm rate of the whole check, all observables and all pairs of results together.
LEVEL = 0.01
#: A comparison that would not notice this relative deviation cannot say "agree".
WEAKEST = 0.2
#: Distance up to which there must be power at least: neighbours, within and between layers.
NEIGHBOURS = 1


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
        Systematic term -> size for every observable; on top of those that the results state.
    """

    first: xr.Dataset
    second: xr.Dataset
    labels: tuple[str, str]
    kind: Literal["same state", "limit"] = "same state"
    extra: dict[str, xr.Dataset] = field(default_factory=dict)

    def sides(self) -> Iterator[tuple[str, xr.Dataset]]:
        """Yield both results with their labels."""
        yield from zip(self.labels, (self.first, self.second), strict=True)

    @functools.cached_property
    def model(self) -> Model | None:
        """What was solved; None if its geometry is not installed here."""
        try:
            return stored_model(str(self.first.attrs["model"]))
        except OrchestraError:
            return None

    @functools.cached_property
    def terms(self) -> Terms | None:
        """Hamiltonian of the model."""
        return self.model.terms() if self.model else None


@dataclass
class Finding:
    """One observable: its tests, what may be systematic in it, and the word for it.

    Parameters
    ----------
    name : str
        Of the observable.
    word, reason : str
        The verdict, and why.
    sides : tuple of Elements
        Those of both results; none if the observable cannot be compared.
    sizes : dict
        Named systematic error -> its size, shape (p,); NaN where it is not estimated.
    classes : list of ElementClass
        In the order of their distance.
    scale : float
        Natural size of the observable.
    tests : list of Test
        One per class, once they are made.
    corrected_p : float
        Their smallest p-value, after the correction for the number of tests.
    noticed : dict
        Class -> the smallest relative deviation that would have been noticed.
    distance : int or None
        How far apart two sites may be for all of ``noticed`` to be small; None if the observable
        is no function of two sites.
    detectable : float
        The largest of ``noticed`` up to there, or of the classes that are not known well enough.
    """

    name: str
    word: Word = "undecided"
    reason: str = ""
    sides: tuple[Elements, ...] = ()
    sizes: dict[str, FloatArray] = field(default_factory=dict)
    classes: list[ElementClass] = field(default_factory=list)
    scale: float = 1.0
    tests: list[Test] = field(default_factory=list)
    corrected_p: float = np.nan
    noticed: dict[str, float] = field(default_factory=dict)
    distance: int | None = None
    detectable: float = np.nan

    def run(self, level: float) -> None:
        """Test every class at ``level``."""
        one, other = self.sides
        sizes = (np.nan_to_num(size) for size in self.sizes.values())
        allowance = sum(sizes, np.zeros(len(one.values)))
        zero, largest = ZERO * self.scale, [float(np.abs(side.values).max()) for side in self.sides]
        bounds = [side.bound for side in self.sides]
        wholes = [size if size > zero else self.scale for size in largest]
        for part in self.classes:
            chosen = part.members
            # a deviation is a part of the values; where one result knows that they vanish, of the
            # largest value of the observable, as that result has it
            vanish = [bound[chosen].max(initial=0.0) <= zero for bound in bounds]
            whole = max(itertools.compress(wholes, vanish), default=None)
            parts = one.of(chosen), other.of(chosen)
            self.tests.append(compare(*parts, allowance[chosen], level, self.scale, whole))

    @functools.cached_property
    def test(self) -> Test | None:
        """The elements of all classes, with the p-value of the most different class."""
        if not self.tests:
            return None
        order = np.argsort(np.concatenate([part.members for part in self.classes]))
        columns: dict[str, Any] = {
            column: np.concatenate([getattr(test, column) for test in self.tests])[order]
            for column in ("pulls", "difference", "stderr", "allowance")
        }
        one, other = self.sides
        width, width_p = spread(one, other, self.scale)
        most = min(self.tests, key=lambda test: (test.p_value, -test.modes))
        return most._replace(width=width, width_p=width_p, **columns)

    @property
    def worst_label(self) -> str:
        """Label of the element with the largest pull."""
        return self.sides[0].labels[self.test.worst] if self.test else ""

    @property
    def systematics(self) -> dict[str, float]:
        """Largest size of each named systematic error that is estimated."""
        return {
            what: float(np.nanmax(size))
            for what, size in self.sizes.items()
            if not np.isnan(size).all()
        }

    def judge(self, doubt: str) -> None:
        """Say the word; ``doubt`` is why the average is not determined, or ""."""
        assert self.test is not None
        counted = [part for part in self.classes if not part.repeats]
        self.noticed = {
            part.name: test.detectable
            for part, test in zip(self.classes, self.tests, strict=True)
            if not part.repeats
        }
        weak = [part for part in counted if self.noticed[part.name] > WEAKEST]
        within = counted
        if OBSERVABLES[self.name].two_point:
            # one less than the first that is not known well enough
            self.distance = weak[0].distance - 1 if weak else self.classes[-1].distance
            within = [part for part in counted if part.distance <= max(self.distance, 0)]
            weak = [part for part in weak if part.distance <= NEIGHBOURS]
        self.detectable = max((self.noticed[part.name] for part in weak or within), default=np.nan)
        unknown = [what for what, size in self.sizes.items() if np.isnan(size).any()]
        missing = f"{', '.join(unknown)} is not estimated" if unknown else ""
        if self.corrected_p < LEVEL and doubt:
            self.reason = f"differs, but {doubt}"
        elif self.corrected_p < LEVEL:
            p_value = f"p = {self.corrected_p:.1e}"
            what = p_value if self.test.stochastic else "more than rounding and stated errors"
            self.word, self.reason = "disagree", f"{what}; {missing}" if missing else what
        elif doubt:
            self.reason = doubt
        elif weak:
            where = f" of {weak[0].name}" if weak[0].name else ""
            size = f"{100 * self.detectable:.3g} %"
            self.reason = f"errors are too large: a deviation below {size}{where} is not noticed"
        elif missing:
            self.reason = missing
        else:
            self.word, self.reason = "agree", f"would have noticed {100 * self.detectable:.2g} %"


def findings_of(pair: Pair) -> list[Finding]:
    """Return what is to be tested of two results, and then what cannot be, with the reason."""
    found = []
    for name in OBSERVABLES:
        present = [label for label, dataset in pair.sides() if name in dataset]
        if len(present) == 2:
            found.append(_prepared(pair, name))
        elif present and name not in EXTRAS:
            found.append(Finding(name, reason=f"only {present[0]} has it"))
    return sorted(found, key=lambda one: not one.classes)


def _prepared(pair: Pair, name: str) -> Finding:
    sides = elements_of(pair.first, name), elements_of(pair.second, name)
    if sides[0].labels != sides[1].labels:
        return Finding(name, "disagree", "the two do not have the same elements")
    bad = np.stack([~np.isfinite(side.values) for side in sides])
    if bad.any():
        place = sides[0].labels[int(np.argmax(bad.any(axis=0)))]
        word: Word = "undecided" if (bad[0] == bad[1]).all() else "disagree"
        return Finding(name, word, f"not a finite number at {place}")
    if not all(np.isfinite(side.deviations).all() for side in sides):
        return Finding(name, reason="the error bars are not finite")
    sizes = {
        f"{what} ({label})": size
        for label, side in zip(pair.labels, sides, strict=True)
        for what, size in side.systematics.items()
    }
    sizes |= {what: vector(of[name], name) for what, of in pair.extra.items() if name in of}
    classes = classes_of(pair.first, name, pair.model is not None and pair.model.periodic)
    scale = natural_scale(name, pair.terms)
    return Finding(name, sides=sides, sizes=sizes, classes=classes, scale=scale)
