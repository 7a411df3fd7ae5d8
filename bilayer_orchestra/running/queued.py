"""Points that a queue computes: submitted now, labelled by whoever asks later."""

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bilayer_orchestra.engines.base import Engine
from bilayer_orchestra.errors import EngineError, OrchestraError, RunBusyError
from bilayer_orchestra.machine import cores
from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.running.directory import Record, RunDirectory, State
from bilayer_orchestra.running.point import (
    Outcome,
    Runner,
    make_request,
    refuse_search,
    run_point,
    stored,
)
from bilayer_orchestra.running.watch import was_watched
from bilayer_orchestra.runtimes.slurm.runtime import Chunk, PlacedJob, SlurmRuntime, computed
from bilayer_orchestra.runtimes.slurm.state import Submitted, forget_markers, states_of

#: Seconds between two looks at a submitted point: a scheduler is not asked more often.
LOOK = 10.0


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
    """Return the rendered job of a point; writes nothing.

    Raises
    ------
    OrchestraError
        If it takes several runs.
    """
    remedy = "run it without a queue's runtime within a job of its own"
    refuse_search(point.model, f"{remedy}, or give the chemical potentials")
    request = make_request(point.model, point.engine)
    with cores(runtime.site.point_cpus):
        job = point.engine.render(request)
    watched = point.engine.has_target(request)
    watch = ("-P", "-m", "bilayer_orchestra.running.watch", ".") if watched else ()
    return PlacedJob(point.run.path, job, point.engine.tools(), watch)


def submit(chunk: Chunk, points: Sequence[QueuedPoint], runtime: SlurmRuntime) -> str:
    """Submit one array job and record it in every run; return its number.

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
    with contextlib.ExitStack() as locks:
        for one in chunk.jobs:
            try:
                locks.enter_context(by_path[one.run].run.locked(wait=False))
            except RunBusyError as error:
                raise OrchestraError(
                    f"another process took {one.run} just now; nothing of this job was "
                    "submitted, the same command submits the rest"
                ) from error
        for one in chunk.jobs:
            by_path[one.run].run.write_job(one.job, by_path[one.run].model.to_yaml())
        number = runtime.submit(chunk)
        for index, one in ((k, one) for k, pack in enumerate(chunk.packs) for one in pack):
            point, job = by_path[one.run], f"{number}_{index}"
            record = replace(
                Record.begun(point.model, point.engine),
                state="pending",
                message=f"submitted as job {job}",
                pid=None,
                job=job,
                place={
                    "runtime": runtime.name,
                    "submission": os.path.relpath(chunk.directory, one.run.parent),
                    **one.tools.image_facts(),
                },
            )
            point.run.forget_execution()
            point.run.write_record(record)
    return number


def label_computed(points: Sequence[QueuedPoint]) -> dict[str, tuple[State, str]]:
    """Turn what was computed into results; return (state, message) of every point by name."""
    failures: dict[str, tuple[State, str]] = {}
    for point in points:
        run, record, facts = point.run, point.run.record(), computed(point.run.path)
        # another user's is labelled by its owner
        if run.finished or run.foreign or facts is None or record is None:
            continue
        place = {key: value for key, value in (record.place or {}).items() if key != "submission"}
        if run.executed() is None:  # else this was interrupted after it had noted that
            run.mark_executed(place | facts | {"watched": str(int(was_watched(run)))})
        try:
            run_point(point.model, point.engine, Runner(run.path.parent))
        except EngineError as error:
            forget_markers(run.path)  # the next submission computes it again
            failures[point.name] = ("failed", str(error))
    return {**known_states({point.name: point.run for point in points}), **failures}


def known_states(runs: dict[str, RunDirectory]) -> dict[str, tuple[State, str]]:
    """Return (state, message) of runs by name: one call to the scheduler for all of them."""
    states = {name: run.status() for name, run in runs.items()}
    submitted: dict[str, Submitted] = {}
    for name, run in runs.items():
        record = run.record()
        if record and record.job and record.state == "pending" and not run.finished:
            folder = (record.place or {}).get("submission")
            place = None if folder is None else run.path.parent / folder
            submitted[name] = Submitted(run.path, record.job, place, run.foreign is not None)
    found = states_of(list(submitted.values()))
    for name, (state, message) in zip(submitted, found, strict=True):
        states[name] = state, runs[name].attributed(message)
    return states


def run_queued(point: QueuedPoint, runner: Runner, detach: bool = False) -> Outcome | None:
    """Submit one point, or find what became of it.

    Parameters
    ----------
    point : QueuedPoint
        The point.
    runner : Runner
        Its runtime is the queue; is told the point's state whenever it changes.
    detach : bool
        Whether to return None until the result is there, instead of waiting for it.

    Raises
    ------
    EngineError
        If it failed in the queue while we waited.
    """
    runtime, submitted, said = runner.runtime, False, ""
    assert isinstance(runtime, SlurmRuntime)
    while (found := stored(point.run)) is None:
        state, message = label_computed([point])[point.name]
        if state == "finished" and point.run.finished:
            continue
        record = point.run.record()
        if state in ("running", "pending") and record is not None and record.job:
            line = f"{state}  {message}"
            if line != said:
                runner.tell(line)
                said = line
            if detach:
                return None
            time.sleep(LOOK)
        elif submitted:
            raise EngineError(message)
        else:
            (chunk,) = runtime.plan([placed(point, runtime)], point.run.path.parent, point.name)
            number, submitted = submit(chunk, [point], runtime), True
            runner.tell(f"submitted as job {number}")
    return replace(found, reused=not submitted)
