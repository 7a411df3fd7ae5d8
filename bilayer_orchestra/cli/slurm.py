"""``orchestra sweep --runtime slurm``."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from bilayer_orchestra.images.use import image_table
from bilayer_orchestra.running.point import refuse_search, set_aside
from bilayer_orchestra.runtimes.slurm.collect import label_executed
from bilayer_orchestra.runtimes.slurm.site import Site, load_site
from bilayer_orchestra.runtimes.slurm.submit import Chunk, batch_of, plan, rendered, submit
from bilayer_orchestra.study.load import LoadedStudy
from bilayer_orchestra.study.tasks import Task, make_tasks, split_by_owner, study_root


def submit_study(
    study: LoadedStudy,
    root: Path,
    site_name: str | None,
    images: list[str],
    dry_run: bool,
    console: Console,
) -> None:
    """Submit the points that are neither finished nor in the queue."""

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    site = load_site(site_name or study.spec.site, study.path, image_table(images))
    tasks = make_tasks(study, root, site.adapt)
    for task in tasks:
        refuse_search(
            task.point.model,
            "run `orchestra sweep` without --runtime slurm within a job of its own, or give the "
            "chemical potentials",
        )
    ours, others = split_by_owner(tasks)
    for task in [] if dry_run else ours:
        if not task.run.finished and task.run.result.exists():
            say(f"{task.name}: {set_aside(task.run)}")
    states = label_executed(tasks) if not dry_run else {}
    known = {task.name: states.get(task.name, task.run.status()) for task in tasks}

    if dry_run:
        from bilayer_orchestra.runtimes.slurm.collect import states_of

        known = {**known, **states_of({t.name: t.run for t in tasks if not t.run.finished})}
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
    chunks = plan(todo, site, root, study.name)
    if dry_run:
        _show(chunks, todo, site, say)
        return
    for chunk in chunks:
        number = submit(chunk, site)
        points = sum(len(pack) for pack in chunk.packs)
        say(f"job {number}: {points} points in {len(chunk.packs)} tasks, {chunk.directory}")
    say(f"then      orchestra status {shlex.quote(str(root))}")
    words = ["orchestra", "collect", str(study.path), "--runtime", "slurm"]
    words += ["--site", site_name] if site_name else []
    words += ["--output", str(root)] if root != study_root(study, None) else []
    say(f"          {shlex.join(words)}")


def _missing(tasks: list[Task], known: dict[str, tuple[str, str]]) -> tuple[list[Task], list[Task]]:
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


def _show(chunks: list[Chunk], todo: list[Task], site: Site, say: Callable[[str], None]) -> None:
    """Say what would be submitted: every job, every point, the script of one point."""
    for chunk in chunks:
        say(f"# {shlex.join(chunk.command)}\n{batch_of(chunk, site, write=False)}")
        for index, pack in enumerate(chunk.packs):
            for task in pack:
                say(f"# array task {index}: {task.name}: {task.run.path}")
    say(f"# task.sh of {todo[0].name}, which batch.sh starts:")
    say(rendered(todo[0], site)[1])
    arrays = sum(len(chunk.packs) for chunk in chunks)
    say(f"# not submitted: {len(todo)} points in {arrays} tasks of {len(chunks)} jobs")


_WORDS, _UNKNOWN = ("finished", "running", "pending", "failed", "unknown"), "not submitted yet"


def _counts(tasks: list[Task], known: dict[str, tuple[str, str]]) -> str:
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
