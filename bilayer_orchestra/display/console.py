"""Where tables and progress go."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status

#: Columns of a log, which wraps for itself.
LOG_WIDTH = 240


class Output(Console):
    """A console that prints lines as they are."""

    def say(self, text: str) -> None:
        """Print a line: no markup, no folding."""
        self.print(text, markup=False, highlight=False, soft_wrap=True)

    def on_broken_pipe(self) -> None:
        """Leave it to `main`: the console's own exit code, 1, is a verdict of `check`."""
        raise BrokenPipeError


def output_console(least_width: int = 0) -> Output:
    """Return standard output; tables in a log are not folded to a terminal's 80 columns.

    Parameters
    ----------
    least_width : int
        Columns that a table needs to be read as a whole, however narrow the terminal.
    """
    console = Output()
    console.width = max(console.width, least_width) if console.is_terminal else LOG_WIDTH
    return console


def is_quiet() -> bool:
    """Return whether errors alone are wanted, as with ``--quiet``."""
    return logging.getLogger("bilayer_orchestra").level >= logging.ERROR


@contextmanager
def live_line(console: Console) -> Iterator[Status | None]:
    """Yield the line that a terminal or a notebook shows for the duration of the block.

    None in a log, and if the console is quiet.
    """
    if (console.is_terminal or console.is_jupyter) and not console.quiet:
        with console.status("starting") as status:
            yield status
    else:
        yield None
