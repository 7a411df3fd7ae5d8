"""Points that a queue computes: submitted now, labelled by whoever asks later."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bilayer_orchestra.engines.base import Engine
from bilayer_orchestra.errors import EngineError, OrchestraError, RunBusyError
from bilayer_orchestra.machine import cores
from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.running.directory import Record, RunDirectory, State, started_record
from bilayer_orchestra.running.point import Outcome, make_request, refuse_search, run_point, stored
from bilayer_orchestra.running.watch import was_watched
from bilayer_orchestra.runtimes.base import PlacedJob, Submitted, image_facts
from bilayer_orchestra.runtimes.local import LocalRuntime
from bilayer_orchestra.runtimes.slurm.runtime import Chunk, SlurmRuntime, computed
from bilayer_orchestra.runtimes.slurm.state import forget_markers, states_of

#: Seconds between two looks at a submitted point: a scheduler is not asked more often.
LOOK = 10.0
QUEUED_SEARCH = (
    "run it without a queue's runtime within a job of its own, or give the chemical potentials"
)


@dataclass(frozen=True)
class QueuedPoint:
    """One point that a queue may compute.

    Parameters
    ----------
    name : str
        What it is called in messages.
    model : Model
        The point.
    engine : Engine
        As the runtime has it.
    run : RunDirectory
        Where it is, or will be, on disk.
    """

    name: str
    model: Model
    engine: Engine
    run: RunDirectory


def placed(point: QueuedPoint, runtime: SlurmRuntime) -> PlacedJob:
    """Return the rendered job of a point; writes nothing."""
    request = make_request(point.model, point.engine)
    with cores(runtime.site.point_cpus):
        job = point.engine.render(request)
    watched = point.engine.has_target(request)
    watch = ("-P", "-m", "bilayer_orchestra.running.watch", ".") if watched else ()
    return PlacedJob(point.run.path, job, point.engine.tools(), watch)


def submit(
    chunk: Chunk, points: Sequence[QueuedPoint], runtime: SlurmRuntime
) -> tuple[str, list[QueuedPoint]]:
    """Submit one array job and record it in every run; return its number and its points.

    Parameters
    ----------
    chunk : Chunk
        The array job.
    points : sequence of QueuedPoint
        At least those that it computes.
    runtime : SlurmRuntime
        Where it is submitted.

    Raises
    ------
    OrchestraError
        With what the scheduler said, or if another process took one of the points meanwhile.
    """
    by_path = {point.run.path: point for point in points}
    ours = [by_path[one.run] for pack in chunk.packs for one in pack]
    with _held(ours):
        for pack in chunk.packs:
            for one in pack:
                by_path[one.run].run.write_job(one.job, by_path[one.run].model.to_yaml())
        number = runtime.submit(chunk)
        for index, pack in enumerate(chunk.packs):
            for one in pack:
                folder = os.path.relpath(chunk.directory, one.run.parent)
                place = {"runtime": runtime.name, "submission": folder, **image_facts(one.tools)}
                _record(by_path[one.run], f"{number}_{index}", place)
    return number, ours


def label_computed(points: Sequence[QueuedPoint]) -> dict[str, tuple[State, str]]:
    """Turn what was computed into results; return (state, message) of every other point by name."""
    failures: dict[str, tuple[State, str]] = {}
    for point in points:
        run, record, facts = point.run, point.run.record(), computed(point.run.path)
        if run.finished or facts is None or record is None:
            continue
        if run.foreign:
            continue  # its owner labels it
        place = {key: value for key, value in (record.place or {}).items() if key != "submission"}
        if run.executed() is None:  # else this was interrupted after it had noted that
            run.mark_executed(place | facts | {"watched": str(int(was_watched(run)))})
        try:
            run_point(point.model, point.engine, LocalRuntime(), run.path.parent)
        except EngineError as error:
            forget_markers(run.path)  # the next submission computes it again
            failures[point.name] = ("failed", str(error))
    left = {point.name: point.run for point in points if not point.run.finished}
    return {**known_states(left), **failures}


def known_states(runs: dict[str, RunDirectory]) -> dict[str, tuple[State, str]]:
    """Return (state, message) of runs by name: one call to the scheduler for all of them."""
    records = {name: run.record() for name, run in runs.items()}
    waiting = {
        name: _submitted(runs[name], record)
        for name, record in records.items()
        if record and record.job and record.state == "pending" and not runs[name].finished
    }
    found = dict(zip(waiting, states_of(list(waiting.values())), strict=True))
    return {
        name: (found[name][0], run.attributed(found[name][1])) if name in found else run.status()
        for name, run in runs.items()
    }


def run_queued(
    point: QueuedPoint,
    runtime: SlurmRuntime,
    on_progress: Callable[[str], None] = lambda line: None,
    wait: bool = True,
) -> Outcome | None:
    """Submit one point, or find what became of it.

    Parameters
    ----------
    on_progress : callable
        Receives its state whenever it changes.
    wait : bool
        Whether to wait for the result; else None is returned until it is there.

    Raises
    ------
    EngineError
        If it failed in the queue while we waited.
    """
    refuse_search(point.model, QUEUED_SEARCH)
    submitted = False
    said = ""
    while (found := stored(point.run)) is None:
        state, message = label_computed([point]).get(point.name, ("finished", ""))
        if state == "finished" and point.run.finished:
            continue
        record = point.run.record()
        if state in ("running", "pending") and record is not None and record.job:
            line = f"{state}  {message}"
            if line != said:
                on_progress(line)
                said = line
            if not wait:
                return None
            time.sleep(LOOK)
        elif submitted:
            raise EngineError(message)
        else:
            (chunk,) = runtime.plan([placed(point, runtime)], point.run.path.parent, point.name)
            number, _ = submit(chunk, [point], runtime)
            submitted = True
            on_progress(f"submitted as job {number}")
    return replace(found, reused=not submitted)


def _submitted(run: RunDirectory, record: Record) -> Submitted:
    folder = (record.place or {}).get("submission")
    place: Path | None = None if folder is None else run.path.parent / folder
    return Submitted(run.path, record.job or "", place, run.foreign is not None)


def _record(point: QueuedPoint, job: str, place: dict[str, str]) -> None:
    point.run.forget_execution()
    record = started_record(point.model, point.engine)
    message = f"submitted as job {job}"
    point.run.write_record(
        replace(record, state="pending", message=message, job=job, place=place, pid=None)
    )


@contextlib.contextmanager
def _held(points: Sequence[QueuedPoint]) -> Iterator[None]:
    """Hold the lock of every point while its directory is written and its job is recorded."""
    with contextlib.ExitStack() as stack:
        for point in points:
            try:
                stack.enter_context(point.run.locked(wait=False))
            except RunBusyError as error:
                raise OrchestraError(
                    f"another process took {point.run.path} just now; nothing of this job was "
                    "submitted, the same command submits the rest"
                ) from error
        yield
