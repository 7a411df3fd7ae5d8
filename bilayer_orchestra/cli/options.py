"""What commands take: paths as files mean them, and the options that several of them share.

The modules of commands do without ``from __future__ import annotations``: the parser would compile
every annotation of every command again, which is a tenth of the time that ``--help`` takes.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from bilayer_orchestra.user_files import user_path

ModelFile = Annotated[Path, typer.Argument(metavar="MODEL.yaml", help="the model file")]
BackendName = Annotated[
    str,
    typer.Option(
        "--backend", "-b", help="an installed engine (`orchestra doctor` lists them), or auto"
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="replace one value, e.g. t_perp=0.3"),
]
SiteName = Annotated[
    str | None, typer.Option(help="slurm: site profile, a TOML file or a name [the study's]")
]
Images = Annotated[
    list[str] | None,
    typer.Option("--image", metavar="KIND=FILE", help="image of an engine"),
]
Style = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="a matplotlib style for the picture [the program's own]"),
]
AnyVersion = Annotated[
    bool | None,
    typer.Option(
        "--any-version/--this-version",
        help="take results of another version of an engine, or compute them again [ask]",
        show_default=False,
    ),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="end with exit code 4 if a result is not converged")
]


class PathTyper(typer.Typer):
    """Its commands get every path with ``~`` replaced, also that of ``--output=~/runs``."""

    def command(self, *args: Any, **settings: Any) -> Callable[[Callable[..., None]], Any]:
        """Return a decorator that makes a function a command."""
        register = super().command(*args, **settings)

        def decorate(function: Callable[..., None]) -> Any:
            @functools.wraps(function)
            def call(**arguments: Any) -> None:
                function(**{name: _replaced(value) for name, value in arguments.items()})

            return register(call)

        return decorate


def _replaced(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_replaced(item) for item in value]
    # the parser takes the = of -o=DIR for a part of the name
    return user_path(str(value).removeprefix("=")) if isinstance(value, Path) else value
