"""How a function becomes a command, and the options that several commands share.

The modules of commands do without ``from __future__ import annotations``: the parser would compile
every annotation of every command again, which is a tenth of the time that ``--help`` takes.
"""

import functools
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_origin

import typer

from bilayer_orchestra.files import user_path

#: Second names of options, the same in every command.
SHORT = {"backend": ["-b"], "output": ["-o"]}
#: What several commands take: what stands for its value, and the help.
SHARED = {
    "backend": ("", "an installed engine (`orchestra doctor` lists them), or auto"),
    "engine": ("", "name of the engine"),
    "image": ("KIND=FILE", "image of an engine"),
    "model_file": ("MODEL.yaml", "the model file"),
    "site": ("", "slurm: site profile, a TOML file or a name [the study's]"),
    "strict": ("", "end with exit code 4 if a result is not converged"),
    "study_file": ("STUDY.yaml", "the study file"),
    "style": ("FILE", "a matplotlib style for the picture [the program's own]"),
}
_PARAMETERS = "\n\nParameters\n----------\n"
#: One of them: its name, what stands for its value, and the lines about it.
_ENTRY = re.compile(r"^(\w+)(?: : (.+))?\n((?: +.+\n?)+)", re.M)

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="replace one value, e.g. t_perp=0.3"),
]
AnyVersion = Annotated[
    bool | None,
    typer.Option(
        "--any-version/--this-version",
        help="take results of another version of an engine, or compute them again [ask]",
        show_default=False,
    ),
]


class PathTyper(typer.Typer):
    """Makes commands of functions, whose docstrings say what their parameters are.

    A parameter with a default is an option, one without an argument. A section ``Parameters`` (as
    numpydoc has it) describes each: after the colon what stands for its value in the help, below
    it the help. Those in :data:`SHARED` are described there, and what an annotation describes is
    left to typer.

    Every path has its ``~`` replaced, also that of ``--output=~/runs``.
    """

    def command(self, *args: Any, **settings: Any) -> Callable[[Callable[..., None]], Any]:
        """Return a decorator that makes a function a command."""
        register = super().command(*args, **settings)

        def decorate(function: Callable[..., None]) -> Any:
            text, _, section = (inspect.getdoc(function) or "").partition(_PARAMETERS)
            about = SHARED | {name: lines for name, *lines in _ENTRY.findall(section)}

            @functools.wraps(function)
            def call(**arguments: Any) -> None:
                function(**{name: _replaced(value) for name, value in arguments.items()})

            parameters = inspect.signature(function, eval_str=True).parameters.values()
            call.__doc__ = text
            call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
                [_described(one, *about.get(one.name, ("", ""))) for one in parameters]
            )
            return register(call)

        return decorate


def _described(parameter: inspect.Parameter, metavar: str, text: str) -> inspect.Parameter:
    """Return the parameter as typer has it: an option with these words, or an argument."""
    named = parameter.replace(kind=parameter.KEYWORD_ONLY)
    if not text or get_origin(named.annotation) is Annotated:
        return named
    words: dict[str, Any] = {"metavar": metavar or None, "help": " ".join(text.split())}
    if named.default is named.empty:
        return named.replace(default=typer.Argument(**words))
    names = [f"--{named.name.replace('_', '-')}", *SHORT.get(named.name, [])]
    if named.default is True:
        names = []  # typer's own can switch it off as well: --no-plot
    return named.replace(default=typer.Option(named.default, *names, **words))


def _replaced(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_replaced(item) for item in value]
    # the parser takes the = of -o=DIR for a part of the name
    return user_path(str(value).removeprefix("=")) if isinstance(value, Path) else value
