"""Submit the points of a study that are missing to a queue."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

from bilayer_orchestra.running.point import refuse_search, set_aside
from bilayer_orchestra.running.queued import (
    QUEUED_SEARCH,
    known_states,
    label_computed,
    placed,
    submit,
)
from bilayer_orchestra.runtimes.slurm.runtime import Chunk, SlurmRuntime
from bilayer_orchestra.runtimes.slurm.script import task_script
from bilayer_orchestra.study.load import LoadedStudy
from bilayer_orchestra.study.tasks import Task, make_tasks, split_by_owner, study_root


def submit_study(
    study: LoadedStudy,
    root: Path,
    runtime: SlurmRuntime,
    say: Callable[[str], None],
    dry_run: bool = False,
    any_version: bool | None = None,
) -> None:
    """Submit the points that are neither finished nor in the queue.

    Parameters
    ----------
    study : LoadedStudy
        The study.
    root : Path
        Directory of the runs.
    runtime : SlurmRuntime
        Where they shall run.
    say : callable
        Receives lines for the user.
    dry_run : bool
        Say what would be submitted; change nothing.
    any_version : bool, optional
        See :func:`bilayer_orchestra.running.versions.run_directory`.
    """
    tasks = make_tasks(study, root, runtime, any_version)
    for task in tasks:
        refuse_search(task.model, QUEUED_SEARCH)
    ours, others = split_by_owner(tasks)
    for task in [] if dry_run else ours:
        if not task.run.finished and task.run.result.exists():
            say(f"{task.name}: {set_aside(task.run)}")
    known = {} if dry_run else label_computed(tasks)
    known |= known_states({task.name: task.run for task in tasks if task.name not in known})
    say(_counts(tasks, known))
    for line in others:
        say(line)
    todo, busy = _missing(ours, known)
    for task in busy:
        may = "may compute" if known[task.name][0] == "unknown" else "computes"
        say(f"not submitted, another process {may} it: {task.name}: {task.run.path}")
    if not todo:
        say("nothing to submit")
        return
    chunks = runtime.plan([placed(task, runtime) for task in todo], root, study.name)
    if dry_run:
        _show(chunks, todo, runtime, say)
        return
    for chunk in chunks:
        number, points = submit(chunk, todo, runtime)
        say(f"job {number}: {len(points)} points in {len(chunk.packs)} tasks, {chunk.directory}")
    say(f"then      orchestra status {shlex.quote(str(root))}")
    words = ["orchestra", "collect", str(study.path), "--runtime", runtime.name]
    words += ["--site", runtime.site.source] if runtime.site.source else []
    words += ["--output", str(root)] if root != study_root(study, None) else []
    say(f"          {shlex.join(words)}")


def _missing(
    tasks: list[Task], known: Mapping[str, tuple[str, str]]
) -> tuple[list[Task], list[Task]]:
    """Return the tasks to submit, each run once, and those that another process computes."""
    todo: list[Task] = []
    busy: list[Task] = []
    seen = set()
    for task in tasks:
        state, _ = known[task.name]
        started = state in ("finished", "running") or (state == "pending" and _queued(task))
        if not started and task.run.path not in seen:
            seen.add(task.run.path)
            # such as a run here, or an engine that outlived its job: no point is computed twice
            (busy if state == "unknown" or task.run.in_use() else todo).append(task)
    return todo, busy


def _show(
    chunks: list[Chunk], todo: list[Task], runtime: SlurmRuntime, say: Callable[[str], None]
) -> None:
    """Say what would be submitted: every job, every point, the script of one point."""
    names = {task.run.path: task.name for task in todo}
    for chunk in chunks:
        say(f"# {shlex.join(chunk.command)}\n{runtime.batch_script(chunk)}")
        for index, pack in enumerate(chunk.packs):
            for one in pack:
                say(f"# array task {index}: {names[one.run]}: {one.run}")
    first = chunks[0].packs[0][0]
    say(f"# task.sh of {names[first.run]}, which batch.sh starts:")
    say(task_script(first, runtime.site))
    arrays = sum(len(chunk.packs) for chunk in chunks)
    say(f"# not submitted: {len(todo)} points in {arrays} tasks of {len(chunks)} jobs")


#: States in the order in which they are counted.
_WORDS = ("finished", "running", "pending", "failed", "unknown")
#: What is said of a point that nobody submitted.
_UNKNOWN = "not submitted yet"


def _counts(tasks: list[Task], known: Mapping[str, tuple[str, str]]) -> str:
    """Return how many points are in which state; what nobody has submitted does not wait."""
    words = []
    for task in tasks:
        state, _ = known[task.name]
        words.append(_UNKNOWN if state == "pending" and not _queued(task) else state)
    shown = [word for word in (*_WORDS, _UNKNOWN) if word in words]
    return ", ".join(f"{words.count(word)} {word}" for word in shown)


def _queued(task: Task) -> bool:
    record = task.run.record()
    return bool(record and record.job)
