"""Progress: one live line on a terminal, plain lines in a log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.status import Status


class Progress:
    """Shows lines as they come."""

    def __init__(self, console: Console, status: Status | None) -> None:
        self._console, self._status = console, status
        self._start = time.monotonic()
        self._rows: list[str] = []

    def __call__(self, line: str) -> None:
        """Show a line; if it is several, a log does not repeat those that stay the same."""
        rows, known = line.split("\n"), self._rows
        self._rows = rows
        if self._status is None:
            rows = [row for row in rows if row not in known]
        text = f"{time.monotonic() - self._start:6.1f} s  " + "\n          ".join(rows)
        if self._status is not None:
            self._status.update(escape(text))
        elif rows:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress(console: Console, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Show progress on ``console`` for the duration of the block."""
    # --quiet leaves errors
    if quiet or logging.getLogger("bilayer_orchestra").level >= logging.ERROR:
        yield lambda line: None
    elif console.is_terminal or console.is_jupyter:
        with console.status("starting") as status:
            yield Progress(console, status)
    else:
        yield Progress(console, None)
