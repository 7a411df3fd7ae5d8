"""What ALF says about its own run, in the file ``info``: acceptance and numerical precision."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
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
}


class Health(NamedTuple):
    """Worst precision and lowest acceptance of one or more starts; NaN where not reported."""

    precision: float
    acceptance: float


def read_info(segments: Iterable[Path], dtau: float | None = None) -> Health:
    """Return the worst that the files ``info`` of segments report; see whether they have ``dtau``.

    Raises
    ------
    EngineError
        If one is missing or belongs to another time step.
    """
    precisions, acceptances = [], []
    for path in (segment / "info" for segment in segments):
        try:
            text = path.read_text(errors="replace")
        except OSError as error:
            raise EngineError(f"{path} is missing: {error.strerror}") from error
        for value in _values("dtau", text):
            if dtau is not None and abs(value - dtau) > 1e-9 * dtau:
                raise EngineError(
                    f"{path} is of a run with dtau = {value:g}, this step has {dtau:g}"
                )
        precisions += _values("precision", text)
        acceptances += _values("acceptance", text)
    return Health(max(precisions, default=math.nan), min(acceptances, default=math.nan))


def _values(name: str, text: str) -> list[float]:
    found = (match.upper().replace("D", "E") for match in _PATTERNS[name].findall(text))
    return [math.inf if math.isnan(value) else value for value in map(float, found)]
