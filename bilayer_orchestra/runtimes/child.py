"""Child processes of this one that do not outlive it."""

from __future__ import annotations

import logging
import platform
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from bilayer_orchestra.errors import EngineError
from bilayer_orchestra.files import open_log

_log = logging.getLogger(__name__)

LOG = "engine.log"
#: Begins every engine: what it writes is writable by nobody else, and its directory is looked at
#: once it is inside, where nobody can put another one in its place.
_ENTER = """umask go-w
cd -P -- "$0" && [ -O . ] || { echo "orchestra: $0 was replaced by another user's" >&2; exit 1; }
exec "$@"
"""
#: Seconds between two looks at the job, and how long a stopped engine may take to end.
POLL, SLOWEST_POLL, GRACE = 0.05, 0.5, 20.0
#: Lines of a log that a message quotes; of a backtrace, no line of addresses.
QUOTED, _ADDRESS = 8, re.compile(r"\[0x[0-9a-f]+\]$")
SILENT = "(it printed nothing: `dmesg` may tell why it was ended, `ulimit -a` what it was allowed)"
#: What is mostly behind the signals that end a program.
_CAUSES: dict[int, str] = {
    signal.SIGKILL: " (out of memory?)",
    signal.SIGSEGV: " (memory that it did not get?)",
    signal.SIGBUS: " (a full disk?)",
    signal.SIGILL: " (built for another processor?)",
    signal.SIGXCPU: " (`ulimit -t` limits the processor time)",
    signal.SIGXFSZ: " (`ulimit -f` limits the size of files)",
}


def run_child(
    command: list[str],
    directory: Path,
    environment: dict[str, str],
    lock: int,
    on_poll: Callable[[], None],
    program: str,
    grace: float = 0.0,
) -> dict[str, str]:
    """Run ``command`` in ``directory`` as a child that does not outlive this process.

    Parameters
    ----------
    environment : dict
        The whole environment of the child; empty: the inherited one.
    program : str
        What is called the engine's program in messages.
    grace : float
        Seconds between SIGTERM and SIGKILL when this process dies first; 0: SIGKILL at once.
        A container's runtime needs some, to end what it contains.
    """
    with open_log(directory / LOG) as log:
        _log.debug("in %s: %s", directory, shlex.join(command))
        log.write(f"--- {' '.join(command)}\n".encode())
        log.flush()
        start = log.tell()
        process = start_child(command, directory, environment, log, (lock,))
        begin = time.monotonic()
        guard = Guard(process.pid, grace)
        try:
            while True:
                try:
                    # a long run is looked at less often: each look costs processor time
                    process.wait(min(POLL + (time.monotonic() - begin) / 50, SLOWEST_POLL))
                    break
                except subprocess.TimeoutExpired:
                    on_poll()
        except BaseException:
            stop_child(process)
            raise
        finally:
            guard.dismiss()
    if process.returncode != 0:
        raise EngineError(explain_end(program, process.returncode, directory / LOG, start))
    return {"host": platform.node()}


def start_child(
    command: list[str],
    directory: Path,
    environment: dict[str, str],
    log: IO[bytes],
    descriptors: tuple[int, ...],
) -> subprocess.Popen[bytes]:
    """Start ``command`` in ``directory``, its output in ``log``; it inherits ``descriptors``."""
    return subprocess.Popen(
        ["sh", "-c", _ENTER, str(directory.absolute()), *command],
        env=environment or None,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=descriptors,
        start_new_session=True,  # Ctrl-C reaches us alone; we stop the engine in order
    )


class Guard:
    """A process that stops an engine when this one is gone, however it ended.

    The engine leads its own process group, which is killed with it: a batch script has children.
    The guard waits at a pipe whose other end this process holds; the kernel closes it at its death.

    Linux' "die with your parent" would have to be asked for between fork and exec, which is unsafe
    while other threads load libraries, and takes the end of the starting thread for the parent's.
    """

    def __init__(self, engine: int, grace: float) -> None:
        script = 'read -r _; [ "$2" = 0 ] || { kill -TERM "$1"; sleep "$2"; }; kill -KILL "-$1"'
        self._process = subprocess.Popen(
            ["sh", "-c", script, "guard", str(engine), f"{grace:g}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """End the guard, before its pipe closes: the engine's number may be another's by now."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


def stop_child(process: subprocess.Popen[bytes]) -> None:
    """End ``process``, in order if it can."""
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def explain_end(program: str, code: int, log: Path, start: int) -> str:
    """Say how ``program`` ended, in the words that it wrote to ``log`` after ``start``."""
    with log.open("rb") as stream:
        stream.seek(start)
        text = stream.read().decode(errors="replace")
    how = f"ended with exit code {code}"
    number = -code if code < 0 else code - 128  # of a signal; a shell says 128 + number
    if number > 0:
        name = next((one.name for one in signal.Signals if one == number), f"signal {number}")
        how = f"was killed by {name}{_CAUSES.get(number, '')}"
    return f"the engine ({program}) {how}; its last lines, from {log}:\n{quoted(text)}"


def quoted(text: str) -> str:
    """Return the end of ``text``, indented; of a program that says ERROR, what follows that."""
    lines = [line for line in text.strip().splitlines() if not _ADDRESS.search(line)]
    errors = [k for k, line in enumerate(lines) if line.startswith("ERROR")]
    shown = lines[errors[-1] :][:QUOTED] if errors else lines[-QUOTED:]
    return "\n".join(f"  {line}" for line in shown) or f"  {SILENT}"
