"""One model: ``orchestra run``, ``render`` and ``status``; many: ``sweep`` and ``collect``."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bilayer_orchestra.cli.options import AnyVersion, Overrides
from bilayer_orchestra.errors import ExitCode, OrchestraError
from bilayer_orchestra.plots.try_to_draw import check_style, try_to_draw

if TYPE_CHECKING:
    from bilayer_orchestra.running.point import Outcome
    from bilayer_orchestra.study.collect import Collected
    from bilayer_orchestra.study.load import LoadedStudy


def run(
    model_file: Path,
    backend: str = "auto",
    runtime: str = "local",
    image: list[str] | None = None,
    output: Path | None = None,
    overrides: Overrides = None,
    wait: bool = True,
    plot: bool = True,
    strict: bool = False,
    style: Path | None = None,
    site: str | None = None,
    detach: bool = False,
    any_version: AnyVersion = None,
) -> None:
    """Solve a model; print a table, leave result.nc and result.png.

    The same request returns its stored result at once; an interrupted one resumes. With slurm it is
    submitted and waited for.

    Parameters
    ----------
    runtime
        where it runs: local, apptainer or slurm
    output
        directory for result.nc [runs/NAME]
    wait
        wait if another process computes this very point
    plot
        draw result.png
    detach
        slurm: submit and return; the same command collects
    """
    from bilayer_orchestra.display import output_console, progress
    from bilayer_orchestra.images.use import image_table
    from bilayer_orchestra.model.spec import load_model
    from bilayer_orchestra.plots.try_to_draw import try_to_draw
    from bilayer_orchestra.running.directory import runs_directory
    from bilayer_orchestra.running.point import Runner
    from bilayer_orchestra.running.published import publish
    from bilayer_orchestra.runtimes.registry import get_runtime
    from bilayer_orchestra.tuning.point import solve

    check_style(style)
    console, model = output_console(), load_model(model_file, overrides)
    root, meanwhile = runs_directory(model.name, output), _load_plotting if plot else lambda: None
    place = get_runtime(runtime, image_table(image or []), model.wished is not None, site)
    with closing(place), progress(console) as show:
        runner = Runner(root, place, show, wait, any_version, meanwhile)
        outcome = solve(model, backend, runner, detach)
    if outcome is None:
        console.say(f"submitted; the same command picks up the result: {root}")
        return
    if outcome.remark:
        console.say(outcome.remark)
    published = publish(outcome.run.path, root, console.say)
    picture = None
    if plot and published.parent == root:  # what belongs to another user is only shown
        picture = try_to_draw(lambda: _draw(outcome, root, style), console.say)
    from bilayer_orchestra.cli.tables import result_table  # xarray: slow, loaded by now

    console.print(result_table(outcome.dataset, outcome.reused))
    for label, path in (("dataset", published), ("picture", picture), ("run", outcome.run.path)):
        if path is not None:
            console.say(f"{label:8s} {path}")
    if strict and not outcome.dataset.attrs["converged"]:
        raise typer.Exit(ExitCode.NOT_CONVERGED)


def _load_plotting() -> None:
    from importlib import import_module

    # what fails is said when the picture is due
    try_to_draw(lambda: import_module("bilayer_orchestra.plots.common"), lambda line: None)


def _draw(outcome: "Outcome", root: Path, style: Path | None) -> Path | None:
    """Draw the picture once per result; in a style of its own it is drawn for this time."""
    from bilayer_orchestra.plots.common import draw_correlations, drawable
    from bilayer_orchestra.running.published import RESULT, copy

    if not drawable(outcome.dataset):
        return None
    own, shown = (place / RESULT[1] for place in (outcome.run.path, root))
    if style is not None:
        draw_correlations(outcome.dataset, shown, style)
    else:
        if not own.exists():
            draw_correlations(outcome.dataset, own)
        copy(own, shown)
    return shown


def render(
    model_file: Path,
    output: Annotated[Path, typer.Option("--output", "-o", help="directory to write to")],
    backend: str = "auto",
    overrides: Overrides = None,
) -> None:
    """Write what would run, without running it."""
    import contextlib
    import shlex

    from bilayer_orchestra.errors import MissingEngineError
    from bilayer_orchestra.model.spec import load_model
    from bilayer_orchestra.running.choice import engine_for
    from bilayer_orchestra.running.directory import RunDirectory
    from bilayer_orchestra.running.point import checked_request, refuse_search

    model = load_model(model_file, overrides)
    refuse_search(model, "`orchestra run` does them and keeps their job directories")
    engine = engine_for(model, backend)
    job = engine.render(checked_request(model, engine))
    run_directory = RunDirectory(output)
    run_directory.write_job(job, model.to_yaml())
    environment = dict(job.environment)
    with contextlib.suppress(MissingEngineError):  # rendering needs none
        environment |= engine.tools().environment
    variables = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    command = " ".join([*variables, job.program, shlex.join(job.arguments)])
    place = run_directory.job
    typer.echo(f"rendered for {engine.name} in {place}: {', '.join(job.files)}")
    typer.echo(f"by hand:  cd {shlex.quote(str(place))} && {command}")


def status(directory: Path) -> None:
    """Say which runs are pending, running, finished or failed, and why.

    Parameters
    ----------
    directory : DIR
        a run, or a directory of runs
    """
    from collections import Counter

    from bilayer_orchestra.cli.tables import status_table
    from bilayer_orchestra.display import output_console
    from bilayer_orchestra.running.directory import find_runs
    from bilayer_orchestra.running.queued import known_states

    runs = find_runs(directory)
    if not runs:
        raise OrchestraError(f"no runs in {directory}: name the directory of a run, or of runs")
    states = known_states({run.path.name: run for run in runs})
    console = output_console()
    console.print(status_table(runs, states))
    for name, (state, message) in states.items():
        if state == "failed" and "\n" in message:
            console.say(f"\n{name}: {message}")
    counts = Counter(state for state, _ in states.values())
    console.print(", ".join(f"{number} {state}" for state, number in sorted(counts.items())))


def sweep(
    study_file: Path,
    runtime: str | None = None,
    output: Path | None = None,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, help="points at the same time (not for slurm)")
    ] = 1,
    image: list[str] | None = None,
    site: str | None = None,
    dry_run: bool = False,
    strict: bool = False,
    any_version: AnyVersion = None,
) -> None:
    """Run all points of a study that are not there yet; leave one dataset over all axes.

    A failed point does not stop the others; exit code 1 says that there was one. With slurm the
    points are submitted; `orchestra status` and `orchestra collect` do the rest.

    Parameters
    ----------
    runtime
        local, apptainer or slurm [what the study says, else local]
    output
        directory of the runs [runs/NAME of the base model]
    dry_run
        show what would run or be submitted
    """
    from bilayer_orchestra.display import output_console
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
    study_file: Path,
    runtime: str | None = None,
    output: Path | None = None,
    image: list[str] | None = None,
    site: str | None = None,
    strict: bool = False,
    any_version: AnyVersion = None,
) -> None:
    """Combine what is finished of a study to one dataset; list what is not. Any time.

    With --strict, exit code 1 says that a point is missing.

    Parameters
    ----------
    runtime
        local, apptainer or slurm [what the study says, else local]
    output
        directory of the runs [runs/NAME of the base model]
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
    from bilayer_orchestra.display import output_console
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
