"""Where tables and progress go."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console

#: Columns of a log, which wraps for itself.
LOG_WIDTH = 240


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to `main`: the console's own exit code, 1, is a verdict of `check`."""
        raise BrokenPipeError


def output_console() -> Console:
    """Return standard output; tables in a log are not folded to a terminal's 80 columns."""
    console = _Console()
    if not console.is_terminal:
        console.width = LOG_WIDTH
    return console


def sayer(console: Console) -> Callable[[str], None]:
    """Return what prints a line as it is: no markup, no folding."""

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    return say
