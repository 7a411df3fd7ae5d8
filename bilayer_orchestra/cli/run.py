"""``orchestra run``."""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path

import typer

from bilayer_orchestra.cli.console import output_console
from bilayer_orchestra.cli.exit_codes import ExitCode
from bilayer_orchestra.cli.progress import progress
from bilayer_orchestra.engines.registry import choose, get_engine
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.images.use import image_table
from bilayer_orchestra.model.load import load_model
from bilayer_orchestra.plots.try_to_draw import check_style, draw, try_to_draw
from bilayer_orchestra.running.point import Outcome, run_point
from bilayer_orchestra.running.published import RESULT, copy, publish
from bilayer_orchestra.runtimes.registry import adapter, get_runtime


def run_command(
    model_file: Path,
    backend_name: str,
    runtime_name: str,
    output: Path | None,
    overrides: tuple[str, ...],
    wait: bool,
    plot: bool,
    images: list[str],
    strict: bool,
    style: Path | None,
) -> None:
    """Solve one model and show the result."""
    console = output_console()
    check_style(style)
    model = load_model(model_file, overrides)
    backend = get_engine(choose(model.terms()) if backend_name == "auto" else backend_name)
    # a search is many jobs
    searches = getattr(model, "filling", None) is not None
    runtime = get_runtime(runtime_name, image_table(images), many=searches)
    backend = adapter(runtime)(backend)
    root = output if output is not None else Path("runs") / model.name
    with contextlib.closing(runtime), progress(console) as show:
        show(f"{model.name} with {backend.version()} ({backend.name})")
        outcome = run_point(
            model, backend, runtime, root, show, wait, _load_plotting if plot else lambda: None
        )

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    if outcome.remark:
        say(outcome.remark)
    run, published = outcome.run.path, publish(outcome.run.path, root, say)
    plot = plot and published.parent == root  # what belongs to another user is only shown
    shown = try_to_draw(lambda: _draw(outcome, root, style), say) if plot else None
    from bilayer_orchestra.cli.table import result_table

    console.print(result_table(outcome.dataset, outcome.reused))
    for label, path in (("dataset", published), ("picture", shown), ("run", run)):
        if path is not None:
            say(f"{label:8s} {path}")
    if strict and not outcome.dataset.attrs["converged"]:
        raise typer.Exit(ExitCode.NOT_CONVERGED)


def _load_plotting() -> None:
    with contextlib.suppress(OrchestraError):  # said when the picture is due
        draw(lambda: importlib.import_module("bilayer_orchestra.plots.common"))


def _draw(outcome: Outcome, root: Path, style: Path | None) -> Path | None:
    """Draw the picture once per result; in a style of its own it is drawn for this time."""
    from bilayer_orchestra.plots.common import draw_correlations, drawable

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
