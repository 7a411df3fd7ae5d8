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
from collections.abc import Callable
from pathlib import Path

from bilayer_orchestra.errors import EngineError
from bilayer_orchestra.files import open_log, quoted
from bilayer_orchestra.runtimes.child import GRACE, LOG, SILENT, Child, pauses

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
        if worker is not None and worker.child.process.poll() is not None:
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

    def dismiss(self) -> None:
        """End the idle worker: it sees its channel close."""
        self._channel.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.process.wait(GRACE)
        self.stop()

    def stop(self) -> None:
        """End the worker, whatever it does."""
        self._channel.close()
        self.child.stop()
