"""Progress of a study: one live line over all points, or in a log a line for each that ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.status import Status

#: Seconds between two signs of life in a log.
HEARTBEAT = 30.0
FIRST_BEAT = 3.0


class PointsShown:
    """One live line over all points on a terminal; in a log, a line for each point that ends."""

    def __init__(self, console: Console, status: Status | None, total: int) -> None:
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
        """Count one point."""
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
        line = f"{self._elapsed()}  {text}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

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
def points_shown(console: Console, total: int, quiet: bool = False) -> Iterator[PointsShown]:
    """Show what happens to the points of a study for the duration of the block."""
    if quiet:
        console = Console(quiet=True)
    if console.is_terminal or console.is_jupyter:
        with console.status("starting") as status:
            yield PointsShown(console, status, total)
        return
    shown, stop = PointsShown(console, None, total), threading.Event()
    beating = threading.Thread(target=shown.beat, args=(stop,), daemon=True)
    beating.start()
    try:
        yield shown
    finally:
        stop.set()
        beating.join()
