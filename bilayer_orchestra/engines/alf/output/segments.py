"""The chains of a job directory: which segments are complete, and whether they fit together.

``job/dtau-<k>/chain-<c>/seg-<nnnn>``; a segment becomes complete by rename, so ``seg-*.part`` is
unfinished and ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bilayer_orchestra.analysis.estimates import ROUNDING
from bilayer_orchestra.engines.alf.output.bins import Matrices, Segment, open_segment
from bilayer_orchestra.errors import EngineError
from bilayer_orchestra.terms import FloatArray

_SEGMENT = re.compile(r"seg-(\d+)")
#: Bins in a row whose agreement is no accident.
ALIKE = 8


@dataclass(frozen=True)
class Chain:
    """One Markov chain: its complete segments in order."""

    path: Path
    segments: tuple[Segment, ...]

    @property
    def bins(self) -> int:
        """Number of bins in all segments."""
        return sum(segment.bins for segment in self.segments)

    def matrices(self, name: str) -> Iterator[Matrices]:
        """Yield the bins of all segments, in chunks."""
        for segment in self.segments:
            yield from segment.matrices(name)


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
        If a segment in the middle of a chain is missing.
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
    return chains


def refuse_repeated_bins(energies: dict[Path, FloatArray]) -> None:
    """Refuse chains or segments that begin alike: the same seed, or a lost checkpoint.

    Continuous numbers never agree to the last digit by chance, :data:`ALIKE` bins in a row not even
    where few configurations exist. What does not fluctuate at all is no evidence.

    Parameters
    ----------
    energies : dict
        Path of a chain, or of a later segment of one -> the energy of every bin in it.
    """
    seen: dict[bytes, Path] = {}
    for path, values in energies.items():
        start = values[:ALIKE]
        if len(start) < ALIKE or np.ptp(start) <= ROUNDING * max(1.0, float(np.abs(start).max())):
            continue
        earlier = seen.setdefault(start.tobytes(), path)
        if earlier != path:
            raise EngineError(
                f"{path} repeats the bins of {earlier}: the same seed was used twice or a chain "
                "was restarted without its checkpoint"
            )
