"""Progress: one live line on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.markup import escape

from bilayer_orchestra.display.console import Output, is_quiet, live_line


@contextmanager
def progress(console: Output, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Yield what shows a line on ``console`` for the duration of the block.

    If it is several lines, a log does not repeat those that stay the same.
    """
    if quiet or is_quiet():
        yield lambda line: None
        return
    start, known = time.monotonic(), list[str]()
    with live_line(console) as status:

        def show(line: str) -> None:
            rows = line.split("\n")
            news = rows if status else [row for row in rows if row not in known]
            known[:] = rows
            text = f"{time.monotonic() - start:6.1f} s  " + "\n          ".join(news)
            if status:
                status.update(escape(text))
            elif news:
                console.say(text)

        yield show
