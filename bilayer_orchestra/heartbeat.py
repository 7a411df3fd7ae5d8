"""Signs of life from what is silent for minutes."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Seconds of silence after which something is said again.
INTERVAL = 60.0


class Heartbeat:
    """Repeats the newest line once a minute.

    Parameters
    ----------
    say : callable
        Receives every line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._line: str | None = None
        self._since = self._next = time.monotonic()

    def news(self, line: str) -> None:
        """Say a line, if it is not the newest one already."""
        if line != self._line:
            self._line, self._since = line, time.monotonic()
            self._next = self._since + INTERVAL
            self._say(line)

    def beat(self) -> None:
        """Say for how long there was nothing new, if it is time to."""
        now = time.monotonic()
        if self._line is not None and now >= self._next:
            self._next = now + INTERVAL
            self._say(f"{self._line} (for {(now - self._since) / 60:.0f} min by now)")


@contextmanager
def repeating(act: Callable[[], None], seconds: float, first: float) -> Iterator[None]:
    """Do something again and again, from another thread, while the block runs.

    Parameters
    ----------
    act : callable
        What is done.
    seconds, first : float
        Seconds from one time to the next, and from the beginning to the first.
    """
    ended = threading.Event()

    def repeat() -> None:
        pause = first
        while not ended.wait(pause):
            pause = seconds
            act()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def heartbeat(say: Callable[[str], None], line: str) -> Iterator[None]:
    """Say ``line`` and, from another thread, that the block still runs."""
    beating = Heartbeat(say)
    beating.news(line)
    with repeating(beating.beat, INTERVAL, INTERVAL):
        yield
