"""The verdict of a whole check, as a notebook shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bilayer_orchestra.checking.comparison import Word
from bilayer_orchestra.checking.plan import CheckResult

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


class Verdict:
    """Whether all results of a check agree, and what was compared.

    Attributes
    ----------
    word : str
        ``"agree"``, ``"disagree"`` or ``"undecided"``.
    distance : int or None
        Distance up to which all agree; None without agreement or correlations.
    """

    def __init__(self, outcome: CheckResult) -> None:
        self._outcome = outcome
        self.word: Word = outcome.word
        self.distance = outcome.distance

    @property
    def reason(self) -> str:
        """Why, pair by pair of results."""
        return "; ".join(
            f"{pair.first} and {pair.second}: {pair.word}, {pair.reason}"
            for pair in self._outcome.verdicts
        )

    @property
    def results(self) -> dict[str, xr.Dataset]:
        """The results that were compared, by label."""
        return dict(self._outcome.results)

    @property
    def table(self) -> pd.DataFrame:
        """One row per observable of every pair of results."""
        import pandas as pd

        rows = [
            {
                "first": pair.first,
                "second": pair.second,
                "observable": finding.name,
                "verdict": finding.word,
                "p_value": finding.corrected_p,
                "distance": finding.distance,
                "noticed": finding.detectable,
                "reason": finding.reason,
            }
            for pair in self._outcome.verdicts
            for finding in pair.findings
        ]
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        """Return the word and why."""
        return f"{self.word.upper()}: {self.reason}"

    def _repr_html_(self) -> str:
        from html import escape

        table = self.table.to_html(index=False, escape=True, float_format="{:.3g}".format)
        return f"<p><b>{escape(self.word.upper())}</b> {escape(self.reason)}</p>{table}"
