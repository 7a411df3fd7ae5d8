"""Paths on the command line mean what they mean in files."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from bilayer_orchestra.user_files import user_path


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
