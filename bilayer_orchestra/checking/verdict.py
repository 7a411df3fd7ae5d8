"""From results to a verdict: agree, disagree, or undecided; of each pair, and of a whole check."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
import pandas as pd
import xarray as xr

from bilayer_orchestra.checking.causes import likely_cause
from bilayer_orchestra.checking.comparison import (
    LEVEL,
    NEIGHBOURS,
    Finding,
    Pair,
    Word,
    findings_of,
)
from bilayer_orchestra.checking.identities import inconsistencies
from bilayer_orchestra.checking.ladder import Ladder
from bilayer_orchestra.dataset.reading import is_stochastic
from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.observables import EXTRAS
from bilayer_orchestra.terms import FloatArray

#: The words, the worst one last: it is that of the whole.
SEVERITY: tuple[Word, ...] = ("agree", "undecided", "disagree")
#: Levels of one sector closer than this, in units of the largest coupling: which of their states a
#: DMRG run returns is arbitrary.
UNDETERMINED_GAP = 1e-5
#: A Monte Carlo run that did not converge has wrong error bars; this many sigmas are no accident.
BEYOND_DOUBT = 15.0
#: Probability at which the spread of the pulls counts as narrower than stated.
NARROW = 1e-3


@dataclass(frozen=True)
class PairVerdict:
    """The comparison of two results.

    ``note`` says where the stated errors do not fit the scatter that is seen. ``distance`` is the
    largest up to which every class of every requested correlation would have shown a deviation;
    None if no correlation was compared.
    """

    pair: Pair
    word: Word
    reason: str
    findings: list[Finding]
    cause: str = ""
    note: str = ""
    distance: int | None = None

    @property
    def first(self) -> str:
        """Label of the first result."""
        return self.pair.labels[0]

    @property
    def second(self) -> str:
        """Label of the second result."""
        return self.pair.labels[1]


@dataclass(repr=False, eq=False)
class Verdict:
    """Whether all results of a check agree, and what was compared.

    Parameters
    ----------
    name : str
        Of the model.
    model : Model or None
        What was solved; None if stored results were compared.
    verdicts : list of PairVerdict
        Of every pair of results.
    ladder : Ladder or None
        The temperatures on which T -> 0 was followed.
    notes : list of str
        What was not done, and why.
    results : dict
        The results that were compared, by label.
    thermal : dict
        Engine -> beta -> result, on the ladder.
    """

    name: str
    model: Model | None
    verdicts: list[PairVerdict] = field(default_factory=list)
    ladder: Ladder | None = None
    notes: list[str] = field(default_factory=list)
    results: dict[str, xr.Dataset] = field(default_factory=dict)
    thermal: dict[str, dict[float, xr.Dataset]] = field(default_factory=dict)

    @property
    def word(self) -> Word:
        """``"agree"``, ``"disagree"`` (one pair is enough) or ``"undecided"`` (one doubt is)."""
        return max((one.word for one in self.verdicts), key=SEVERITY.index, default="undecided")

    @property
    def distance(self) -> int | None:
        """Distance up to which all results agree; None without agreement or correlations."""
        reached = [v.distance for v in self.verdicts if v.distance is not None]
        return min(reached, default=None) if self.word == "agree" else None

    @property
    def reason(self) -> str:
        """Why, pair by pair of results."""
        return "; ".join(
            f"{pair.first} and {pair.second}: {pair.word}, {pair.reason}" for pair in self.verdicts
        )

    @property
    def table(self) -> pd.DataFrame:
        """One row per observable of every pair of results."""
        rows = [
            (*pair.pair.labels, f.name, f.word, f.corrected_p, f.distance, f.detectable, f.reason)
            for pair in self.verdicts
            for f in pair.findings
        ]
        columns = "first second observable verdict p_value distance noticed reason"
        return pd.DataFrame(rows, columns=columns.split())

    def __repr__(self) -> str:
        """Return the word and why."""
        return f"{self.word.upper()}: {self.reason}"

    def _repr_html_(self) -> str:
        table = self.table.to_html(index=False, escape=True, float_format="{:.3g}".format)
        return f"<p><b>{escape(self.word.upper())}</b> {escape(self.reason)}</p>{table}"


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
    found = [findings_of(pair) for pair in pairs]
    compared = [one for findings in found for one in findings if one.classes]
    total = max(1, sum(len(one.classes) for one in compared))
    for one in compared:
        one.run(LEVEL / total)
    tests = [test for one in compared for test in one.tests]
    # a test of what has no noise says yes or no: its p-value is no probability to be corrected
    noisy = np.array([test.stochastic for test in tests], dtype=bool)
    p_values = np.array([test.p_value for test in tests])
    p_values[noisy] = holm(p_values[noisy])
    corrected = iter(p_values)
    for one in compared:
        one.corrected_p = min(float(next(corrected)) for _ in one.tests)
    return [_verdict(*both, distance) for both in zip(pairs, found, strict=True)]


def holm(p_values: FloatArray) -> FloatArray:
    """Correct p-values for their number (S. Holm, Scand. J. Stat. 6, 65 (1979))."""
    order = np.argsort(p_values)
    scaled = np.minimum(1.0, np.arange(len(order), 0, -1) * p_values[order])
    corrected = np.empty_like(p_values)
    corrected[order] = np.maximum.accumulate(scaled)
    return corrected


def _verdict(pair: Pair, findings: list[Finding], asked: int) -> PairVerdict:
    undetermined = _undetermined(pair)
    compared = [one for one in findings if one.classes]
    for one in compared:
        one.judge("" if one.name == "energy" else undetermined)
    reach = {
        f.name: f.distance for f in findings if f.distance is not None and f.name not in EXTRAS
    }
    distance = min(reach.values(), default=None)
    word, reason, cause = _overall(pair, findings)
    if word == "agree" and distance is not None:
        reason += f", up to distance {distance}"
        if distance < max(one.classes[-1].distance for one in compared):
            limiting = [name for name, reached in reach.items() if reached == distance]
            reason += f" (beyond it errors of {', '.join(limiting)} are too large)"
    if word == "agree" and (NEIGHBOURS if distance is None else distance) < asked:
        word, reason = "undecided", f"distance {asked} was asked for; {reason}"
    return PairVerdict(pair, word, reason, findings, cause, _note(pair, findings), distance)


def _undetermined(pair: Pair) -> str:
    """Return why correlators of the ground state are not determined, or ""."""
    unit = pair.terms.energy_scale if pair.terms else 1.0
    for label, dataset in pair.sides():
        gap, states = (float(dataset.get(name, np.nan)) for name in ("gap", "degeneracy"))
        why = f"({label}): correlators are not determined"
        if dataset.attrs["ensemble"] != "canonical":
            continue
        if gap < UNDETERMINED_GAP * unit:
            return f"the next state of the sector lies {gap:.1e} above {why}"
        if states > 1:
            return f"the ground level has {states:.0f} states {why}"
    return ""


def _overall(pair: Pair, findings: list[Finding]) -> tuple[Word, str, str]:
    """Return (word, reason, likely cause)."""
    broken = [
        f"{label}: {text}"
        for label, dataset in pair.sides()
        for text in inconsistencies(dataset, pair.terms)
    ]
    if broken:
        causes = [*broken, likely_cause(pair, findings)]
        reason = f"inconsistent in itself: {broken[0]}"
        return "disagree", reason, "; ".join(filter(None, causes))
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


def _note(pair: Pair, findings: list[Finding]) -> str:
    """Say where the stated errors do not fit the scatter that is seen."""
    usable = {f.name: f.test for f in findings if f.test and np.isfinite(f.test.width)}
    if not usable or pair.kind == "limit":  # there the temperature shifts all pulls
        return ""
    name, test = max(usable.items(), key=lambda item: item[1].modes)
    chances = [one.width_p for one in usable.values()]
    spread = f"the pulls of {name} spread {test.width:.2f} times as far as they should"
    if min(chances) * len(usable) < NARROW:
        return f"stated errors look too large: {spread} (the check loses power by that, no more)"
    if max(chances) > 1 - NARROW / len(usable) and test.width > 1:
        return f"stated errors look too small: {spread}"
    return ""
