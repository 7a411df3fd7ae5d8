"""``orchestra sweep`` and ``orchestra collect``."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.status import Status

from bilayer_orchestra.backends.base import Backend
from bilayer_orchestra.cli.console import output_console
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.files import other_owner
from bilayer_orchestra.pipeline import run_point
from bilayer_orchestra.runtimes.images import image_table
from bilayer_orchestra.runtimes.registry import adapter, get_runtime
from bilayer_orchestra.study.collect import Collected, collect
from bilayer_orchestra.study.load import LoadedStudy, load_study
from bilayer_orchestra.study.sweep import sweep
from bilayer_orchestra.study.tasks import Task, make_tasks, set_aside, study_root


def sweep_command(
    study_file: Path,
    runtime_name: str | None,
    output: Path | None,
    jobs: int,
    images: list[str],
    site: str | None,
    dry_run: bool,
) -> None:
    """Run what is missing of a study, then combine what is there."""
    console = output_console()
    study = load_study(study_file)
    runtime_name = runtime_name or study.spec.runtime
    root = study_root(study, output)
    if runtime_name == "slurm":
        from bilayer_orchestra.cli.slurm import submit_study

        submit_study(study, root, site, images, dry_run, console)
        return
    runtime = get_runtime(runtime_name, image_table(images), many=True)
    tasks = make_tasks(study, root, adapter(runtime))
    if dry_run:
        for task in tasks:
            typer.echo(f"{task.run.status()[0]:9s} {task.name}  {task.run.path}")
        return
    ours, others = set_aside(tasks)
    for line in others:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    try:
        with _shown(console, ours) as show:
            failures = sweep(ours, runtime, jobs, show)
    finally:
        runtime.close()
        collected = collect(study, tasks)
        report(collected, _store(collected, study, root), console)
    if failures or others:
        raise typer.Exit(1)


def collect_command(
    study_file: Path,
    runtime_name: str | None,
    output: Path | None,
    images: list[str],
    site: str | None,
) -> None:
    """Combine what is finished; say what is not."""
    console = output_console()
    study = load_study(study_file)
    root = study_root(study, output)
    adapt, states = _adapter(runtime_name or study.spec.runtime, study, images, site), None
    tasks = make_tasks(study, root, adapt)
    if any((record := task.run.record()) and record.job for task in tasks):
        from bilayer_orchestra.runtimes.slurm.collect import label_executed

        states = label_executed(tasks)
    for task in set_aside(tasks)[0]:
        if not task.run.finished and task.run.executed():
            run_point(task.point.model, task.backend, get_runtime("local"), root)
    collected = collect(study, tasks, states)
    report(collected, _store(collected, study, root), console)


def _adapter(
    runtime_name: str, study: LoadedStudy, images: list[str], site: str | None
) -> Callable[[Backend], Backend]:
    if runtime_name == "slurm":
        from bilayer_orchestra.runtimes.slurm.site import load_site

        return load_site(site or study.spec.site, study.path, image_table(images)).adapt
    return adapter(get_runtime(runtime_name, image_table(images)))


def report(collected: Collected, path: Path, console: Console) -> None:
    """Say what the dataset holds and what is missing."""
    dataset = collected.dataset
    sizes = ", ".join(f"{dim} {size}" for dim, size in dataset["status"].sizes.items())
    count, total = dataset.attrs["finished"], dataset.attrs["points"]
    lines = [f"{count} of {total} points finished" + (f"; axes {sizes}" if sizes else "")]
    for name, (state, message) in collected.missing.items():
        text = "\n    ".join(message.splitlines())
        lines.append(f"  {state:9s} {name}" + (f"  {text}" if text else ""))
    lines.append(f"dataset  {path}")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _store(collected: Collected, study: LoadedStudy, root: Path) -> Path:
    from bilayer_orchestra.dataset import write_atomic

    path = root / f"{study.name}.nc"
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OrchestraError(f"cannot write to {root}: {error.strerror}") from error
    owner = other_owner(path) or (None if os.access(root, os.W_OK) else other_owner(root))
    if owner is not None:  # what others have collected stays
        typer.echo(f"{path} belongs to {owner}; yours is in the working directory")
        path = Path(path.name)
    write_atomic(collected.dataset, path)
    return path


class _Shown:
    """One live line over all points on a terminal; in a log, a line for each point that ends."""

    def __init__(self, console: Console, status: Status | None, total: int) -> None:
        self._console, self._status, self._total = console, status, total
        self._lines: dict[str, str] = {}
        self._done = self._failed = self._stored = 0
        self._start = time.monotonic()
        self._lock = threading.Lock()

    def progress(self, task: Task, line: str) -> None:
        """Show how far one point is."""
        with self._lock:
            self._lines[task.name] = line
            self._update()

    def ended(self, task: Task, error: str | None, reused: bool) -> None:
        """Count one point."""
        with self._lock:
            self._lines.pop(task.name, None)
            self._done += 1
            self._failed += error is not None
            self._stored += reused
            if not reused:
                word = "finished" if error is None else f"failed: {error.splitlines()[0]}"
                self._console.print(
                    f"{self._elapsed()}  {self._done} of {self._total}  {task.name}  {word}",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
            self._update()

    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._start:6.1f} s"

    def _update(self) -> None:
        if self._status is None:
            return
        head = f"{self._elapsed()}  {self._done} of {self._total} done"
        head += f", {self._failed} failed" if self._failed else ""
        rows = [f"  {name}: {line}" for name, line in self._lines.items()]
        from rich.markup import escape

        self._status.update(escape("\n".join([head, *rows[:8]])))


@contextmanager
def _shown(console: Console, tasks: list[Task]) -> Iterator[_Shown]:
    if console.is_terminal:
        with console.status("starting") as status:
            yield _Shown(console, status, len(tasks))
    else:
        yield _Shown(console, None, len(tasks))
