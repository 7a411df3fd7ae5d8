"""From two results to a verdict: agree, disagree, or undecided."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import xarray as xr

from bilayer_orchestra.checking.causes import likely_cause
from bilayer_orchestra.checking.classes import ElementClass
from bilayer_orchestra.checking.comparison import Comparison, Pair, Word
from bilayer_orchestra.checking.consistency import inconsistencies
from bilayer_orchestra.checking.statistics import Test
from bilayer_orchestra.checking.systematics import unestimated
from bilayer_orchestra.dataset.statement import is_stochastic
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.observables import EXTRAS, OBSERVABLES
from bilayer_orchestra.terms import FloatArray

Key = TypeVar("Key", bound=Hashable)

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

    ``test`` holds the elements of all classes, with the p-value of the most different class;
    ``noticed`` is, per class, the smallest relative deviation that would have been noticed, and
    ``distance`` how far apart two sites may be for all of these to be small (None if the observable
    is no function of two sites).
    """

    name: str
    word: Word
    reason: str
    test: Test | None
    worst_label: str = ""
    corrected_p: float = np.nan
    systematics: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, FloatArray] = field(default_factory=dict)
    noticed: dict[str, float] = field(default_factory=dict)
    distance: int | None = None
    detectable: float = np.nan


@dataclass(frozen=True)
class PairVerdict:
    """The comparison of two results.

    ``distance`` is the largest up to which every class of every requested correlation would have
    shown a deviation; None if no correlation was compared.
    """

    first: str
    second: str
    word: Word
    reason: str
    findings: list[Finding]
    cause: str = ""
    notes: tuple[str, ...] = ()
    pair: Pair | None = None
    distance: int | None = None


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
    from bilayer_orchestra.yaml_text import YamlText

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


def judge(a: xr.Dataset, b: xr.Dataset, level: float = LEVEL) -> PairVerdict:
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


def judge_all(
    pairs: Sequence[Pair], level: float = LEVEL, distance: int = NEIGHBOURS
) -> list[PairVerdict]:
    """Compare all pairs.

    The p-values are corrected by Holm's method over all classes of all observables of all pairs:
    the chance that anything at all is called different although everything agrees is at most
    ``level``, whatever the observables and pairs have in common.

    Parameters
    ----------
    distance : int
        Sites so far apart must agree, with power, for a pair of results to agree.
    """
    prepared = [Comparison(pair) for pair in pairs]
    total = max(1, sum(len(classes) for tests in prepared for classes in tests.classes.values()))
    for tests in prepared:
        tests.run(level / total)
    corrected = holm(
        {
            (k, *key): test.p_value
            for k, tests in enumerate(prepared)
            for key, test in tests.tests.items()
            if test.stochastic
        }
    )
    return [
        _verdict(
            tests,
            {key: corrected.get((k, *key), test.p_value) for key, test in tests.tests.items()},
            level,
            distance,
        )
        for k, tests in enumerate(prepared)
    ]


def overall(verdicts: Sequence[PairVerdict]) -> Word:
    """Return the word for the whole check: one disagreement decides, one doubt is enough."""
    words = {verdict.word for verdict in verdicts}
    if "disagree" in words:
        return "disagree"
    return "agree" if words == {"agree"} else "undecided"


def holm(p_values: dict[Key, float]) -> dict[Key, float]:
    """Correct p-values for their number (S. Holm, Scand. J. Stat. 6, 65 (1979))."""
    corrected: dict[Key, float] = {}
    running = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[name]))
        corrected[name] = running
    return corrected


def _verdict(
    tests: Comparison, p_values: dict[tuple[str, str], float], level: float, asked: int
) -> PairVerdict:
    pair = tests.pair
    undetermined = _undetermined(pair, tests.terms.energy_scale if tests.terms else 1.0)
    findings = [
        _finding(
            tests, name, p_values, level, pair.doubt or ("" if name == "energy" else undetermined)
        )
        for name in tests.elements
    ]
    findings += [Finding(*untested, None) for untested in tests.untested]
    reach = {f.name: f.distance for f in findings if f.distance is not None}
    reach = {name: distance for name, distance in reach.items() if name not in EXTRAS}
    distance = min(reach.values(), default=None)
    word, reason, cause = _overall(tests, findings)
    if word == "agree" and distance is not None:
        reason += f", up to distance {distance}"
        if distance < max(parts[-1].distance for parts in tests.classes.values()):
            limiting = [name for name, reached in reach.items() if reached == distance]
            reason += f" (beyond it errors of {', '.join(limiting)} are too large)"
    if word == "agree" and (NEIGHBOURS if distance is None else distance) < asked:
        word, reason = "undecided", f"distance {asked} was asked for; {reason}"
    return PairVerdict(
        *pair.labels, word, reason, findings, cause, tuple(_notes(pair, findings)), pair, distance
    )


def _finding(
    tests: Comparison, name: str, p_values: dict[tuple[str, str], float], level: float, doubt: str
) -> Finding:
    terms, test, parts = tests.systematics[name], tests.whole(name), tests.classes[name]
    counted = [part for part in parts if not part.repeats]
    noticed = {part.name: tests.tests[name, part.name].detectable for part in counted}
    weak = [part for part in counted if noticed[part.name] > WEAKEST]
    distance = None
    if OBSERVABLES[name].two_point:
        # one less than the first that is not known well enough
        distance = weak[0].distance - 1 if weak else parts[-1].distance
        weak = [part for part in weak if part.distance <= NEIGHBOURS]
    within = [part for part in counted if distance is None or part.distance <= max(distance, 0)]
    detectable = max((noticed[part.name] for part in weak or within), default=np.nan)
    p_value = min(p_values[name, part.name] for part in parts)
    word, reason = _word(test, p_value, level, unestimated(terms), doubt, weak, detectable)
    return Finding(
        name,
        word,
        reason,
        test,
        tests.elements[name][0].labels[test.worst],
        p_value,
        {what: float(np.nanmax(size)) for what, size in terms.items() if not np.isnan(size).all()},
        terms,
        noticed,
        distance,
        detectable,
    )


def _undetermined(pair: Pair, energy_scale: float) -> str:
    """Return why correlators of the ground state are not determined, or ""."""
    for dataset, label in zip((pair.first, pair.second), pair.labels, strict=True):
        if dataset.attrs["ensemble"] != "canonical":
            continue
        if "gap" in dataset and float(dataset["gap"]) < UNDETERMINED_GAP * energy_scale:
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
    test: Test,
    p_value: float,
    level: float,
    unknown: list[str],
    doubt: str,
    weak: list[ElementClass],
    detectable: float,
) -> tuple[Word, str]:
    missing = f"{', '.join(unknown)} is not estimated" if unknown else ""
    if p_value < level:
        if doubt:
            return "undecided", f"differs, but {doubt}"
        text = f"p = {p_value:.1e}" if test.stochastic else "more than rounding and stated errors"
        return "disagree", f"{text}; {missing}" if missing else text
    if doubt:
        return "undecided", doubt
    if weak:
        where = f" of {weak[0].name}" if weak[0].name else ""
        return "undecided", (
            f"errors are too large: a deviation below {100 * detectable:.3g} %{where} "
            "is not noticed"
        )
    if missing:
        return "undecided", missing
    return "agree", f"would have noticed {100 * detectable:.2g} %"


def _overall(  # noqa: PLR0911  (one return for each kind of answer)
    tests: Comparison, findings: list[Finding]
) -> tuple[Word, str, str]:
    """Return (word, reason, likely cause)."""
    pair = tests.pair
    broken = [
        f"{label}: {text}"
        for dataset, label in zip((pair.first, pair.second), pair.labels, strict=True)
        for text in inconsistencies(dataset, tests.terms)
    ]
    unsure = [
        (label, dataset)
        for dataset, label in zip((pair.first, pair.second), pair.labels, strict=True)
        if not dataset.attrs["converged"]
    ]
    by_word = {
        word: [
            finding.name
            for finding in findings
            # a quantity that nobody asked for settles nothing by being unknown
            if finding.word == word and not (word == "undecided" and finding.name in EXTRAS)
        ]
        for word in ("agree", "disagree", "undecided")
    }
    if broken:
        trace = likely_cause(pair.first, pair.second, pair.labels, findings)
        text = "; ".join([*broken, *([trace] if trace else [])])
        return "disagree", f"inconsistent in itself: {broken[0]}", text
    names = ", ".join(by_word["disagree"])
    if by_word["disagree"]:
        noisy = [label for label, dataset in unsure if is_stochastic(dataset)]
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
        reasons = {f.reason for f in findings if f.name in by_word["undecided"]}
        shared = f": {reasons.pop()}" if len(reasons) == 1 else ""
        return "undecided", ", ".join(by_word["undecided"]) + shared, ""
    return "agree", f"{len(findings)} observables", ""


def _notes(pair: Pair, findings: list[Finding]) -> list[str]:
    """Say where the stated errors do not fit the scatter that is seen."""
    usable = {f.name: f.test for f in findings if f.test and np.isfinite(f.test.width)}
    if not usable or pair.kind == "limit":  # there the temperature shifts all pulls
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
