"""``orchestra check``."""

from __future__ import annotations

from pathlib import Path

import typer
import xarray as xr
from rich.console import Console
from rich.table import Table

from bilayer_orchestra.checking.overall import Verdict
from bilayer_orchestra.checking.plan import Check, compare_files, usable_engines
from bilayer_orchestra.checking.verdict import LEVEL, PairVerdict
from bilayer_orchestra.cli.exit_codes import ExitCode
from bilayer_orchestra.dataset.parameters import parameters
from bilayer_orchestra.display.console import output_console
from bilayer_orchestra.display.progress import progress
from bilayer_orchestra.engines.registry import get_engine
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.model.load import load_model
from bilayer_orchestra.plots.try_to_draw import check_style
from bilayer_orchestra.running.published import CHECK, refuse_own_source

EXIT_CODES = {"agree": 0, "disagree": 1, "undecided": 2}
COULD_NOT_RUN = ExitCode.COULD_NOT_RUN


def check_command(
    targets: list[Path],
    backends: str | None,
    output: Path | None,
    overrides: tuple[str, ...],
    identities: bool,
    distance: int,
    style: Path | None = None,
) -> None:
    """Compare engines on one model, or stored results, or test one result by identities."""
    console = output_console()
    try:
        check_style(style)
        if identities:
            from bilayer_orchestra.cli.identities import identities_command

            word = identities_command(targets, backends, output, overrides, console)
        else:
            outcome, root = _compare(targets, backends, output, overrides, distance, console)
            word = outcome.word
            _show(outcome, console)
            _store(outcome, root, console, style)
    except OrchestraError as error:
        typer.echo(f"orchestra: {error}", err=True)
        raise typer.Exit(COULD_NOT_RUN) from error
    raise typer.Exit(EXIT_CODES[word])


def _compare(
    targets: list[Path],
    backends: str | None,
    output: Path | None,
    overrides: tuple[str, ...],
    distance: int,
    console: Console,
) -> tuple[Verdict, Path]:
    files = [target for target in targets if target.suffix == ".nc"]
    if files:
        return _compare_files(targets, output, distance, bool(backends or overrides))
    if len(targets) != 1:
        raise OrchestraError("give one model file, or two or more results (.nc)")
    model = load_model(targets[0], overrides)
    if backends:
        names = list(dict.fromkeys(part.strip() for part in backends.split(",")))
        for name in names:
            get_engine(name).version()
    else:
        names, without = usable_engines(model)
        for line in without:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    root = output if output is not None else Path("runs") / model.name
    with progress(console) as show:
        return Check(model, names, root, show, distance).run(), root


def _compare_files(
    targets: list[Path], output: Path | None, distance: int, has_options: bool
) -> tuple[Verdict, Path]:
    from bilayer_orchestra.dataset.schema import open_result

    opened = [open_result(one, ("a result",)) for one in targets if one.suffix == ".nc"]
    if len(opened) < max(2, len(targets)):
        raise OrchestraError(
            "to compare stored results give two or more files result.nc; to solve a model give "
            "its model file alone; one result alone can be tested with --identities"
        )
    if has_options:
        raise OrchestraError("--backends and --set have no meaning for stored results")
    root = output if output is not None else Path()
    refuse_own_source(root / CHECK[0], *targets)
    results: dict[str, xr.Dataset] = {}
    for dataset in opened:
        label = str(dataset.attrs["backend"])
        if label in results:
            label = f"{label} {len(results) + 1}"
        results[label] = dataset
    name = str(next(iter(results.values())).attrs["model_name"])
    return compare_files(results, name, distance), root


def _show(outcome: Verdict, console: Console) -> None:
    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    for verdict in outcome.verdicts:
        say(f"\n{verdict.first} and {verdict.second}")
        console.print(verdict_table(verdict))
        say(f"{verdict.word.upper()}: {verdict.reason}")
        for label, text in (("likely cause", verdict.cause), *(("note", n) for n in verdict.notes)):
            if text:
                say(f"{label}: {text}")
    say("")
    for line in outcome.ladder.describe() if outcome.ladder else []:
        say(line)
    for line in outcome.notes:
        say(line)
    if outcome.model is not None:
        say(f"parameters: {parameters(outcome.model.to_data())}")
    say(summary(outcome))


def summary(outcome: Verdict) -> str:
    """Return the verdict of the whole check in one line."""
    counts = {
        word: sum(verdict.word == word for verdict in outcome.verdicts)
        for word in ("agree", "disagree", "undecided")
    }
    found = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    scope = f"{len(outcome.verdicts)} pairs of results: {found}" if found else "nothing compared"
    limit = ""
    if outcome.ladder is not None and outcome.ladder.out_of_reach:
        limit = "; T -> 0 was NOT checked (out of reach)"
    reach = f" up to distance {outcome.distance}" if outcome.distance is not None else ""
    return (
        f"{outcome.name}: {outcome.word.upper()}{reach} ({scope}{limit}; "
        f"false alarms at most {100 * LEVEL:g} %)"
    )


def verdict_table(verdict: PairVerdict) -> Table:
    """Return one row per observable."""
    table = Table(
        "observable",
        "verdict",
        "p",
        "chi2/dof",
        "worst",
        "pull",
        "systematic",
        "up to",
        "would notice",
        "why",
        box=None,
        pad_edge=False,
    )
    for finding in verdict.findings:
        test = finding.test
        if test is None:
            table.add_row(finding.name, finding.word, *[""] * 7, finding.reason)
            continue
        named = ", ".join(
            f"{what.split(' (')[0]} {size:.1g}"
            for what, size in finding.systematics.items()
            if size > 1e-12
        )
        table.add_row(
            finding.name,
            finding.word,
            f"{finding.corrected_p:.2g}",
            f"{test.chi2:.2f} ({test.modes})" if test.modes else "",
            _site_label(finding.worst_label) if test.pulls[test.worst] else "",
            f"{test.pulls[test.worst]:+.1f}",
            named,
            "" if finding.distance is None else str(max(finding.distance, 0)),
            f"{100 * finding.detectable:.2g} %",
            "" if finding.word == "agree" else finding.reason,
        )
    return table


def _site_label(label: str) -> str:
    """Shorten ``spin=up layer=P x=0 layer_=M x_=3`` to ``up P0 M3``."""
    values = [part.partition("=")[2] for part in label.split()]
    keys = [part.partition("=")[0] for part in label.split()]
    text = ""
    for key, value in zip(keys, values, strict=True):
        text += value if key in ("x", "x_") else f" {value}"
    return text.strip()


def _store(outcome: Verdict, root: Path, console: Console, style: Path | None) -> None:
    from bilayer_orchestra.checking.report import PAGE, write_report

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    headline = summary(outcome)
    say(f"dataset  {write_report(outcome, root, headline)}")
    try:
        from bilayer_orchestra.plots.check_page import write_page
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "jinja2":
            raise
        say("no report: pip install matplotlib jinja2")
        return
    say(f"report   {write_page(outcome, root / PAGE, headline, style)}")
