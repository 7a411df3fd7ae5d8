"""``orchestra sweep`` and ``orchestra collect``."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console

from bilayer_orchestra.cli.exit_codes import ExitCode
from bilayer_orchestra.display.console import output_console, sayer
from bilayer_orchestra.display.points import points_shown
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.images.use import image_table
from bilayer_orchestra.runtimes.base import Runtime
from bilayer_orchestra.runtimes.registry import get_runtime
from bilayer_orchestra.runtimes.slurm.runtime import SlurmRuntime
from bilayer_orchestra.study.collect import Collected
from bilayer_orchestra.study.load import LoadedStudy, load_study
from bilayer_orchestra.study.submit import submit_study
from bilayer_orchestra.study.tasks import make_tasks, study_root
from bilayer_orchestra.study.whole import collect_study, run_study, store


def sweep_command(
    study_file: Path,
    runtime_name: str | None,
    output: Path | None,
    jobs: int,
    images: list[str],
    site: str | None,
    dry_run: bool,
    strict: bool,
    any_version: bool | None,
) -> None:
    """Run what is missing of a study, then combine what is there."""
    console = output_console()
    say = sayer(console)
    study = load_study(study_file)
    root = study_root(study, output)
    runtime = _runtime(study, runtime_name, images, site)
    if isinstance(runtime, SlurmRuntime):
        if strict:
            raise OrchestraError(
                "--strict judges results, and what is submitted has none yet; give it to "
                "`orchestra collect`"
            )
        submit_study(study, root, runtime, say, dry_run, any_version)
        return
    if dry_run:
        for task in make_tasks(study, root, runtime, any_version):
            typer.echo(f"{task.run.status()[0]:9s} {task.name}  {task.run.path}")
        return
    ended = run_study(
        *(study, root, runtime), lambda n: points_shown(console, n), say, jobs, any_version
    )
    _report(ended.collected, store(ended.collected, study, root, say), console)
    if ended.stopped is not None:
        raise ended.stopped
    _end(bool(ended.failures or ended.others), ended.collected, strict)


def collect_command(
    study_file: Path,
    runtime_name: str | None,
    output: Path | None,
    images: list[str],
    site: str | None,
    strict: bool,
    any_version: bool | None,
) -> None:
    """Combine what is finished; say what is not."""
    console = output_console()
    study = load_study(study_file, stored=True)
    root = study_root(study, output)
    runtime = _runtime(study, runtime_name, images, site)
    collected = collect_study(study, root, runtime, any_version)
    _report(collected, store(collected, study, root, sayer(console)), console)
    _end(strict and bool(collected.missing), collected, strict)


def _runtime(study: LoadedStudy, name: str | None, images: list[str], site: str | None) -> Runtime:
    return get_runtime(
        name or study.spec.runtime,
        image_table(images),
        many=True,
        site=site or study.spec.site,
        beside=study.path.parent,
    )


def _end(failed: bool, collected: Collected, strict: bool) -> None:
    """Tell a script how it went; what is missing goes before what is not converged."""
    if failed:
        raise typer.Exit(ExitCode.FAILED)
    if strict and collected.unconverged:
        raise typer.Exit(ExitCode.NOT_CONVERGED)


def _report(collected: Collected, path: Path, console: Console) -> None:
    """Say what the dataset holds, what is missing, and what is not converged."""
    say = sayer(console)
    dataset = collected.dataset
    sizes = ", ".join(f"{dim} {size}" for dim, size in dataset["status"].sizes.items())
    count, total = dataset.attrs["finished"], dataset.attrs["points"]
    say(f"{count} of {total} points finished" + (f"; axes {sizes}" if sizes else ""))
    for name, (state, message) in collected.missing.items():
        text = "\n    ".join(message.splitlines())
        say(f"  {state:9s} {name}" + (f"  {text}" if text else ""))
    for name, reason in collected.unconverged.items():
        say(f"  NOT converged  {name}  {reason}")
    say(f"dataset  {path}")
