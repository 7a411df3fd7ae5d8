"""What is shown while something is computed, on a terminal, in a log, in a notebook."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from bilayer_orchestra.heartbeat import repeating

#: Columns of a log, which wraps for itself.
LOG_WIDTH = 240
#: Seconds between two signs of life in the log of a study.
HEARTBEAT = 30.0
#: Seconds to the first of them.
FIRST_BEAT = 3.0


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


def _since(start: float) -> str:
    return f"{time.monotonic() - start:6.1f} s"


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
            text = f"{_since(start)}  " + "\n          ".join(news)
            if status:
                status.update(escape(text))
            elif news:
                console.say(text)

        yield show


class PointsShown:
    """One live line over all points on a terminal; in a log, a line for each point that ends.

    Parameters
    ----------
    console : Output
        Where lines go.
    status : Status or None
        The live line; None: a log.
    total : int
        Number of points.
    """

    def __init__(self, console: Output, status: Status | None, total: int) -> None:
        self._console, self._status, self._total = console, status, total
        self._lines: dict[str, str] = {}
        self._done = self._failed = 0
        self._start = time.monotonic()
        self._lock = threading.Lock()

    def progress(self, name: str, line: str) -> None:
        """Show how far one point is."""
        with self._lock:
            self._lines[name] = line
            self._update()

    def ended(self, name: str, error: str | None, reused: bool) -> None:
        """Count one point.

        Parameters
        ----------
        name : str
            The point.
        error : str or None
            Why it failed.
        reused : bool
            Whether its result was there.
        """
        with self._lock:
            self._lines.pop(name, None)
            self._done += 1
            self._failed += error is not None
            if not reused:
                word = "finished" if error is None else f"failed: {error.splitlines()[0]}"
                self._say(f"{self._done} of {self._total}  {name}  {word}")
            self._update()

    def noted(self, name: str, line: str) -> None:
        """Say what must be known of one point."""
        with self._lock:
            self._say(f"{name}: {line}")

    def beat(self) -> None:
        """Say what is being computed; for a log."""
        with self._lock:
            running = "; ".join(f"{name}: {line}" for name, line in self._lines.items())
            self._say(f"{self._done} of {self._total}  running  {running}".rstrip())

    def _say(self, text: str) -> None:
        self._console.say(f"{_since(self._start)}  {text}")

    def _update(self) -> None:
        if self._status is None:
            return
        head = f"{_since(self._start)}  {self._done} of {self._total} done"
        head += f", {self._failed} failed" if self._failed else ""
        rows = [f"  {name}: {line}" for name, line in self._lines.items()]
        self._status.update(escape("\n".join([head, *rows[:8]])))


@contextmanager
def points_shown(console: Output, total: int) -> Iterator[PointsShown]:
    """Show what happens to the points of a study for the duration of the block."""
    if is_quiet():
        console = Output(quiet=True)
    with live_line(console) as status:
        shown = PointsShown(console, status, total)
        beats = repeating(shown.beat, HEARTBEAT, min(FIRST_BEAT, HEARTBEAT))
        with beats if status is None else nullcontext():
            yield shown
