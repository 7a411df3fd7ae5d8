"""The chains of a job directory: which segments are complete, whether they fit, how they ran.

``job/dtau-<k>/chain-<c>/seg-<nnnn>``; a segment becomes complete by rename, so ``seg-*.part`` is
unfinished and ignored. What ALF says about its own run, acceptance and numerical precision, is in
the file ``info`` of each.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bilayer_orchestra.analysis.estimates import ROUNDING
from bilayer_orchestra.engines.alf.bins import Bins, Segment, open_segment
from bilayer_orchestra.errors import EngineError
from bilayer_orchestra.terms import FloatArray

#: What is measured in every bin: energies and the number of particles.
SCALARS = ("Kin_scal", "Pot_scal", "Part_scal")
#: Bins in a row whose agreement is no accident.
ALIKE = 8

_SEGMENT = re.compile(r"seg-(\d+)")
_NUMBER = r"([-+]?(?:\d+\.?\d*(?:[ED][-+]?\d+)?|nan|inf\w*))"
_PATTERNS = {
    "precision": re.compile(rf"Precision \w+,? +(?:Mean, )?Max +:.*?{_NUMBER}\s*$", re.M | re.I),
    "acceptance": re.compile(rf"^ *Acceptance +: +{_NUMBER}", re.M | re.I),
    "dtau": re.compile(rf"Orchestra: dtau = +{_NUMBER}", re.M | re.I),
}


@dataclass(frozen=True)
class Chain:
    """One Markov chain: its complete segments in order."""

    path: Path
    segments: tuple[Segment, ...]

    @property
    def bins(self) -> int:
        """Number of bins in all segments."""
        return sum(segment.bins for segment in self.segments)

    def chunks(self, name: str) -> Iterator[Bins]:
        """Yield the bins of all segments, in chunks."""
        for segment in self.segments:
            yield from segment.chunks(name)

    @cached_property
    def scalars(self) -> dict[str, Bins]:
        """All bins of :data:`SCALARS`."""
        return {
            name: Bins(*(np.concatenate(parts) for parts in zip(*self.chunks(name), strict=True)))
            for name in SCALARS
        }

    @property
    def sign(self) -> FloatArray:
        """Sign of every bin, the same in all files."""
        return self.scalars["Kin_scal"].sign


class Health(NamedTuple):
    """Worst precision and lowest acceptance of one or more starts; NaN where not reported."""

    precision: float
    acceptance: float


def read_job(directory: Path) -> dict[str, Any]:
    """Return ``job.json``.

    Raises
    ------
    EngineError
        If it is missing or damaged.
    """
    path = directory / "job.json"
    try:
        job: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise EngineError(f"{path} is missing or damaged: {error}") from error
    return job


def find_chains(step: Path, n_sites: int) -> list[Chain]:
    """Return the chains of one time step that have at least one complete segment.

    Raises
    ------
    EngineError
        If a segment in the middle of a chain is missing, or bins are there twice.
    """
    chains = []
    for path in sorted(step.glob("chain-*"), key=lambda path: int(path.name.rpartition("-")[2])):
        numbered = sorted(
            (int(match[1]), p) for p in path.iterdir() if (match := _SEGMENT.fullmatch(p.name))
        )
        for expected, (number, _) in enumerate(numbered, start=1):
            if number != expected:
                raise EngineError(f"{path}: segment {expected} is missing, {number} is there")
        if numbered:
            chains.append(Chain(path, tuple(open_segment(p, n_sites) for _, p in numbered)))
    _refuse_repeated_bins(chains)
    return chains


def _refuse_repeated_bins(chains: Iterable[Chain]) -> None:
    """Refuse chains or segments that begin alike: the same seed, or a lost checkpoint.

    Continuous energies never agree to the last digit by chance, :data:`ALIKE` bins in a row not
    even where few configurations exist. What does not fluctuate at all is no evidence.
    """
    seen: dict[bytes, Path] = {}
    for chain in chains:
        first = 0
        for segment in chain.segments:
            start = chain.scalars["Kin_scal"].values[first : first + ALIKE]
            first += segment.bins
            still = ROUNDING * max(1.0, float(np.abs(start).max(initial=0.0)))
            if len(start) < ALIKE or np.ptp(start) <= still:
                continue
            earlier = seen.setdefault(start.tobytes(), segment.path)
            if earlier != segment.path:
                raise EngineError(
                    f"{segment.path} repeats the bins of {earlier}: the same seed was used twice "
                    "or a chain was restarted without its checkpoint"
                )


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
