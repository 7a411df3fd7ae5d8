"""``orchestra sweep`` and ``orchestra collect``."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.status import Status

from bilayer_orchestra.cli.console import output_console
from bilayer_orchestra.cli.exit_codes import ExitCode
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.files import make_directory, other_owner
from bilayer_orchestra.images.use import image_table
from bilayer_orchestra.running.published import make_room, of_study, owner
from bilayer_orchestra.running.queued import label_computed
from bilayer_orchestra.runtimes.base import AttachedRuntime
from bilayer_orchestra.runtimes.local import LocalRuntime
from bilayer_orchestra.runtimes.registry import get_runtime
from bilayer_orchestra.runtimes.slurm.runtime import SlurmRuntime
from bilayer_orchestra.study.collect import Collected, collect
from bilayer_orchestra.study.load import LoadedStudy, load_study
from bilayer_orchestra.study.submit import submit_study
from bilayer_orchestra.study.sweep import sweep
from bilayer_orchestra.study.tasks import Task, make_tasks, split_by_owner, study_root
from bilayer_orchestra.tuning.point import run_model


def sweep_command(
    study_file: Path,
    runtime_name: str | None,
    output: Path | None,
    jobs: int,
    images: list[str],
    site: str | None,
    dry_run: bool,
    strict: bool,
) -> None:
    """Run what is missing of a study, then combine what is there."""
    console = output_console()
    study = load_study(study_file)
    runtime_name = runtime_name or study.spec.runtime
    root = study_root(study, output)

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    runtime = get_runtime(
        runtime_name, image_table(images), True, site or study.spec.site, study.path.parent
    )
    if isinstance(runtime, SlurmRuntime):
        if strict:
            raise OrchestraError(
                "--strict judges results, and what is submitted has none yet; give it to "
                "`orchestra collect`"
            )
        submit_study(study, root, runtime, say, dry_run)
        return
    assert isinstance(runtime, AttachedRuntime)
    tasks = make_tasks(study, root, runtime)
    if dry_run:
        for task in tasks:
            typer.echo(f"{task.run.status()[0]:9s} {task.name}  {task.run.path}")
        return
    make_directory(root)
    ours, others = split_by_owner(tasks)
    for line in others:
        say(line)
    try:
        with _shown(console, ours) as show:
            failures = sweep(ours, runtime, jobs, show)
    finally:
        runtime.close()
        collected = collect(study, tasks)
        report(collected, _store(collected, study, root), console)
    _end(bool(failures or others), collected, strict)


def collect_command(
    study_file: Path,
    runtime_name: str | None,
    output: Path | None,
    images: list[str],
    site: str | None,
    strict: bool,
) -> None:
    """Combine what is finished; say what is not."""
    console = output_console()
    study = load_study(study_file)
    root = study_root(study, output)
    runtime = get_runtime(
        runtime_name or study.spec.runtime,
        image_table(images),
        site=site or study.spec.site,
        beside=study.path.parent,
    )
    tasks, states = make_tasks(study, root, runtime), None
    if any((record := task.run.record()) and record.job for task in tasks):
        states = label_computed(tasks)
    for task in split_by_owner(tasks)[0]:
        if not task.run.finished and task.run.executed():
            with contextlib.suppress(OrchestraError):  # which its status tells
                outcome = run_model(task.model, task.engine, LocalRuntime(), root, wait=False)
                if outcome.remark:
                    typer.echo(f"{task.name}: {outcome.remark}")
    collected = collect(study, tasks, states)
    report(collected, _store(collected, study, root), console)
    _end(strict and bool(collected.missing), collected, strict)


def _end(failed: bool, collected: Collected, strict: bool) -> None:
    """Tell a script how it went; what is missing goes before what is not converged."""
    if failed:
        raise typer.Exit(ExitCode.FAILED)
    if strict and collected.unconverged:
        raise typer.Exit(ExitCode.NOT_CONVERGED)


def report(collected: Collected, path: Path, console: Console) -> None:
    """Say what the dataset holds, what is missing, and what is not converged."""
    dataset = collected.dataset
    sizes = ", ".join(f"{dim} {size}" for dim, size in dataset["status"].sizes.items())
    count, total = dataset.attrs["finished"], dataset.attrs["points"]
    lines = [f"{count} of {total} points finished" + (f"; axes {sizes}" if sizes else "")]
    for name, (state, message) in collected.missing.items():
        text = "\n    ".join(message.splitlines())
        lines.append(f"  {state:9s} {name}" + (f"  {text}" if text else ""))
    for name, reason in collected.unconverged.items():
        lines.append(f"  NOT converged  {name}  {reason}")
    lines.append(f"dataset  {path}")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _store(collected: Collected, study: LoadedStudy, root: Path) -> Path:
    from bilayer_orchestra.dataset.schema import write_atomic

    path = root / f"{study.name}.nc"
    foreign = other_owner(path) or (None if os.access(root, os.W_OK) else other_owner(root))
    if foreign is not None:  # what others have collected stays
        typer.echo(f"{path} belongs to {foreign}; yours is in the working directory")
        path = Path(path.name)
    make_room(path.parent, of_study(study.name), owner(collected.dataset), typer.echo)
    write_atomic(collected.dataset, path)
    return path


#: Seconds between two signs of life in a log.
HEARTBEAT = 30.0
FIRST_BEAT = 3.0


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
                self._say(f"{self._done} of {self._total}  {task.name}  {word}")
            self._update()

    def noted(self, task: Task, line: str) -> None:
        """Say what must be known of one point."""
        with self._lock:
            self._say(f"{task.name}: {line}")

    def _say(self, text: str) -> None:
        line = f"{self._elapsed()}  {text}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def beat(self, stop: threading.Event) -> None:
        """Say soon, then every half minute, what is being computed, until ``stop``; for a log."""
        pause = min(FIRST_BEAT, HEARTBEAT)
        while not stop.wait(pause):
            pause = HEARTBEAT
            with self._lock:
                running = "; ".join(f"{name}: {line}" for name, line in self._lines.items())
                self._say(f"{self._done} of {self._total}  running  {running}".rstrip())

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
        return
    shown, stop = _Shown(console, None, len(tasks)), threading.Event()
    beating = threading.Thread(target=shown.beat, args=(stop,), daemon=True)
    beating.start()
    try:
        yield shown
    finally:
        stop.set()
        beating.join()
