"""``orchestra check``; what it does and prints is in :mod:`bilayer_orchestra.cli.verdicts`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from bilayer_orchestra.cli.options import AnyVersion, Overrides
from bilayer_orchestra.errors import ExitCode

#: A verdict -> its exit code.
EXIT_CODES = {"agree": 0, "disagree": 1, "undecided": 2}


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
    targets: list[Path],
    backends: str = "",
    output: Path | None = None,
    overrides: Overrides = None,
    identities: bool = False,
    distance: Annotated[
        int, typer.Option(min=1, help="how far apart sites must agree; less is undecided")
    ] = 1,
    style: Path | None = None,
    any_version: AnyVersion = None,
) -> None:
    """Solve a model with several engines and say whether they agree, also as T goes to 0.

    Leaves check.nc and check.html. Given two or more results instead of a model, compares those.
    With --identities a single result, or every engine's, is tested by sum rules and exact limits.

    They agree up to the distance to which every correlation would have shown a deviation of 20 %.

    Exit code: 0 agree (at least up to --distance), 1 disagree, 2 undecided, 3 could not run.

    Parameters
    ----------
    targets : MODEL.yaml | RESULT.nc ...
        a model file, or stored results
    backends
        comma-separated engines [all that are found and can solve it]
    output
        directory of runs and report [runs/NAME]
    identities
        test each result alone, by exact identities
    """
    from bilayer_orchestra.cli import verdicts
    from bilayer_orchestra.plots.try_to_draw import check_style

    check_style(style)
    names = [part.strip() for part in backends.split(",")] if backends else []
    asked = verdicts.Asked(targets, names, output, overrides, distance, any_version)
    if identities:
        word = asked.each_alone()
    else:
        stored = any(target.suffix == ".nc" for target in targets)
        outcome, root = asked.compare_results() if stored else asked.compare_engines()
        verdicts.report(outcome, root, style)
        word = outcome.word
    raise typer.Exit(EXIT_CODES[word])
