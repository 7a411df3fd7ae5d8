"""Label what was computed on compute nodes, and know the state of the rest."""

from __future__ import annotations

from bilayer_orchestra.errors import EngineError
from bilayer_orchestra.running.directory import Record, RunDirectory, State
from bilayer_orchestra.running.point import run_point
from bilayer_orchestra.runtimes.local import LocalRuntime
from bilayer_orchestra.runtimes.slurm.markers import forget_markers, read_marker
from bilayer_orchestra.runtimes.slurm.queue import Queue, ask_accounting, ask_queue
from bilayer_orchestra.runtimes.slurm.state import submitted_state
from bilayer_orchestra.study.tasks import Task


def label_executed(tasks: list[Task]) -> dict[str, tuple[str, str]]:
    """Turn what was computed into results; return (state, message) of every other task."""
    failures: dict[str, tuple[str, str]] = {}
    for task in tasks:
        marker = read_marker(task.run.path)
        record = task.run.record()
        if task.run.finished or marker is None or not marker.done or record is None:
            continue
        if task.run.foreign:
            continue  # its owner labels it
        place = {key: value for key, value in (record.place or {}).items() if key != "submission"}
        place |= {"runtime": "slurm", "host": marker.host, "job": marker.job}
        if task.run.executed() is None:  # else a collect was interrupted after it had noted this
            task.run.mark_executed(place)
        try:
            run_point(task.point.model, task.backend, LocalRuntime(), task.run.path.parent)
        except EngineError as error:
            forget_markers(task.run.path)  # the next sweep computes it again
            failures[task.name] = ("failed", str(error))
    runs = {task.name: task.run for task in tasks if not task.run.finished}
    return {**states_of(runs), **failures}


def states_of(runs: dict[str, RunDirectory]) -> dict[str, tuple[str, str]]:
    """Return (state, message) of runs by name: one call to the scheduler for all of them."""
    records = {name: run.record() for name, run in runs.items()}
    queue: Queue | None = None
    accounting: dict[str, str] | None = None
    states: dict[str, tuple[str, str]] = {}
    for name, run in runs.items():
        record = records[name]
        if not waits_for_slurm(run, record):
            states[name] = run.status()
            continue
        assert record is not None
        users = {run.path.stat().st_uid for name, run in runs.items() if records[name]}
        queue = queue or ask_queue(users=users)
        job = record.job or ""
        if queue.problem is None and job not in queue.tasks and accounting is None:
            accounting = ask_accounting([r.job for r in records.values() if r and r.job])
        state, message = submitted_state(run, record, queue, accounting)
        states[name] = (state, run.attributed(message))
    return states


def waits_for_slurm(run: RunDirectory, record: Record | None) -> bool:
    """Return whether Slurm had the last word on a run: submitted, and not labelled since."""
    state: State | None = record.state if record else None
    return bool(record and record.job and state == "pending" and not run.finished)
