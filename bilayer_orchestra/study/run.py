"""A whole study: run or submit what is missing, combine what is there, store it.

A point that fails does not stop the others.
"""

import contextlib
import functools
import os
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from bilayer_orchestra.dataset.schema import write_atomic
from bilayer_orchestra.display import Output, PointsShown, points_shown
from bilayer_orchestra.errors import Interrupted, OrchestraError
from bilayer_orchestra.files import make_directory, other_owner
from bilayer_orchestra.images.use import image_table
from bilayer_orchestra.running.point import Runner, set_aside, stored
from bilayer_orchestra.running.published import make_room, of_study, owner
from bilayer_orchestra.running.queued import known_states, label_computed, placed, submit
from bilayer_orchestra.runtimes.local import LocalRuntime
from bilayer_orchestra.runtimes.registry import get_runtime
from bilayer_orchestra.runtimes.slurm.runtime import Chunk, SlurmRuntime, task_script
from bilayer_orchestra.study.collect import Collected, collect
from bilayer_orchestra.study.load import LoadedStudy
from bilayer_orchestra.study.tasks import AbsentEngine, Task, make_tasks, split_by_owner
from bilayer_orchestra.tuning.point import run_model

#: States in which nothing is left to do for a queue.
_STARTED = ("finished", "running", "pending")
#: What is said of a point that nobody submitted.
_NOT_SUBMITTED = "not submitted yet"
#: States in the order in which they are counted.
_WORDS = (*_STARTED, "failed", "unknown", _NOT_SUBMITTED)


def study_runner(
    study: LoadedStudy,
    output: str | Path | None = None,
    runtime: str | None = None,
    site: str | None = None,
    images: Sequence[str] = (),
    any_version: bool | None = None,
) -> Runner:
    """Return where and how the points of a study run.

    Parameters
    ----------
    study : LoadedStudy
        The study.
    output : path, optional
        Directory of the runs; default: that of the base model.
    runtime, site : str, optional
        The runtime and the site profile; default: what the study says.
    images : sequence of str
        Texts ``KIND=FILE``.
    any_version : bool, optional
        See :class:`bilayer_orchestra.running.point.Runner`.
    """
    name, profile = runtime or study.spec.runtime, site or study.spec.site
    place = get_runtime(name, image_table(list(images)), True, profile, study.path.parent)
    return Runner(study.root(output), place, any_version=any_version)


def run_study(study: LoadedStudy, runner: Runner, console: Output, jobs: int = 1) -> Collected:
    """Run what is missing, or submit it to a queue; combine what is there.

    Parameters
    ----------
    study : LoadedStudy
        The study.
    runner : Runner
        Where and how; its runtime is closed at the end.
    console : Output
        Shows what happens.
    jobs : int
        Points at the same time, on this machine.
    """
    with contextlib.closing(runner.runtime):
        if isinstance(runner.runtime, SlurmRuntime):
            submit_study(study, runner, console)
            return collect(study, make_tasks(study, runner))
        tasks = make_tasks(study, runner)
        make_directory(runner.root)
        ours, others = split_by_owner(tasks)
        for line in others:
            console.say(line)
        failures, stopped = {}, None
        with points_shown(console, len(ours)) as shown:
            try:
                failures = run_points(ours, runner, jobs, shown)
            except (Interrupted, KeyboardInterrupt) as interruption:
                stopped = interruption
    return replace(collect(study, tasks), failed=bool(failures or others), stopped=stopped)


def run_points(tasks: list[Task], runner: Runner, jobs: int, shown: PointsShown) -> dict[str, str]:
    """Run all tasks; return the messages of those that failed, by name.

    Parameters
    ----------
    tasks : list of Task
        What is run.
    runner : Runner
        Where and how.
    jobs : int
        How many of them at the same time.
    shown : PointsShown
        Hears what happens to them.
    """

    def run(task: Task) -> str | None:
        """Return why a point failed, in words for its user; None: it did not."""
        shown.progress(task.name, "begins")
        tell = functools.partial(shown.progress, task.name)
        # which version is taken was chosen with the task
        telling = replace(runner, tell=tell, any_version=False)
        error, reused = None, False
        try:
            outcome = stored(task.run) or run_model(task.model, task.engine, telling)
            reused = outcome.reused
            if outcome.remark:
                shown.noted(task.name, outcome.remark)
        except OrchestraError as failure:
            error = str(failure)
        except MemoryError:
            error = "out of memory"
        shown.ended(task.name, error, reused)
        return error

    with ThreadPoolExecutor(jobs, thread_name_prefix="point") as pool:
        running = {pool.submit(run, task): task.name for task in tasks}
        try:
            ended = {running[one]: one.result() for one in as_completed(running)}
        except BaseException:
            runner.stopping.set()  # the threads that started the engines stop them in order
            pool.shutdown(cancel_futures=True)
            raise
    return {name: error for name, error in ended.items() if error is not None}


def submit_study(
    study: LoadedStudy, runner: Runner, console: Output, dry_run: bool = False
) -> None:
    """Submit the points that are neither finished nor in the queue.

    Parameters
    ----------
    study : LoadedStudy
        The study.
    runner : Runner
        Its runtime is the queue.
    console : Output
        Shows what is submitted, and what is not.
    dry_run : bool
        Say what would be submitted; change nothing.
    """
    runtime, say, tasks = runner.runtime, console.say, make_tasks(study, runner)
    assert isinstance(runtime, SlurmRuntime)
    ours, others = split_by_owner(tasks)
    for task in [] if dry_run else ours:
        if not task.run.finished and task.run.result.exists():
            say(f"{task.name}: {set_aside(task.run)}")
    runs = {task.name: task.run for task in tasks}
    known = known_states(runs) if dry_run else label_computed(tasks)
    states = {task.name: _state(task, known[task.name][0]) for task in tasks}
    counts = Counter(states.values())
    for line in (", ".join(f"{counts[word]} {word}" for word in _WORDS if counts[word]), *others):
        say(line)
    # each run once
    missing = {task.run.path: task for task in ours if states[task.name] not in _STARTED}
    todo: list[Task] = []
    for path, task in missing.items():
        # such as a run here, or an engine that outlived its job: no point is computed twice
        if states[task.name] == "unknown" or task.run.in_use():
            may = "may compute" if states[task.name] == "unknown" else "computes"
            say(f"not submitted, another process {may} it: {task.name}: {path}")
        else:
            todo.append(task)
    if not todo:
        say("nothing to submit")
        return
    chunks = runtime.plan([placed(task, runtime) for task in todo], runner.root, study.name)
    if dry_run:
        _show(chunks, {path: task.name for path, task in missing.items()}, runtime, say)
        return
    for chunk in chunks:
        number, packs = submit(chunk, todo, runtime), len(chunk.packs)
        say(f"job {number}: {len(chunk.jobs)} points in {packs} tasks, {chunk.directory}")
    say(f"then      orchestra status {shlex.quote(str(runner.root))}")
    words = ["orchestra", "collect", str(study.path), "--runtime", runtime.name]
    words += ["--site", runtime.named] if runtime.named else []
    words += ["--output", str(runner.root)] if runner.root != study.root() else []
    say(f"          {shlex.join(words)}")


def _show(
    chunks: list[Chunk], names: dict[Path, str], runtime: SlurmRuntime, say: Callable[[str], None]
) -> None:
    """Say what would be submitted: every job, every point, the script of one point."""
    for chunk in chunks:
        say(f"# {shlex.join(runtime.command(chunk))}\n{runtime.batch_script(chunk)}")
        for index, pack in enumerate(chunk.packs):
            for one in pack:
                say(f"# array task {index}: {names[one.run]}: {one.run}")
    first, arrays = chunks[0].jobs[0], sum(len(chunk.packs) for chunk in chunks)
    points = sum(len(chunk.jobs) for chunk in chunks)
    say(f"# task.sh of {names[first.run]}, which batch.sh starts:")
    say(task_script(first, runtime.site))
    say(f"# not submitted: {points} points in {arrays} tasks of {len(chunks)} jobs")


def _state(task: Task, state: str) -> str:
    """Return the state of a task for a queue: what nobody has submitted does not wait."""
    record = task.run.record()
    submitted = bool(record and record.job)
    return _NOT_SUBMITTED if state == "pending" and not submitted else state


def collect_study(study: LoadedStudy, runner: Runner) -> Collected:
    """Combine what is finished; label what was computed in the meantime."""
    tasks = make_tasks(study, runner)
    solvable = [task for task in tasks if not isinstance(task.engine, AbsentEngine)]
    queued = [task for task in solvable if (record := task.run.record()) and record.job]
    states = label_computed(queued)
    here = replace(runner, runtime=LocalRuntime(), wait=False, any_version=False)
    for task in split_by_owner(solvable)[0]:
        if not task.run.result.exists() and task.run.executed():
            with contextlib.suppress(OrchestraError):  # which its status tells
                run_model(task.model, task.engine, here)
    return collect(study, tasks, states)


def store(collected: Collected, study: LoadedStudy, root: Path, say: Callable[[str], None]) -> Path:
    """Write the dataset into ``root``, or here where others have theirs there; return its path.

    Parameters
    ----------
    collected : Collected
        The dataset.
    study : LoadedStudy
        Its study.
    root : Path
        Directory of the runs.
    say : callable
        Receives lines for the user.
    """
    path = root / f"{study.name}.nc"
    foreign = other_owner(path) or (None if os.access(root, os.W_OK) else other_owner(root))
    if foreign is not None:  # what others have collected stays
        say(f"{path} belongs to {foreign}; yours is in the working directory")
        path = Path(path.name)
    make_room(path.parent, of_study(study.name), owner(collected.dataset), say)
    write_atomic(collected.dataset, path)
    return path
