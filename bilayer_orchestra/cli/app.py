"""The commands in the order of ``--help``, which must answer at once.

Each is a function of a module beside this one, and imports what it needs when it is called.
"""

from typing import Annotated

import typer

from bilayer_orchestra.cli.machine import containers, doctor, engines, schema
from bilayer_orchestra.cli.options import PathTyper
from bilayer_orchestra.cli.results import CheckCommand, check, extrapolate, fit, plot
from bilayer_orchestra.cli.running import collect, render, run, status, sweep
from bilayer_orchestra.errors import ExitCode

app = PathTyper(
    name="orchestra",
    help="One model file, independent many-body engines, one labelled dataset.",
    epilog="Every command takes -v or -vv (say what is done, and how), --quiet (errors and results "
    "only) and --debug (show where in the code something failed).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (run, sweep, collect, check, render, status, fit, plot, extrapolate, schema, doctor):
    app.command(cls=CheckCommand if command is check else None)(command)
app.add_typer(engines, name="engines")
app.add_typer(containers, name="containers")


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="print the version")] = False,
) -> None:
    """One model file, independent many-body engines, one labelled dataset."""
    if version:
        from bilayer_orchestra import __version__

        typer.echo(f"orchestra {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(ExitCode.USAGE)
