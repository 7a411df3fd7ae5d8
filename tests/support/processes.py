"""Processes of the tests: waited for, and ended at a moment that is known."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def wait_until(
    condition: Callable[[], object],
    process: subprocess.Popen | None = None,
    seconds: float = 300.0,
) -> None:
    """Wait for ``condition``; ``process`` must not end before. The limit is for what hangs."""
    limit = time.monotonic() + seconds
    while not condition():
        code = None if process is None else process.poll()
        assert code is None, f"ended with {code} before what was waited for"
        assert time.monotonic() < limit, "never came"
        time.sleep(0.01)


def kill_when(
    condition: Callable[[], object],
    process: subprocess.Popen,
    how: signal.Signals = signal.SIGKILL,
) -> None:
    """Send a signal as soon as ``condition`` holds; the process must not have ended by itself."""
    wait_until(condition, process)
    process.send_signal(how)
    process.communicate()  # ends when the last child has closed the pipe, if there is one
    assert process.returncode != 0, "ended by itself before the signal came"


def is_alive(process: int) -> bool:
    """Return whether there is a process of this number that has not ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(process: int) -> list[str]:
    """Return the names of the processes that ``process`` started and that run."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = file.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue  # it ended meanwhile
        state, parent, *_ = rest.split()
        if int(parent) == process and state != "Z":
            found.append(name)
    return found
