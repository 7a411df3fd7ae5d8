"""Run a job on this machine, as a child process that does not outlive the orchestrator."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bilayer_orchestra.backends.base import Job
from bilayer_orchestra.errors import EngineError, MissingEngineError

LOG = "engine.log"
#: Seconds between two looks at the job, and how long a stopped engine may take to end.
POLL, SLOWEST_POLL, GRACE = 0.05, 0.5, 20.0


class LocalRuntime:
    """Child processes of this one."""

    name = "local"

    def execute(
        self, job: Job, directory: Path, lock: int, on_poll: Callable[[], None]
    ) -> dict[str, str]:
        """Run ``job``; see :class:`bilayer_orchestra.runtimes.base.Runtime`."""
        command = [*program_words(job.program), *job.arguments]
        environment = {**os.environ, **job.environment, **engine_environment(job.engine)}
        place = run_child(command, directory, environment, lock, on_poll, job.program)
        return {"runtime": self.name, **place}


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
    with (directory / LOG).open("ab") as log:
        log.write(f"--- {' '.join(command)}\n".encode())
        log.flush()
        start = log.tell()
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment or None,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(lock,),
            start_new_session=True,  # Ctrl-C reaches us alone; we stop the engine in order
        )
        begin = time.monotonic()
        guard = _Guard(process.pid, grace)
        try:
            while True:
                try:
                    # a long run is looked at less often: each look costs processor time
                    process.wait(min(POLL + (time.monotonic() - begin) / 50, SLOWEST_POLL))
                    break
                except subprocess.TimeoutExpired:
                    on_poll()
        except BaseException:
            _stop(process)
            raise
        finally:
            guard.dismiss()
    if process.returncode != 0:
        raise EngineError(_failure(program, process.returncode, directory / LOG, start))
    return {"host": platform.node()}


def program_words(name: str) -> list[str]:
    """Return the command that starts a job's program on this machine."""
    if name == "python":
        return [sys.executable]
    if name == "sh":
        return ["sh"]
    if name == "julia":
        from bilayer_orchestra.engines.julia import find_julia

        return [str(find_julia().binary)]
    raise MissingEngineError(f"this runtime does not know the program `{name}`")


def engine_environment(engine: str | None) -> dict[str, str]:
    """Return the variables that say where a user-installed engine is."""
    if engine is None:
        return {}
    if engine == "alf":
        from bilayer_orchestra.engines.alf import alf_environment

        return alf_environment()
    if engine == "julia":
        from bilayer_orchestra.engines.julia import find_julia

        return find_julia().environment
    raise MissingEngineError(f"this runtime does not know where the engine `{engine}` is")


class _Guard:
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


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _failure(program: str, code: int, log: Path, start: int) -> str:
    with log.open("rb") as stream:
        stream.seek(start)
        lines = stream.read().decode(errors="replace").strip().splitlines()
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    hint = " (out of memory?)" if code == -signal.SIGKILL else ""
    tail = "\n".join(f"  {line}" for line in lines[-8:]) or "  (it printed nothing)"
    return f"the engine ({program}) ended with {how}{hint}; its last lines, from {log}:\n{tail}"
