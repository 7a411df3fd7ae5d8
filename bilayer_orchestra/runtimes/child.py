"""Child processes of this one that do not outlive it: one for every job, or for many.

Workers hold an engine and solve one job after the other, for engines whose start costs more than a
small job. What happens in one (a crash, the kernel's out-of-memory killer) ends one job, and the
next job gets a new worker.
"""

import contextlib
import itertools
import json
import logging
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from bilayer_orchestra.engine_side.worker import LOG
from bilayer_orchestra.errors import EngineError
from bilayer_orchestra.files import open_log, quoted

_log = logging.getLogger(__name__)

#: Begins every engine: what it writes is writable by nobody else, and its directory is looked at
#: once it is inside, where nobody can put another one in its place.
_ENTER = """umask go-w
cd -P -- "$0" && [ -O . ] || { echo "orchestra: $0 was replaced by another user's" >&2; exit 1; }
exec "$@"
"""
#: Stops the engine $1 when the pipe of its standard input closes: with $2 seconds for an end in
#: order, together with all that it started, since it leads a process group of its own.
_GUARD = 'read -r _; [ "$2" = 0 ] || { kill -TERM "$1"; sleep "$2"; }; kill -KILL "-$1"'
#: Seconds between the first looks at a job.
POLL = 0.05
#: Most seconds between two looks.
SLOWEST_POLL = 0.5
#: Seconds that a stopped engine may take to end.
GRACE = 20.0
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


class Child:
    """An engine's process, which does not outlive this one, however this one ends.

    A guard waits at a pipe whose other end this process holds; the kernel closes it at its death.
    Linux' "die with your parent" would have to be asked for between fork and exec, which is unsafe
    while other threads load libraries, and takes the end of the starting thread for the parent's.

    Parameters
    ----------
    command : sequence of str
        The program and its arguments.
    directory : Path
        Where it runs.
    environment : mapping
        The whole environment of the child; empty: the inherited one.
    log : file
        Takes what it prints.
    descriptor : int
        An open file that it inherits.
    grace : float
        Seconds between SIGTERM and SIGKILL when this process dies first; 0: SIGKILL at once.
        A container's runtime needs some, to end what it contains.
    """

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        environment: Mapping[str, str],
        log: IO[bytes],
        descriptor: int,
        grace: float = 0.0,
    ) -> None:
        self.process = subprocess.Popen(
            ["sh", "-c", _ENTER, str(directory.absolute()), *command],
            env=environment or None,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(descriptor,),
            start_new_session=True,  # Ctrl-C reaches us alone; we stop the engine in order
        )
        self._guard = subprocess.Popen(
            ["sh", "-c", _GUARD, "guard", str(self.process.pid), f"{grace:g}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def stop(self) -> None:
        """End the process, in order if it can; nothing happens if it has ended already."""
        self.process.terminate()
        try:
            self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        # before its pipe closes: the engine's number may be another process's by now
        self._guard.kill()
        self._guard.wait()
        assert self._guard.stdin is not None
        self._guard.stdin.close()

    def explain_end(self, program: str, log: Path, start: int) -> str:
        """Wait for the end and explain it.

        Parameters
        ----------
        program : str
            What is called the engine's program.
        log : Path
            What it printed is there.
        start : int
            Bytes of the log that others have written before.
        """
        code = self.process.wait()
        with log.open("rb") as stream:
            stream.seek(start)
            text = stream.read().decode(errors="replace")
        how = f"ended with exit code {code}"
        number = -code if code < 0 else code - 128  # of a signal; a shell says 128 + number
        if number > 0:
            name = next((one.name for one in signal.Signals if one == number), f"signal {number}")
            how = f"was killed by {name}{_CAUSES.get(number, '')}"
        last = quoted(text) or f"  {SILENT}"
        return f"the engine ({program}) {how}; its last lines, from {log}:\n{last}"


def run_child(
    command: list[str],
    directory: Path,
    environment: Mapping[str, str],
    lock: int,
    on_poll: Callable[[], None],
    program: str,
    grace: float = 0.0,
) -> None:
    """Run ``command`` in ``directory`` until it ends.

    Parameters
    ----------
    command, directory, environment, grace
        See :class:`Child`.
    lock : int
        Descriptor of the run's lock, which the child holds, too.
    on_poll : callable
        Called several times per second; if it raises, the child is stopped.
    program : str
        What is called the engine's program in messages.
    """
    with open_log(directory / LOG) as log:
        _log.debug("in %s: %s", directory, shlex.join(command))
        log.write(f"--- {' '.join(command)}\n".encode())
        log.flush()
        start = log.tell()
        child = Child(command, directory, environment, log, lock, grace)
        try:
            for pause in pauses():
                try:
                    child.process.wait(pause)
                    break
                except subprocess.TimeoutExpired:
                    on_poll()
        finally:
            child.stop()
    if child.process.returncode != 0:
        raise EngineError(child.explain_end(program, directory / LOG, start))


def pauses() -> Iterator[float]:
    """Yield the seconds until the next look: each costs processor time, so they become rarer."""
    begin = time.monotonic()
    while True:
        yield min(POLL + (time.monotonic() - begin) / 50, SLOWEST_POLL)


class Workers:
    """Idle workers by module and environment; each is used by one thread at a time."""

    def __init__(self) -> None:
        self._idle: dict[object, list[_Worker]] = {}
        self._lock = threading.Lock()

    def execute(
        self,
        module: str,
        environment: dict[str, str],
        directory: Path,
        lock: int,
        on_poll: Callable[[], None],
    ) -> None:
        """Have a worker of ``module`` solve the job in ``directory``.

        Parameters
        ----------
        module : str
            Python module that calls :func:`bilayer_orchestra.engine_side.worker.serve`.
        directory : Path
            Where the job is.
        environment : dict
            The whole environment of the worker; another environment means another worker.
        lock : int
            Descriptor of the run's lock, which the worker holds, too.
        on_poll : callable
            Called several times per second; if it raises, the worker is stopped.

        Raises
        ------
        EngineError
            If the job fails or the worker dies.
        """
        with self._lock:
            idle = self._idle.setdefault((module, frozenset(environment.items())), [])
            worker = idle.pop() if idle else None
        if worker is not None and worker.child.process.poll() is not None:
            worker.stop()
            worker = None
        worker = worker or _Worker(module, environment, directory)
        try:
            worker.solve(directory, lock, on_poll)
        except BaseException:
            worker.stop()
            raise
        idle.append(worker)

    def close(self) -> None:
        """End all workers, which are idle by now."""
        for worker in itertools.chain.from_iterable(self._idle.values()):
            worker.stop(GRACE)
        self._idle.clear()


class _Worker:
    def __init__(self, module: str, environment: dict[str, str], directory: Path) -> None:
        self._name = module.split(".")[-2]
        self._channel, far = socket.socketpair()
        # -P: modules are never taken from the directory one happens to be in
        command = [sys.executable, "-P", "-m", module, str(far.fileno())]
        with far, open_log(directory / LOG) as log:
            self.child = Child(command, directory, environment, log, far.fileno())

    def solve(self, directory: Path, lock: int, on_poll: Callable[[], None]) -> None:
        log = directory / LOG
        with open_log(log) as stream:
            stream.write(f"--- worker {self.child.process.pid}\n".encode())
            start = stream.tell()
        message = json.dumps({"directory": str(directory.absolute())}).encode() + b"\n"
        try:
            socket.send_fds(self._channel, [message], [lock])
            answer = self._answer(on_poll)
        except OSError:
            answer = b""
        if not answer:
            raise EngineError(self.child.explain_end(self._name, log, start))
        error = json.loads(answer)["error"]
        if error is not None:
            said = quoted(error) or f"  {SILENT}"
            raise EngineError(f"the engine ({self._name}) failed, see {log}:\n{said}")

    def _answer(self, on_poll: Callable[[], None]) -> bytes:
        """Return the answer, or nothing if the worker died."""
        answer = b""
        for pause in pauses():
            self._channel.settimeout(pause)
            try:
                piece = self._channel.recv(65536)
            except TimeoutError:
                on_poll()
                continue
            answer += piece
            if not piece or answer.endswith(b"\n"):
                break
        return answer if answer.endswith(b"\n") else b""

    def stop(self, patience: float = 0.0) -> None:
        """End the worker; an idle one ends itself when it sees its channel close."""
        self._channel.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.process.wait(patience)
        self.child.stop()
