"""Workers: processes that hold an engine and solve one job after the other.

For engines whose start costs more than a small job. A worker is a child like any other: what
happens in it (a crash, the kernel's out-of-memory killer) ends one job, and the next job gets a new
worker.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bilayer_orchestra.errors import EngineError
from bilayer_orchestra.files import open_log
from bilayer_orchestra.runtimes.child import (
    GRACE,
    LOG,
    POLL,
    SLOWEST_POLL,
    Guard,
    explain_end,
    quoted,
    start_child,
    stop_child,
)

Key = tuple[str, tuple[tuple[str, str], ...]]


class Workers:
    """Idle workers by module and environment; each is used by one thread at a time."""

    def __init__(self) -> None:
        self._idle: dict[Key, list[_Worker]] = {}
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
        key = module, tuple(sorted(environment.items()))
        with self._lock:
            idle = self._idle.get(key)
            worker = idle.pop() if idle else None
        if worker is not None and not worker.alive:
            worker.stop()
            worker = None
        worker = worker or _Worker(module, environment, directory)
        try:
            worker.solve(directory, lock, on_poll)
        except BaseException:
            worker.stop()
            raise
        with self._lock:
            self._idle.setdefault(key, []).append(worker)

    def close(self) -> None:
        """End all workers, which are idle by now."""
        with self._lock:
            workers = [worker for idle in self._idle.values() for worker in idle]
            self._idle.clear()
        for worker in workers:
            worker.dismiss()


class _Worker:
    def __init__(self, module: str, environment: dict[str, str], directory: Path) -> None:
        self._name = module.split(".")[-2]
        self._channel, far = socket.socketpair()
        # -P: modules are never taken from the directory one happens to be in
        command = [sys.executable, "-P", "-m", module, str(far.fileno())]
        with far, open_log(directory / LOG) as log:
            self._process = start_child(command, directory, environment, log, (far.fileno(),))
        self._guard = Guard(self._process.pid, 0)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def solve(self, directory: Path, lock: int, on_poll: Callable[[], None]) -> None:
        log = directory / LOG
        with open_log(log) as stream:
            stream.write(f"--- worker {self._process.pid}\n".encode())
            start = stream.tell()
        message = json.dumps({"directory": str(directory.absolute())}).encode() + b"\n"
        try:
            socket.send_fds(self._channel, [message], [lock])
            answer = self._wait(on_poll)
        except OSError:
            answer = b""
        if not answer:
            code = self._process.wait()
            raise EngineError(explain_end(self._name, code, log, start))
        error = json.loads(answer)["error"]
        if error is not None:
            raise EngineError(f"the engine ({self._name}) failed, see {log}:\n{quoted(error)}")

    def _wait(self, on_poll: Callable[[], None]) -> bytes:
        """Return the answer, or nothing if the worker died."""
        begin, answer = time.monotonic(), b""
        while not answer.endswith(b"\n"):
            self._channel.settimeout(min(POLL + (time.monotonic() - begin) / 50, SLOWEST_POLL))
            try:
                piece = self._channel.recv(65536)
            except TimeoutError:
                on_poll()
                continue
            if not piece:
                return b""
            answer += piece
        return answer

    def dismiss(self) -> None:
        """End the idle worker: it sees its channel close."""
        self._channel.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE)
        self.stop()

    def stop(self) -> None:
        """End the worker, whatever it does."""
        self._channel.close()
        stop_child(self._process)
        self._guard.dismiss()
