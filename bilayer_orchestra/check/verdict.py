"""From two results to a verdict: agree, disagree, or undecided."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import xarray as xr

from bilayer_orchestra.check.elements import elements_of
from bilayer_orchestra.check.statistics import Test, compare
from bilayer_orchestra.check.systematics import systematic_terms, unestimated
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.observables import OBSERVABLES

Word = Literal["agree", "disagree", "undecided"]

#: False-alarm rate of the whole comparison of two results.
LEVEL = 0.01
#: A comparison that would not notice this relative deviation cannot say "agree".
WEAKEST = 0.2


@dataclass(frozen=True)
class Finding:
    """One observable: its test, what may be systematic in it, and the word for it."""

    name: str
    word: Word
    reason: str
    test: Test
    worst_label: str
    corrected_p: float
    systematics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The comparison of two results."""

    first: str
    second: str
    word: Word
    reason: str
    findings: list[Finding]


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
    return "they solve different models (couplings, boundary, length, filling or temperature)"


def judge(a: xr.Dataset, b: xr.Dataset, level: float = LEVEL) -> Verdict:
    """Compare every observable that both results have.

    The p-values of the observables are corrected by Holm's method: the chance that two results
    which agree are called different is at most ``level``, whatever the observables have in common.

    Raises
    ------
    OrchestraError
        If the two results must not be compared.
    """
    why_not = incomparable(a, b)
    if why_not:
        raise OrchestraError(f"these results cannot be compared: {why_not}")
    names = [name for name in OBSERVABLES if name in a and name in b]
    tests, systematics, labels = {}, {}, {}
    for name in names:
        one, other = elements_of(a, name), elements_of(b, name)
        terms = {
            f"{what} ({dataset.attrs['backend']})": size
            for dataset, elements in ((a, one), (b, other))
            for what, size in systematic_terms(dataset, elements).items()
        }
        systematics[name] = terms
        allowance = sum((np.nan_to_num(size) for size in terms.values()), np.zeros(len(one.values)))
        tests[name] = compare(one, other, allowance, level / len(names))
        labels[name] = one.labels
    corrected = holm({name: test.p_value for name, test in tests.items()})
    findings = []
    for name in names:
        word, reason = _word(tests[name], corrected[name], level, unestimated(systematics[name]))
        largest = {
            what: float(np.nanmax(size))
            for what, size in systematics[name].items()
            if not np.isnan(size).all()
        }
        findings.append(
            Finding(
                name,
                word,
                reason,
                tests[name],
                labels[name][tests[name].worst],
                corrected[name],
                largest,
            )
        )
    word, reason = _overall(a, b, findings)
    return Verdict(a.attrs["backend"], b.attrs["backend"], word, reason, findings)


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """Correct p-values for their number (S. Holm, Scand. J. Stat. 6, 65 (1979))."""
    corrected: dict[str, float] = {}
    running = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[name]))
        corrected[name] = running
    return corrected


def _word(test: Test, p_value: float, level: float, unknown: list[str]) -> tuple[Word, str]:
    if p_value < level:
        if unknown:
            return "undecided", f"differs, but {', '.join(unknown)} is not estimated"
        return "disagree", f"p = {p_value:.1e}"
    if test.detectable > WEAKEST:
        return "undecided", (
            f"errors are too large: a deviation below {100 * test.detectable:.0f} % is not noticed"
        )
    if unknown:
        return "undecided", f"{', '.join(unknown)} is not estimated"
    return "agree", f"would have noticed {100 * test.detectable:.2g} %"


def _overall(a: xr.Dataset, b: xr.Dataset, findings: list[Finding]) -> tuple[Word, str]:
    unsure = [d.attrs["backend"] for d in (a, b) if not d.attrs["converged"]]
    by_word = {
        word: [finding.name for finding in findings if finding.word == word]
        for word in ("agree", "disagree", "undecided")
    }
    if by_word["disagree"]:
        if unsure:
            return "undecided", (
                f"{', '.join(by_word['disagree'])} differ, "
                f"but {' and '.join(unsure)} did not converge"
            )
        return "disagree", ", ".join(by_word["disagree"])
    if unsure:
        return "undecided", f"{' and '.join(unsure)} did not converge"
    if by_word["undecided"]:
        return "undecided", ", ".join(by_word["undecided"])
    return "agree", f"{len(findings)} observables"
