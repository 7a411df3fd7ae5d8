"""From two results to a verdict: agree, disagree, or undecided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import xarray as xr

from bilayer_orchestra.check.causes import likely_cause
from bilayer_orchestra.check.consistency import inconsistencies
from bilayer_orchestra.check.elements import Elements, elements_of, vector
from bilayer_orchestra.check.statistics import Test, compare
from bilayer_orchestra.check.systematics import systematic_terms, unestimated
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.observables import EXTRAS, OBSERVABLES
from bilayer_orchestra.terms import FloatArray

Word = Literal["agree", "disagree", "undecided"]

#: False-alarm rate of the whole check, all observables and all pairs of results together.
LEVEL = 0.01
#: A comparison that would not notice this relative deviation cannot say "agree".
WEAKEST = 0.2
#: Levels of one sector closer than this: which of the states a DMRG run returns is arbitrary.
UNDETERMINED_GAP = 1e-5
#: A Monte Carlo run that did not converge has wrong error bars; this many sigmas are no accident.
BEYOND_DOUBT = 15.0
#: Probability at which the spread of the pulls counts as narrower than stated.
NARROW = 1e-3


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


@dataclass(frozen=True)
class Finding:
    """One observable: its test, what may be systematic in it, and the word for it."""

    name: str
    word: Word
    reason: str
    test: Test | None
    worst_label: str = ""
    corrected_p: float = np.nan
    systematics: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, FloatArray] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The comparison of two results."""

    first: str
    second: str
    word: Word
    reason: str
    findings: list[Finding]
    cause: str = ""
    notes: tuple[str, ...] = ()
    pair: Pair | None = None


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
    from bilayer_orchestra.model.yaml_text import YamlText

    def flat(data: object, prefix: str = "") -> dict[str, object]:
        if not isinstance(data, dict):
            return {prefix: data}
        return {
            key: value
            for name, inner in data.items()
            for key, value in flat(inner, f"{prefix}.{name}" if prefix else str(name)).items()
        }

    one, other = (flat(YamlText(d.attrs.get("model", ""), "model").data) for d in (a, b))
    keys = [k for k in {**one, **other} if not k.startswith(("numerics", "name", "observables"))]
    return ", ".join(
        f"{key}: {one.get(key, 'none')} and {other.get(key, 'none')}"
        for key in keys
        if one.get(key) != other.get(key)
    )


def judge(a: xr.Dataset, b: xr.Dataset, level: float = LEVEL) -> Verdict:
    """Compare every observable of two results of the same state.

    Raises
    ------
    OrchestraError
        If the two results must not be compared.
    """
    why_not = incomparable(a, b)
    if why_not:
        raise OrchestraError(f"these results cannot be compared: {why_not}")
    labels = (a.attrs["backend"], b.attrs["backend"])
    return judge_all([Pair(a, b, labels)], level)[0]


def judge_all(pairs: Sequence[Pair], level: float = LEVEL) -> list[Verdict]:
    """Compare all pairs.

    The p-values are corrected by Holm's method over all observables of all pairs: the chance that
    anything at all is called different although everything agrees is at most ``level``, whatever
    the observables and pairs have in common.
    """
    prepared = [_Tests(pair) for pair in pairs]
    total = max(1, sum(len(tests.names) for tests in prepared))
    for tests in prepared:
        tests.run(level / total)
    stochastic = {
        f"{k}/{name}": test.p_value
        for k, tests in enumerate(prepared)
        for name, test in tests.tests.items()
        if test.stochastic
    }
    corrected = holm(stochastic)
    verdicts = []
    for k, tests in enumerate(prepared):
        p_values = {
            name: corrected.get(f"{k}/{name}", test.p_value) for name, test in tests.tests.items()
        }
        verdicts.append(_verdict(tests, p_values, level))
    return verdicts


def overall(verdicts: Sequence[Verdict]) -> Word:
    """Return the word for the whole check: one disagreement decides, one doubt is enough."""
    words = {verdict.word for verdict in verdicts}
    if "disagree" in words:
        return "disagree"
    return "agree" if words == {"agree"} else "undecided"


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """Correct p-values for their number (S. Holm, Scand. J. Stat. 6, 65 (1979))."""
    corrected: dict[str, float] = {}
    running = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[name]))
        corrected[name] = running
    return corrected


class _Tests:
    """One pair: which observables can be compared, their elements, systematic terms and tests."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.names: list[str] = []
        self.untested: list[Finding] = []
        self.elements: dict[str, tuple[Elements, Elements]] = {}
        self.systematics: dict[str, dict[str, FloatArray]] = {}
        self.tests: dict[str, Test] = {}
        for name in OBSERVABLES:
            self._prepare(name)

    def _prepare(self, name: str) -> None:
        a, b = self.pair.first, self.pair.second
        if name not in a or name not in b:
            if (name in a or name in b) and name not in EXTRAS:
                only = self.pair.labels[0 if name in a else 1]
                self.untested.append(Finding(name, "undecided", f"only {only} has it", None))
            return
        one, other = elements_of(a, name), elements_of(b, name)
        if one.labels != other.labels:
            self.untested.append(
                Finding(name, "disagree", "the two do not have the same elements", None)
            )
            return
        bad = [~np.isfinite(e.values) for e in (one, other)]
        if (bad[0] | bad[1]).any():
            both = bool((bad[0] & bad[1])[bad[0] | bad[1]].all())
            place = one.labels[int(np.argmax(bad[0] | bad[1]))]
            word: Word = "undecided" if both else "disagree"
            self.untested.append(Finding(name, word, f"not a finite number at {place}", None))
            return
        if not all(np.isfinite(e.deviations).all() for e in (one, other)):
            self.untested.append(Finding(name, "undecided", "the error bars are not finite", None))
            return
        terms = {
            f"{what} ({label})": size
            for dataset, elements, label in zip((a, b), (one, other), self.pair.labels, strict=True)
            for what, size in systematic_terms(dataset, elements).items()
        }
        for what, sizes in self.pair.extra.items():
            if name in sizes:
                terms[what] = vector(sizes[name], name)
        self.names.append(name)
        self.elements[name] = (one, other)
        self.systematics[name] = terms

    def run(self, level: float) -> None:
        for name in self.names:
            one, other = self.elements[name]
            terms = self.systematics[name]
            allowance = sum(
                (np.nan_to_num(size) for size in terms.values()), np.zeros(len(one.values))
            )
            self.tests[name] = compare(one, other, allowance, level)


def _verdict(tests: _Tests, p_values: dict[str, float], level: float) -> Verdict:
    pair = tests.pair
    undetermined = _undetermined(pair)
    findings = []
    for name in tests.names:
        test, terms = tests.tests[name], tests.systematics[name]
        doubt = pair.doubt or ("" if name == "energy" else undetermined)
        word, reason = _word(test, p_values[name], level, unestimated(terms), doubt)
        largest = {
            what: float(np.nanmax(size)) for what, size in terms.items() if not np.isnan(size).all()
        }
        findings.append(
            Finding(
                name,
                word,
                reason,
                test,
                tests.elements[name][0].labels[test.worst],
                p_values[name],
                largest,
                terms,
            )
        )
    findings += tests.untested
    word, reason, cause = _overall(pair, findings)
    return Verdict(*pair.labels, word, reason, findings, cause, tuple(_notes(tests)), pair)


def _undetermined(pair: Pair) -> str:
    """Return why correlators of the ground state are not determined, or ""."""
    for dataset, label in zip((pair.first, pair.second), pair.labels, strict=True):
        if dataset.attrs["ensemble"] != "canonical":
            continue
        if "gap" in dataset and float(dataset["gap"]) < UNDETERMINED_GAP:
            return (
                f"the next state of the sector lies {float(dataset['gap']):.1e} above ({label}): "
                "correlators are not determined"
            )
        if "degeneracy" in dataset and float(dataset["degeneracy"]) > 1:
            return (
                f"the ground level has {float(dataset['degeneracy']):.0f} states ({label}): "
                "correlators are not determined"
            )
    return ""


def _word(
    test: Test, p_value: float, level: float, unknown: list[str], doubt: str
) -> tuple[Word, str]:
    missing = f"{', '.join(unknown)} is not estimated" if unknown else ""
    if p_value < level:
        if doubt:
            return "undecided", f"differs, but {doubt}"
        text = f"p = {p_value:.1e}" if test.stochastic else "more than rounding and stated errors"
        return "disagree", f"{text}; {missing}" if missing else text
    if doubt:
        return "undecided", doubt
    if test.detectable > WEAKEST:
        return "undecided", (
            f"errors are too large: a deviation below {100 * test.detectable:.0f} % is not noticed"
        )
    if missing:
        return "undecided", missing
    return "agree", f"would have noticed {100 * test.detectable:.2g} %"


def _overall(  # noqa: PLR0911  (one return for each kind of answer)
    pair: Pair, findings: list[Finding]
) -> tuple[Word, str, str]:
    """Return (word, reason, likely cause)."""
    broken = [
        f"{label}: {text}"
        for dataset, label in zip((pair.first, pair.second), pair.labels, strict=True)
        for text in inconsistencies(dataset)
    ]
    unsure = [
        (label, dataset)
        for dataset, label in zip((pair.first, pair.second), pair.labels, strict=True)
        if not dataset.attrs["converged"]
    ]
    by_word = {
        word: [finding.name for finding in findings if finding.word == word]
        for word in ("agree", "disagree", "undecided")
    }
    if broken:
        trace = likely_cause(pair.first, pair.second, pair.labels, findings)
        text = "; ".join([*broken, *([trace] if trace else [])])
        return "disagree", f"inconsistent in itself: {broken[0]}", text
    names = ", ".join(by_word["disagree"])
    if by_word["disagree"]:
        noisy = [label for label, dataset in unsure if dataset.attrs["backend"] == "alf"]
        pulls = [
            float(np.abs(f.test.pulls[f.test.worst])) if f.test is not None else np.inf
            for f in findings
            if f.word == "disagree"
        ]
        if noisy and max(pulls) < BEYOND_DOUBT:
            return "undecided", f"{names} differ, but {' and '.join(noisy)} did not converge", ""
        return "disagree", names, likely_cause(pair.first, pair.second, pair.labels, findings)
    if unsure:
        return "undecided", f"{' and '.join(label for label, _ in unsure)} did not converge", ""
    if not findings:
        return "undecided", "the two have no observable in common", ""
    if by_word["undecided"]:
        reasons = {f.reason for f in findings if f.word == "undecided"}
        shared = f": {reasons.pop()}" if len(reasons) == 1 else ""
        return "undecided", ", ".join(by_word["undecided"]) + shared, ""
    return "agree", f"{len(findings)} observables", ""


def _notes(tests: _Tests) -> list[str]:
    """Say where the stated errors do not fit the scatter that is seen."""
    usable = {n: t for n, t in tests.tests.items() if t.stochastic and np.isfinite(t.width)}
    if not usable or tests.pair.kind == "limit":  # there the temperature shifts all pulls
        return []
    name, test = max(usable.items(), key=lambda item: item[1].modes)
    count = len(usable)
    if min(t.width_p for t in usable.values()) * count < NARROW:
        return [
            f"stated errors look too large: the pulls of {name} spread {test.width:.2f} times as "
            "far as they should (the check loses power by that, no more)"
        ]
    if max(t.width_p for t in usable.values()) > 1 - NARROW / count and test.width > 1:
        return [
            f"stated errors look too small: the pulls of {name} spread {test.width:.2f} times as "
            "far as they should"
        ]
    return []
