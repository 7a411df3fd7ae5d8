"""``orchestra run``, ``orchestra render`` and ``orchestra status``: one model."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bilayer_orchestra.cli.exit_codes import ExitCode
from bilayer_orchestra.cli.options import (
    AnyVersion,
    BackendName,
    Images,
    ModelFile,
    Overrides,
    SiteName,
    Strict,
    Style,
)

if TYPE_CHECKING:
    from bilayer_orchestra.running.point import Outcome


def run(
    model_file: ModelFile,
    backend: BackendName = "auto",
    runtime: Annotated[
        str, typer.Option(help="where it runs: local, apptainer or slurm")
    ] = "local",
    image: Images = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="directory for result.nc [runs/NAME]")
    ] = None,
    overrides: Overrides = None,
    wait: Annotated[
        bool, typer.Option(help="wait if another process computes this very point")
    ] = True,
    plot: Annotated[bool, typer.Option(help="draw result.png")] = True,
    strict: Strict = False,
    style: Style = None,
    site: SiteName = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="slurm: submit and return; the same command collects")
    ] = False,
    any_version: AnyVersion = None,
) -> None:
    """Solve a model; print a table, leave result.nc and result.png.

    The same request returns its stored result at once; an interrupted one resumes. With slurm it is
    submitted and waited for.
    """
    from bilayer_orchestra.display.console import output_console
    from bilayer_orchestra.display.progress import progress
    from bilayer_orchestra.images.use import image_table
    from bilayer_orchestra.model.load import load_model
    from bilayer_orchestra.plots.try_to_draw import check_style, try_to_draw
    from bilayer_orchestra.running.directory import runs_directory
    from bilayer_orchestra.running.point import Runner
    from bilayer_orchestra.running.published import publish
    from bilayer_orchestra.runtimes.base import get_runtime
    from bilayer_orchestra.tuning.point import solve

    check_style(style)
    console, model = output_console(), load_model(model_file, tuple(overrides or ()))
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

    from bilayer_orchestra.plots.try_to_draw import try_to_draw

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
    model_file: ModelFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="directory to write to")],
    backend: BackendName = "auto",
    overrides: Overrides = None,
) -> None:
    """Write what would run, without running it."""
    import contextlib
    import shlex

    from bilayer_orchestra.errors import MissingEngineError
    from bilayer_orchestra.model.load import load_model
    from bilayer_orchestra.running.choice import engine_for
    from bilayer_orchestra.running.directory import RunDirectory
    from bilayer_orchestra.running.point import checked_request, refuse_search

    model = load_model(model_file, tuple(overrides or ()))
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


def status(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="a run, or a directory of runs")],
) -> None:
    """Say which runs are pending, running, finished or failed, and why."""
    from collections import Counter

    from bilayer_orchestra.cli.tables import status_table
    from bilayer_orchestra.display.console import output_console
    from bilayer_orchestra.errors import OrchestraError
    from bilayer_orchestra.running.directory import find_runs
    from bilayer_orchestra.running.queued import known_states

    runs = find_runs(directory)
    if directory.is_file():
        raise OrchestraError(f"{directory} is a file; name the directory of a run, or of runs")
    if not runs:
        raise OrchestraError(f"there are no runs in {directory}")
    states = known_states({run.path.name: run for run in runs})
    console = output_console()
    console.print(status_table(runs, states))
    for name, (state, message) in states.items():
        if state == "failed" and "\n" in message:
            console.say(f"\n{name}: {message}")
    counts = Counter(state for state, _ in states.values())
    console.print(", ".join(f"{number} {state}" for state, number in sorted(counts.items())))
