"""What ALF says about its own run, in the file ``info``: acceptance and numerical precision."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import NamedTuple

from bilayer_orchestra.errors import EngineError

#: Largest difference between a Green function that was propagated and one computed anew.
MAX_PRECISION = 1e-6
#: Below this acceptance the chain hardly moves.
MIN_ACCEPTANCE = 0.05

_NUMBER = r"([-+]?(?:\d+\.?\d*(?:[ED][-+]?\d+)?|nan|inf\w*))"
_PATTERNS = {
    "precision": re.compile(rf"Precision \w+,? +(?:Mean, )?Max +:.*?{_NUMBER}\s*$", re.M | re.I),
    "acceptance": re.compile(rf"^ *Acceptance +: +{_NUMBER}", re.M | re.I),
    "dtau": re.compile(rf"Orchestra: dtau = +{_NUMBER}", re.M | re.I),
    "beta": re.compile(rf"Orchestra: beta = +{_NUMBER}", re.M | re.I),
}


class Health(NamedTuple):
    """Worst precision and lowest acceptance of one or more starts; None where not reported."""

    precision: float | None
    acceptance: float | None

    def worst(self, other: Health) -> Health:
        """Combine two."""
        precisions = [p for p in (self.precision, other.precision) if p is not None]
        acceptances = [a for a in (self.acceptance, other.acceptance) if a is not None]
        return Health(max(precisions, default=None), min(acceptances, default=None))


def read_info(path: Path, dtau: float) -> Health:
    """Read the file ``info`` of a segment.

    Raises
    ------
    EngineError
        If it is missing or belongs to another time step.
    """
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        raise EngineError(f"{path} is missing: {error.strerror}") from error
    found = {name: _values(pattern, text) for name, pattern in _PATTERNS.items()}
    for value in found["dtau"]:
        if abs(value - dtau) > 1e-9 * dtau:
            raise EngineError(f"{path} is of a run with dtau = {value:g}, this step has {dtau:g}")
    return Health(max(found["precision"], default=None), min(found["acceptance"], default=None))


def _values(pattern: re.Pattern[str], text: str) -> list[float]:
    values = [float(match.replace("D", "E").replace("d", "e")) for match in pattern.findall(text)]
    return [math.inf if math.isnan(value) else value for value in values]
