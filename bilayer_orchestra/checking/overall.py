"""The verdict of a whole check: all its pairs of results, as programs and notebooks get it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bilayer_orchestra.checking.comparison import Word
from bilayer_orchestra.checking.ladder import Ladder
from bilayer_orchestra.checking.verdict import PairVerdict
from bilayer_orchestra.model.spec import Model

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


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
        words = {verdict.word for verdict in self.verdicts}
        if "disagree" in words:
            return "disagree"
        return "agree" if words == {"agree"} else "undecided"

    @property
    def distance(self) -> int | None:
        """Distance up to which all results agree; None without agreement or correlations."""
        if self.word != "agree":
            return None
        reached = [v.distance for v in self.verdicts if v.distance is not None]
        return min(reached, default=None)

    @property
    def reason(self) -> str:
        """Why, pair by pair of results."""
        return "; ".join(
            f"{pair.first} and {pair.second}: {pair.word}, {pair.reason}" for pair in self.verdicts
        )

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
            for pair in self.verdicts
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
