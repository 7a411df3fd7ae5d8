"""``orchestra check``."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from bilayer_orchestra.backends.registry import BACKENDS, get_backend
from bilayer_orchestra.check.verdict import Verdict, judge
from bilayer_orchestra.cli.progress import progress
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.model.load import load_model, parse_model
from bilayer_orchestra.pipeline import checked_request, run_point
from bilayer_orchestra.runtimes.registry import get_runtime

EXIT_CODES = {"agree": 0, "disagree": 1, "undecided": 2}
COULD_NOT_RUN = 3


def check_command(
    model_file: Path, backends: str | None, output: Path | None, overrides: tuple[str, ...]
) -> None:
    """Solve one model with several engines and compare all pairs of results."""
    console = Console()
    try:
        verdicts = _verdicts(model_file, backends, output, overrides, console)
    except OrchestraError as error:
        typer.echo(f"orchestra: {error}", err=True)
        raise typer.Exit(COULD_NOT_RUN) from error
    for verdict in verdicts:
        console.print(verdict_table(verdict))
        console.print(
            f"{verdict.first} and {verdict.second}: {verdict.word.upper()} ({verdict.reason})\n",
            markup=False,
            soft_wrap=True,
        )
    words = {verdict.word for verdict in verdicts}
    overall = next(word for word in ("disagree", "undecided", "agree") if word in words)
    raise typer.Exit(EXIT_CODES[overall])


def _verdicts(
    model_file: Path,
    backends: str | None,
    output: Path | None,
    overrides: tuple[str, ...],
    console: Console,
) -> list[Verdict]:
    model = load_model(model_file, overrides)
    names = backends.split(",") if backends else []
    for name in list(BACKENDS) if not names else []:
        try:
            BACKENDS[name].version()
            checked_request(model, BACKENDS[name])
        except OrchestraError as error:
            reason = str(error).splitlines()[0]
            console.print(f"without {name}: {reason}", markup=False, soft_wrap=True)
        else:
            names.append(name)
    if len(names) < 2:
        raise OrchestraError(
            f"a check needs two engines that can solve this model; usable here: {names or 'none'}"
        )
    root = output if output is not None else Path("runs") / model.name
    results = {}
    with progress(console) as show:
        for name in names:
            show(f"{model.name} with {name}")
            results[name] = run_point(
                model, get_backend(name), get_runtime("local"), root, show
            ).dataset
            if "tuned_model" in results[name].attrs:
                # the others are compared at the chemical potentials that the first one found
                model = parse_model(results[name].attrs["tuned_model"])
    return [judge(results[a], results[b]) for k, a in enumerate(names) for b in names[k + 1 :]]


def verdict_table(verdict: Verdict) -> Table:
    """Return one row per observable."""
    table = Table(
        "observable", "verdict", "p", "chi2/dof", "worst", "pull", "why", box=None, pad_edge=False
    )
    for finding in verdict.findings:
        test = finding.test
        table.add_row(
            finding.name,
            finding.word,
            f"{finding.corrected_p:.2g}",
            f"{test.chi2:.2f} ({test.modes})" if test.modes else "",
            finding.worst_label,
            f"{test.pulls[test.worst]:+.1f}",
            finding.reason,
        )
    return table
