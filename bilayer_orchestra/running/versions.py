"""The same request, solved by another version of its engine.

A version is part of a run's identity: numbers of different ones are never mixed. After an update
the stored result is named and offered, and nothing is computed again in silence.
"""

from __future__ import annotations

from pathlib import Path

from bilayer_orchestra.engines.base import Engine
from bilayer_orchestra.errors import OtherVersionError
from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.running.directory import RunDirectory, request_hash


def run_directory(
    root: Path, model: Model, engine: Engine, any_version: bool | None = False
) -> RunDirectory:
    """Return the directory of a request, which may be one of another version of the engine.

    Parameters
    ----------
    root : Path
        Directory that holds the run directories.
    model, engine
        The request.
    any_version : bool or None
        What to do if the result is there from another version alone: take it (True), compute again
        (False), or raise an error that names it (None; not where this version has begun already).

    Raises
    ------
    OtherVersionError
        If the choice is not made.
    """
    run = RunDirectory.for_request(root, model, engine)
    begun = run.record() is not None  # with this version, which was chosen then
    if any_version is False or run.finished or (any_version is None and begun):
        return run
    for other in sorted(root.glob(f"{model.name}-{engine.name}-*")):
        candidate = RunDirectory(other)
        record = candidate.record()
        if record is None or not candidate.finished or record.engine == engine.version():
            continue
        if request_hash(model, engine, record.engine) != record.hash:
            continue
        if any_version:
            return candidate
        raise OtherVersionError(
            f"{other} holds this point, computed with {record.engine}; --any-version takes it, "
            f"--this-version computes it again with {engine.version()} (in Python: any_version)"
        )
    return run
