"""Files between the orchestrator and the engines that are written in Python.

An engine process reads ``job.json``, appends to ``progress.jsonl`` and leaves ``output.npz``,
which appears by rename, complete or not at all.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from bilayer_orchestra.errors import EngineError, OrchestraError
from bilayer_orchestra.files import replacing
from bilayer_orchestra.terms import FloatArray, Terms

JOB, PROGRESS, OUTPUT = "job.json", "progress.jsonl", "output.npz"
#: The state of another run, in the job's directory, from which a search may begin.
START = "start"


def render_job(terms: Terms, observables: tuple[str, ...], settings: dict[str, Any]) -> str:
    """Return the text of ``job.json``.

    Parameters
    ----------
    terms : Terms
        The model, in the units of energy that the process is to use.
    observables : tuple of str
        What is wished for.
    settings : dict
        What else the process has to know, as JSON holds it.
    """
    job = {"terms": terms.to_dict(), "observables": list(observables), "settings": settings}
    return json.dumps(job, indent=1) + "\n"


def read_job(directory: Path) -> tuple[Terms, tuple[str, ...], dict[str, Any]]:
    """Return (terms, observables, settings) from ``job.json``."""
    job = json.loads((directory / JOB).read_text())
    return Terms.from_dict(job["terms"]), tuple(job["observables"]), job["settings"]


def solve_from_command_line(name: str, solve: Callable[[Path], None]) -> None:
    """Solve the job in the directory that the command line names; a failure ends with one line.

    Parameters
    ----------
    name : str
        The engine's, for the message.
    solve : callable
        Receives the directory.
    """
    try:
        solve(Path(sys.argv[1]))
    except (OrchestraError, MemoryError) as error:
        sys.exit(f"{name}: {error or 'out of memory'}")


def report(directory: Path, **event: Any) -> None:
    """Append one progress event."""
    with (directory / PROGRESS).open("a") as stream:
        stream.write(json.dumps(event) + "\n")


def new_events(directory: Path, places: dict[Path, int]) -> list[dict[str, Any]]:
    """Return the complete progress events that were not read before.

    Parameters
    ----------
    places : dict
        How many bytes of the events in each directory were read; is updated.
    """
    place = places.setdefault(directory, 0)
    try:
        with (directory / PROGRESS).open("rb") as stream:
            if stream.seek(0, os.SEEK_END) < place:
                place = 0  # another file
            stream.seek(place)
            lines = stream.read().split(b"\n")[:-1]  # the last piece may be half-written
        events = [json.loads(line) for line in lines]
    except (OSError, ValueError):
        return []
    places[directory] = place + sum(len(line) + 1 for line in lines)
    return events


def start_event(directory: Path) -> dict[str, Any] | None:
    """Return what the engine said of the state that was left for it; None if it said nothing.

    ``step`` is ``"begun"``, or ``"ignored"`` with a ``problem``.
    """
    events = (e for e in new_events(directory, {}) if e["step"] in ("begun", "ignored"))
    return next(events, None)


def save_arrays(path: Path, **arrays: Any) -> None:
    """Write an npz file by rename, so that it is complete when it is there."""
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)


def load_arrays(path: Path) -> dict[str, FloatArray]:
    """Read an npz file.

    Raises
    ------
    EngineError
        If it is missing or damaged.
    """
    try:
        # opened here: numpy does not close a file that turns out to be no archive
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, KeyError, BadZipFile) as error:
        raise EngineError(f"{path} is missing or damaged: {error}") from error
