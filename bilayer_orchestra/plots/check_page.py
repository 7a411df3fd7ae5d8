"""The page of a check that a person would send to a colleague: one file, no network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, StrictUndefined

from bilayer_orchestra import __version__
from bilayer_orchestra.checking.comparison import LEVEL
from bilayer_orchestra.checking.verdict import Verdict
from bilayer_orchestra.dataset.reading import parameters
from bilayer_orchestra.files import write_text_atomic
from bilayer_orchestra.plots.try_to_draw import try_to_draw
from bilayer_orchestra.resources import resource
from bilayer_orchestra.timestamps import utc_now

if TYPE_CHECKING:
    from bilayer_orchestra.plots.checked import Illustration


def write_page(outcome: Verdict, path: Path, headline: str, style: Path | None = None) -> Path:
    """Write the page; text from model files and engines is escaped. Figures that fail are noted.

    Parameters
    ----------
    outcome : Verdict
        What the check found out.
    path : Path
        The HTML file.
    headline : str
        The verdict in one line.
    style : Path, optional
        A matplotlib style on top of the program's own.
    """

    def draw() -> list[Illustration]:
        from bilayer_orchestra.plots.checked import illustrations

        return illustrations(outcome, style)

    notes = list(outcome.notes)
    figures = try_to_draw(draw, notes.append)
    source = resource("templates", "check", "report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    text = environment.from_string(source).render(
        outcome=outcome,
        headline=headline,
        parameters=parameters(outcome.model.to_data()) if outcome.model else "",
        ladder=outcome.ladder.describe() if outcome.ladder else [],
        figures=figures or [],
        notes=notes,
        model=outcome.model.to_yaml() if outcome.model else "",
        level=100 * LEVEL,
        software=f"bilayer_orchestra {__version__}",
        created=utc_now(),
    )
    write_text_atomic(path, text)
    return path
