"""The page of a check that a person would send to a colleague: one file, no network."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, StrictUndefined

from bilayer_orchestra import __version__
from bilayer_orchestra.check.figures import figures_of
from bilayer_orchestra.check.plan import CheckResult
from bilayer_orchestra.check.verdict import LEVEL
from bilayer_orchestra.files import write_text_atomic
from bilayer_orchestra.resources import resource
from bilayer_orchestra.timestamps import utc_now


def write_page(outcome: CheckResult, path: Path, headline: str) -> Path:
    """Write the page; text from model files and engines is escaped."""
    source = resource("templates", "check", "report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    text = environment.from_string(source).render(
        name=outcome.name,
        word=outcome.word,
        headline=headline,
        verdicts=outcome.verdicts,
        ladder=outcome.ladder.describe() if outcome.ladder else [],
        figures=figures_of(outcome),
        notes=outcome.notes,
        results=outcome.results,
        model=outcome.model.to_yaml() if outcome.model else "",
        level=100 * LEVEL,
        software=f"bilayer_orchestra {__version__}",
        created=utc_now(),
    )
    write_text_atomic(path, text)
    return path
