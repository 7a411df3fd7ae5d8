"""``orchestra check``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from bilayer_orchestra.cli.exit_codes import ExitCode
from bilayer_orchestra.cli.options import AnyVersion, Overrides, Style

if TYPE_CHECKING:
    import xarray as xr

    from bilayer_orchestra.checking.comparison import Word
    from bilayer_orchestra.checking.identities import Identity
    from bilayer_orchestra.checking.overall import Verdict
    from bilayer_orchestra.display.console import Output

#: A verdict -> its exit code.
EXIT_CODES: "dict[Word, int]" = {"agree": 0, "disagree": 1, "undecided": 2}


class CheckCommand(TyperCommand):
    """A wrong command line is "could not run", 3; the usual 2 and 1 would be verdicts here."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the command line."""
        try:
            return super().make_context(*args, **kwargs)
        except Exception as error:  # the parser's own class, which typer may or may not bring
            if getattr(error, "exit_code", None) == ExitCode.USAGE:
                error.exit_code = ExitCode.COULD_NOT_RUN  # type: ignore[attr-defined]
            raise


def check(
    targets: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL.yaml | RESULT.nc ...", help="a model file, or stored results"
        ),
    ],
    backends: Annotated[
        str | None,
        typer.Option(help="comma-separated engines [all that are found and can solve it]"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="directory of runs and report [runs/NAME]"),
    ] = None,
    overrides: Overrides = None,
    identities: Annotated[
        bool,
        typer.Option("--identities", help="test each result alone, by exact identities"),
    ] = False,
    distance: Annotated[
        int,
        typer.Option(min=1, help="how far apart sites must agree; less is undecided"),
    ] = 1,
    style: Style = None,
    any_version: AnyVersion = None,
) -> None:
    """Solve a model with several engines and say whether they agree, also as T goes to 0.

    Leaves check.nc and check.html. Given two or more results instead of a model, compares those.
    With --identities a single result, or every engine's, is tested by sum rules and exact limits.

    They agree up to the distance to which every correlation would have shown a deviation of 20 %.

    Exit code: 0 agree (at least up to --distance), 1 disagree, 2 undecided, 3 could not run.
    """
    from bilayer_orchestra.display.console import output_console
    from bilayer_orchestra.plots.try_to_draw import check_style

    check_style(style)
    console = output_console()
    changes = tuple(overrides or ())
    names = [part.strip() for part in backends.split(",")] if backends else []
    if identities:
        word = _each_alone(targets, names, output, changes, any_version, console)
    else:
        if any(target.suffix == ".nc" for target in targets):
            has_options = bool(names or changes or any_version is not None)
            outcome, root = _compare_results(targets, output, distance, has_options)
        else:
            outcome, root = _compare_engines(
                targets, names, output, changes, distance, any_version, console
            )
        _report(outcome, root, style, console)
        word = outcome.word
    raise typer.Exit(EXIT_CODES[word])


def _compare_engines(
    targets: list[Path],
    names: list[str],
    output: Path | None,
    overrides: tuple[str, ...],
    distance: int,
    any_version: bool | None,
    console: "Output",
) -> "tuple[Verdict, Path]":
    from bilayer_orchestra.checking.plan import Check, usable_engines
    from bilayer_orchestra.display.progress import progress
    from bilayer_orchestra.engines.registry import get_engine
    from bilayer_orchestra.errors import OrchestraError
    from bilayer_orchestra.model.load import load_model
    from bilayer_orchestra.running.directory import runs_directory

    if len(targets) != 1:
        raise OrchestraError("give one model file, or two or more results (.nc)")
    model = load_model(targets[0], overrides)
    names = list(dict.fromkeys(names))
    for name in names:
        get_engine(name).version()
    if not names:
        names, without = usable_engines(model)
        for line in without:
            console.say(line)
    root = runs_directory(model.name, output)
    with progress(console) as show:
        return Check(model, names, root, show, distance, any_version).run(), root


def _compare_results(
    targets: list[Path], output: Path | None, distance: int, has_options: bool
) -> "tuple[Verdict, Path]":
    from bilayer_orchestra.checking.plan import compare_files
    from bilayer_orchestra.dataset.schema import open_result
    from bilayer_orchestra.errors import OrchestraError
    from bilayer_orchestra.running.published import CHECK, refuse_own_source

    opened = [open_result(one, ("a result",)) for one in targets if one.suffix == ".nc"]
    if len(opened) < max(2, len(targets)):
        raise OrchestraError(
            "to compare stored results give two or more files result.nc; to solve a model give "
            "its model file alone; one result alone can be tested with --identities"
        )
    if has_options:
        raise OrchestraError(
            "--backends, --set, --any-version and --this-version have no meaning for stored results"
        )
    root = output or Path()
    refuse_own_source(root / CHECK[0], *targets)
    results: dict[str, xr.Dataset] = {}
    for dataset in opened:
        label = str(dataset.attrs["backend"])
        results[f"{label} {len(results) + 1}" if label in results else label] = dataset
    return compare_files(results, str(opened[0].attrs["model_name"]), distance), root


def _report(outcome: "Verdict", root: Path, style: Path | None, console: "Output") -> None:
    """Print the verdicts; leave check.nc and, where its libraries are there, check.html."""
    from bilayer_orchestra.checking.report import PAGE, write_report
    from bilayer_orchestra.cli.tables import verdict_table
    from bilayer_orchestra.dataset.parameters import parameters

    for verdict in outcome.verdicts:
        console.say(f"\n{verdict.first} and {verdict.second}")
        console.print(verdict_table(verdict))
        console.say(f"{verdict.word.upper()}: {verdict.reason}")
        if verdict.cause:
            console.say(f"likely cause: {verdict.cause}")
        for note in verdict.notes:
            console.say(f"note: {note}")
    console.say("")
    for line in [*(outcome.ladder.describe() if outcome.ladder else []), *outcome.notes]:
        console.say(line)
    if outcome.model is not None:
        console.say(f"parameters: {parameters(outcome.model.to_data())}")
    headline = _headline(outcome)
    console.say(headline)
    console.say(f"dataset  {write_report(outcome, root, headline)}")
    try:
        from bilayer_orchestra.plots.check_page import write_page
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "jinja2":
            raise
        console.say("no report: pip install matplotlib jinja2")
        return
    console.say(f"report   {write_page(outcome, root / PAGE, headline, style)}")


def _headline(outcome: "Verdict") -> str:
    """Return the verdict of the whole check in one line."""
    from bilayer_orchestra.checking.verdict import LEVEL

    counts = {word: sum(one.word == word for one in outcome.verdicts) for word in EXIT_CODES}
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


def _each_alone(
    targets: list[Path],
    names: list[str],
    output: Path | None,
    overrides: tuple[str, ...],
    any_version: bool | None,
    console: "Output",
) -> "Word":
    """Test stored results, or what the named engines return for a model file, by identities."""
    from bilayer_orchestra.checking.identities import check_identities
    from bilayer_orchestra.cli.tables import identity_table
    from bilayer_orchestra.dataset.schema import open_result
    from bilayer_orchestra.display.progress import progress
    from bilayer_orchestra.model.load import load_model
    from bilayer_orchestra.running.choice import engine_for
    from bilayer_orchestra.running.directory import runs_directory
    from bilayer_orchestra.running.point import Runner
    from bilayer_orchestra.tuning.point import run_model

    results: list[tuple[str, xr.Dataset]] = []
    for target in targets:
        if target.suffix == ".nc":
            dataset = open_result(target, ("a result",))
            results.append((f"{target} ({dataset.attrs['engine']})", dataset))
            continue
        model = load_model(target, overrides)
        with progress(console) as show:
            root = runs_directory(model.name, output)
            runner = Runner(root, tell=show, any_version=any_version)
            for name in names or ["auto"]:
                engine = engine_for(model, name)
                solved = run_model(model, engine, runner).dataset
                results.append((f"{model.name} with {engine.name}", solved))
    words: list[Word] = []
    for label, dataset in results:
        found = check_identities(dataset)
        console.say(f"\n{label}")
        console.print(identity_table(found))
        words.append(_word_of(found, bool(dataset.attrs["converged"])))
        console.say(words[-1].upper())
    return max(words, key=["agree", "undecided", "disagree"].index)


def _word_of(identities: "list[Identity]", converged: bool) -> "Word":
    """Return disagree if anything is violated, undecided if something is not told or not done."""
    outcomes = {identity.outcome for identity in identities}
    if "violated" in outcomes:
        return "disagree"
    if "undecided" in outcomes or not converged:
        return "undecided"
    return "agree"
