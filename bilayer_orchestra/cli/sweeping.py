"""``orchestra sweep`` and ``orchestra collect``: the points of a study."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bilayer_orchestra.cli.exit_codes import ExitCode
from bilayer_orchestra.cli.options import AnyVersion, Images, SiteName, Strict

if TYPE_CHECKING:
    from bilayer_orchestra.study.collect import Collected
    from bilayer_orchestra.study.load import LoadedStudy

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="the study file")]
StudyOutput = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="directory of the runs [runs/NAME of the base model]"),
]
RuntimeName = Annotated[
    str | None, typer.Option(help="local, apptainer or slurm [what the study says, else local]")
]


def sweep(
    study_file: StudyFile,
    runtime: RuntimeName = None,
    output: StudyOutput = None,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, help="points at the same time (not for slurm)")
    ] = 1,
    image: Images = None,
    site: SiteName = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="show what would run or be submitted")
    ] = False,
    strict: Strict = False,
    any_version: AnyVersion = None,
) -> None:
    """Run all points of a study that are not there yet; leave one dataset over all axes.

    A failed point does not stop the others; exit code 1 says that there was one. With slurm the
    points are submitted; `orchestra status` and `orchestra collect` do the rest.
    """
    from bilayer_orchestra.display.console import output_console
    from bilayer_orchestra.errors import OrchestraError
    from bilayer_orchestra.runtimes.slurm.runtime import SlurmRuntime
    from bilayer_orchestra.study.load import load_study
    from bilayer_orchestra.study.run import run_study, study_runner, submit_study
    from bilayer_orchestra.study.tasks import make_tasks

    console, study = output_console(), load_study(study_file)
    runner = study_runner(study, output, runtime, site, image or (), any_version)
    if isinstance(runner.runtime, SlurmRuntime):
        if strict:
            raise OrchestraError(
                "--strict judges results, and what is submitted has none yet; give it to "
                "`orchestra collect`"
            )
        submit_study(study, runner, console, dry_run)
    elif dry_run:
        for task in make_tasks(study, runner):
            typer.echo(f"{task.run.status()[0]:9s} {task.name}  {task.run.path}")
    else:
        collected = run_study(study, runner, console, jobs)
        if collected.stopped is not None:
            _finish(collected, study, runner.root, failed=False, strict=False)
            raise collected.stopped
        _finish(collected, study, runner.root, collected.failed, strict)


def collect(
    study_file: StudyFile,
    runtime: RuntimeName = None,
    output: StudyOutput = None,
    image: Images = None,
    site: SiteName = None,
    strict: Strict = False,
    any_version: AnyVersion = None,
) -> None:
    """Combine what is finished of a study to one dataset; list what is not. Any time.

    With --strict, exit code 1 says that a point is missing.
    """
    from bilayer_orchestra.study.load import load_study
    from bilayer_orchestra.study.run import collect_study, study_runner

    study = load_study(study_file, stored=True)
    runner = study_runner(study, output, runtime, site, image or (), any_version)
    collected = collect_study(study, runner)
    _finish(collected, study, runner.root, strict and bool(collected.missing), strict)


def _finish(
    collected: "Collected", study: "LoadedStudy", root: Path, failed: bool, strict: bool
) -> None:
    """Store the dataset; say what it holds, what is missing, and what is not converged.

    To a script, what is missing goes before what is not converged.
    """
    from bilayer_orchestra.display.console import output_console
    from bilayer_orchestra.study.run import store

    say, dataset = output_console().say, collected.dataset
    path = store(collected, study, root, say)
    sizes = ", ".join(f"{dim} {size}" for dim, size in dataset["status"].sizes.items())
    count, total = dataset.attrs["finished"], dataset.attrs["points"]
    say(f"{count} of {total} points finished" + (f"; axes {sizes}" if sizes else ""))
    for name, (state, message) in collected.missing.items():
        text = "\n    ".join(message.splitlines())
        say(f"  {state:9s} {name}" + (f"  {text}" if text else ""))
    for name, reason in collected.unconverged.items():
        say(f"  NOT converged  {name}  {reason}")
    say(f"dataset  {path}")
    if failed:
        raise typer.Exit(ExitCode.FAILED)
    if strict and collected.unconverged:
        raise typer.Exit(ExitCode.NOT_CONVERGED)
