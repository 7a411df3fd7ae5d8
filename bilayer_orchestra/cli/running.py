"""``orchestra run``."""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path
from typing import NamedTuple

import typer

from bilayer_orchestra.cli.exit_codes import ExitCode
from bilayer_orchestra.display.console import output_console
from bilayer_orchestra.display.progress import progress
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.images.use import image_table
from bilayer_orchestra.model.load import load_model
from bilayer_orchestra.plots.try_to_draw import check_style, draw, try_to_draw
from bilayer_orchestra.running.point import Outcome
from bilayer_orchestra.running.published import RESULT, copy, publish
from bilayer_orchestra.tuning.solve import Options, solve


class Place(NamedTuple):
    """Where a run is computed and kept: the options of the command line."""

    runtime: str
    images: list[str]
    site: str | None
    output: Path | None


class Show(NamedTuple):
    """Whether a picture is drawn, and in which style."""

    plot: bool
    style: Path | None


def run_command(
    model_file: Path,
    backend_name: str,
    place: Place,
    overrides: tuple[str, ...],
    wait: bool,
    detach: bool,
    show_as: Show,
    strict: bool,
    any_version: bool | None,
) -> None:
    """Solve one model and show the result."""
    console = output_console()
    plot, style = show_as
    check_style(style)
    model = load_model(model_file, overrides)
    root = place.output if place.output is not None else Path("runs") / model.name
    load_early = _load_plotting if plot else lambda: None
    with progress(console) as show:
        outcome = solve(
            model,
            backend_name,
            place.runtime,
            root,
            Options(
                images=image_table(place.images),
                site=place.site,
                on_progress=show,
                wait_for_others=wait,
                wait_for_queue=not detach,
                meanwhile=load_early,
                any_version=any_version,
            ),
        )
    if outcome is None:
        console.print(f"submitted; the same command picks up the result: {root}", markup=False)
        return

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
