"""From two results to a verdict: agree, disagree, or undecided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from bilayer_orchestra.checking.causes import likely_cause
from bilayer_orchestra.checking.comparison import Compared, Comparison, Pair, Word
from bilayer_orchestra.checking.consistency import inconsistencies
from bilayer_orchestra.checking.statistics import Test
from bilayer_orchestra.dataset.reading import flat, is_stochastic, yaml_data
from bilayer_orchestra.observables import EXTRAS, OBSERVABLES
from bilayer_orchestra.terms import FloatArray

#: False-alarm rate of the whole check, all observables and all pairs of results together.
LEVEL = 0.01
#: A comparison that would not notice this relative deviation cannot say "agree".
WEAKEST = 0.2
#: Distance up to which there must be power at least: neighbours in each layer, and across a rung.
NEIGHBOURS = 1
#: Levels of one sector closer than this, in units of the largest coupling: which of their states a
#: DMRG run returns is arbitrary.
UNDETERMINED_GAP = 1e-5
#: A Monte Carlo run that did not converge has wrong error bars; this many sigmas are no accident.
BEYOND_DOUBT = 15.0
#: Probability at which the spread of the pulls counts as narrower than stated.
NARROW = 1e-3


@dataclass(frozen=True)
class Finding:
    """One observable: its test, what may be systematic in it, and the word for it.

    Parameters
    ----------
    name : str
        Of the observable.
    word, reason : str
        The verdict, and why.
    test : Test or None
        The elements of all classes, with the p-value of the most different class; None if the
        observable cannot be compared.
    worst_label : str
        Of the element with the largest pull.
    corrected_p : float
        p-value after the correction for the number of tests.
    sizes : dict
        Named systematic error -> its size, shape (p,); NaN where it is not estimated.
    noticed : dict
        Class -> the smallest relative deviation that would have been noticed.
    distance : int or None
        How far apart two sites may be for all of ``noticed`` to be small; None if the observable
        is no function of two sites.
    detectable : float
        The largest of ``noticed`` up to there, or of the classes that are not known well enough.
    """

    name: str
    word: Word
    reason: str
    test: Test | None = None
    worst_label: str = ""
    corrected_p: float = np.nan
    sizes: dict[str, FloatArray] = field(default_factory=dict)
    noticed: dict[str, float] = field(default_factory=dict)
    distance: int | None = None
    detectable: float = np.nan

    @property
    def systematics(self) -> dict[str, float]:
        """Largest size of each named systematic error that is estimated."""
        return {
            what: float(np.nanmax(size))
            for what, size in self.sizes.items()
            if not np.isnan(size).all()
        }


@dataclass(frozen=True)
class PairVerdict:
    """The comparison of two results.

    ``distance`` is the largest up to which every class of every requested correlation would have
    shown a deviation; None if no correlation was compared.
    """

    pair: Pair
    word: Word
    reason: str
    findings: list[Finding]
    cause: str = ""
    notes: tuple[str, ...] = ()
    distance: int | None = None

    @property
    def first(self) -> str:
        """Label of the first result."""
        return self.pair.labels[0]

    @property
    def second(self) -> str:
        """Label of the second result."""
        return self.pair.labels[1]


def incomparable(a: xr.Dataset, b: xr.Dataset) -> str | None:
    """Return why two results must not be compared, or None.

    They must be of the same Terms: sites, couplings, boundary, ensemble, particle numbers or beta.
    """
    if a.attrs["terms_hash"] == b.attrs["terms_hash"]:
        return None
    if a.attrs["ensemble"] != b.attrs["ensemble"]:
        return (
            f"{a.attrs['backend']} is {a.attrs['ensemble']}, {b.attrs['backend']} is "
            f"{b.attrs['ensemble']}: only the limit T -> 0 of one could be compared with the other"
        )
    return (
        "they solve different models ("
        + (different_settings(a, b) or "couplings, boundary, length, filling or temperature")
        + ")"
    )


def different_settings(a: xr.Dataset, b: xr.Dataset) -> str:
    """Name the settings of the model files in which two results differ."""
    one, other = (flat(yaml_data(str(d.attrs.get("model", "")))) for d in (a, b))
    keys = [path for path in one | other if path[0] not in ("numerics", "name", "observables")]
    return ", ".join(
        f"{'.'.join(path)}: {one.get(path, 'none')} and {other.get(path, 'none')}"
        for path in keys
        if one.get(path) != other.get(path)
    )


def judge_all(pairs: Sequence[Pair], distance: int = NEIGHBOURS) -> list[PairVerdict]:
    """Compare all pairs.

    The p-values are corrected by Holm's method over all classes of all observables of all pairs:
    the chance that anything at all is called different although everything agrees is at most
    :data:`LEVEL`, whatever the observables and pairs have in common.

    Parameters
    ----------
    pairs : sequence of Pair
        All that are compared in one check.
    distance : int
        Sites so far apart must agree, with power, for a pair of results to agree.
    """
    prepared = [Comparison(pair) for pair in pairs]
    compared = [one for comparison in prepared for one in comparison.compared.values()]
    total = max(1, sum(len(one.classes) for one in compared))
    for one in compared:
        one.run(LEVEL / total)
    tests = [(one, test) for one in compared for test in one.tests]
    # a test of what has no noise says yes or no: its p-value is no probability to be corrected
    noisy = np.array([test.stochastic for _, test in tests], dtype=bool)
    p_values = np.array([test.p_value for _, test in tests])
    p_values[noisy] = holm(p_values[noisy])
    for (one, _), p_value in zip(tests, p_values, strict=True):
        one.p_value = min(one.p_value, float(p_value))
    return [_verdict(comparison, distance) for comparison in prepared]


def holm(p_values: FloatArray) -> FloatArray:
    """Correct p-values for their number (S. Holm, Scand. J. Stat. 6, 65 (1979))."""
    order = np.argsort(p_values)
    scaled = np.minimum(1.0, np.arange(len(order), 0, -1) * p_values[order])
    corrected = np.empty_like(p_values)
    corrected[order] = np.maximum.accumulate(scaled)
    return corrected


def _verdict(comparison: Comparison, asked: int) -> PairVerdict:
    pair, compared = comparison.pair, comparison.compared.values()
    undetermined = _undetermined(pair, comparison.terms.energy_scale if comparison.terms else 1.0)
    findings = [_finding(one, "" if one.name == "energy" else undetermined) for one in compared]
    findings += [Finding(*untested) for untested in comparison.untested]
    reach = {
        f.name: f.distance for f in findings if f.distance is not None and f.name not in EXTRAS
    }
    distance = min(reach.values(), default=None)
    word, reason, cause = _overall(comparison, findings)
    if word == "agree" and distance is not None:
        reason += f", up to distance {distance}"
        if distance < max(one.classes[-1].distance for one in compared):
            limiting = [name for name, reached in reach.items() if reached == distance]
            reason += f" (beyond it errors of {', '.join(limiting)} are too large)"
    if word == "agree" and (NEIGHBOURS if distance is None else distance) < asked:
        word, reason = "undecided", f"distance {asked} was asked for; {reason}"
    return PairVerdict(pair, word, reason, findings, cause, tuple(_notes(pair, findings)), distance)


def _finding(one: Compared, doubt: str) -> Finding:
    test, p_value = one.whole(), one.p_value
    noticed = {
        part.name: tested.detectable
        for part, tested in zip(one.classes, one.tests, strict=True)
        if not part.repeats
    }
    counted = [part for part in one.classes if not part.repeats]
    weak = [part for part in counted if noticed[part.name] > WEAKEST]
    distance = None
    if OBSERVABLES[one.name].two_point:
        # one less than the first that is not known well enough
        distance = weak[0].distance - 1 if weak else one.classes[-1].distance
        weak = [part for part in weak if part.distance <= NEIGHBOURS]
    within = [part for part in counted if distance is None or part.distance <= max(distance, 0)]
    detectable = max((noticed[part.name] for part in weak or within), default=np.nan)
    unknown = [what for what, size in one.systematics.items() if np.isnan(size).any()]
    missing = f"{', '.join(unknown)} is not estimated" if unknown else ""
    word: Word = "undecided"
    if p_value < LEVEL and doubt:
        reason = f"differs, but {doubt}"
    elif p_value < LEVEL:
        word = "disagree"
        what = f"p = {p_value:.1e}" if test.stochastic else "more than rounding and stated errors"
        reason = f"{what}; {missing}" if missing else what
    elif doubt:
        reason = doubt
    elif weak:
        where = f" of {weak[0].name}" if weak[0].name else ""
        size = f"{100 * detectable:.3g} %"
        reason = f"errors are too large: a deviation below {size}{where} is not noticed"
    elif missing:
        reason = missing
    else:
        word, reason = "agree", f"would have noticed {100 * detectable:.2g} %"
    return Finding(
        one.name,
        word,
        reason,
        test,
        one.sides[0].labels[test.worst],
        p_value,
        one.systematics,
        noticed,
        distance,
        detectable,
    )


def _undetermined(pair: Pair, energy_scale: float) -> str:
    """Return why correlators of the ground state are not determined, or ""."""
    for label, dataset in pair.sides():
        if dataset.attrs["ensemble"] != "canonical":
            continue
        gap, states = (float(dataset.get(name, np.nan)) for name in ("gap", "degeneracy"))
        what = ""
        if gap < UNDETERMINED_GAP * energy_scale:
            what = f"the next state of the sector lies {gap:.1e} above"
        elif states > 1:
            what = f"the ground level has {states:.0f} states"
        if what:
            return f"{what} ({label}): correlators are not determined"
    return ""


def _overall(comparison: Comparison, findings: list[Finding]) -> tuple[Word, str, str]:
    """Return (word, reason, likely cause)."""
    pair = comparison.pair
    broken = [
        f"{label}: {text}"
        for label, dataset in pair.sides()
        for text in inconsistencies(dataset, comparison.terms)
    ]
    if broken:
        trace = likely_cause(pair, findings)
        text = "; ".join([*broken, *([trace] if trace else [])])
        return "disagree", f"inconsistent in itself: {broken[0]}", text
    unsure = {label: d for label, d in pair.sides() if not d.attrs["converged"]}
    if different := [finding for finding in findings if finding.word == "disagree"]:
        names = ", ".join(finding.name for finding in different)
        noisy = [label for label, dataset in unsure.items() if is_stochastic(dataset)]
        pulls = [abs(f.test.largest_pull) if f.test else np.inf for f in different]
        if noisy and max(pulls) < BEYOND_DOUBT:
            return "undecided", f"{names} differ, but {' and '.join(noisy)} did not converge", ""
        return "disagree", names, likely_cause(pair, findings)
    # a quantity that nobody asked for settles nothing by being unknown
    unknown = {f.name: f.reason for f in findings if f.word != "agree" and f.name not in EXTRAS}
    word: Word = "undecided"
    if unsure:
        reason = f"{' and '.join(unsure)} did not converge"
    elif not findings:
        reason = "the two have no observable in common"
    elif unknown:
        shared = set(unknown.values())
        reason = ", ".join(unknown) + (f": {shared.pop()}" if len(shared) == 1 else "")
    else:
        word, reason = "agree", f"{len(findings)} observables"
    return word, reason, ""


def _notes(pair: Pair, findings: list[Finding]) -> list[str]:
    """Say where the stated errors do not fit the scatter that is seen."""
    usable = {f.name: f.test for f in findings if f.test and np.isfinite(f.test.width)}
    if not usable or pair.kind == "limit":  # there the temperature shifts all pulls
        return []
    name, test = max(usable.items(), key=lambda item: item[1].modes)
    chances = [one.width_p for one in usable.values()]
    what, remark = "", ""
    if min(chances) * len(usable) < NARROW:
        what, remark = "large", " (the check loses power by that, no more)"
    elif max(chances) > 1 - NARROW / len(usable) and test.width > 1:
        what = "small"
    spread = f"the pulls of {name} spread {test.width:.2f} times as far as they should{remark}"
    return [f"stated errors look too {what}: {spread}"] if what else []
