"""Progress of a study: one live line over all points, or in a log a line for each that ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.markup import escape
from rich.status import Status

from bilayer_orchestra.display.console import Output, is_quiet, live_line

#: Seconds between two signs of life in a log.
HEARTBEAT = 30.0
FIRST_BEAT = 3.0


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
        self._done = self._failed = self._stored = 0
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
            self._stored += reused
            if not reused:
                word = "finished" if error is None else f"failed: {error.splitlines()[0]}"
                self._say(f"{self._done} of {self._total}  {name}  {word}")
            self._update()

    def noted(self, name: str, line: str) -> None:
        """Say what must be known of one point."""
        with self._lock:
            self._say(f"{name}: {line}")

    def _say(self, text: str) -> None:
        self._console.say(f"{self._elapsed()}  {text}")

    def beat(self, stop: threading.Event) -> None:
        """Say soon, then every half minute, what is being computed, until ``stop``; for a log."""
        pause = min(FIRST_BEAT, HEARTBEAT)
        while not stop.wait(pause):
            pause = HEARTBEAT
            with self._lock:
                running = "; ".join(f"{name}: {line}" for name, line in self._lines.items())
                self._say(f"{self._done} of {self._total}  running  {running}".rstrip())

    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._start:6.1f} s"

    def _update(self) -> None:
        if self._status is None:
            return
        head = f"{self._elapsed()}  {self._done} of {self._total} done"
        head += f", {self._failed} failed" if self._failed else ""
        rows = [f"  {name}: {line}" for name, line in self._lines.items()]
        self._status.update(escape("\n".join([head, *rows[:8]])))


@contextmanager
def points_shown(console: Output, total: int) -> Iterator[PointsShown]:
    """Show what happens to the points of a study for the duration of the block."""
    if is_quiet():
        console = Output(quiet=True)
    with live_line(console) as status:
        shown, stop = PointsShown(console, status, total), threading.Event()
        if status is not None:
            yield shown
            return
        beating = threading.Thread(target=shown.beat, args=(stop,), daemon=True)
        beating.start()
        try:
            yield shown
        finally:
            stop.set()
            beating.join()
