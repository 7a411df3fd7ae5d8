"""Run a job on this machine, as a child process that does not outlive the orchestrator."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from bilayer_orchestra.engines.base import Job
from bilayer_orchestra.errors import MissingEngineError
from bilayer_orchestra.runtimes.child import run_child
from bilayer_orchestra.runtimes.workers import Workers


class LocalRuntime:
    """Child processes of this one.

    Parameters
    ----------
    many : bool
        Whether many jobs are to come: engines whose start is expensive are then kept, and
        :meth:`close` ends them.
    """

    name = "local"

    def __init__(self, many: bool = False) -> None:
        self._workers = Workers() if many else None

    def execute(
        self, job: Job, directory: Path, lock: int, on_poll: Callable[[], None]
    ) -> dict[str, str]:
        """Run ``job``; see :class:`bilayer_orchestra.runtimes.base.Runtime`."""
        environment = {**os.environ, **job.environment, **engine_environment(job.engine)}
        if self._workers is not None and job.worker is not None:
            more = worker_environment(job.engine)
            if more is not None:
                self._workers.execute(job.worker, environment | more, directory, lock, on_poll)
                return {"runtime": self.name, "host": platform.node()}
        command = [*program_words(job.program), *job.arguments]
        place = run_child(command, directory, environment, lock, on_poll, job.program)
        return {"runtime": self.name, **place}

    def close(self) -> None:
        """End the engines that were kept."""
        if self._workers is not None:
            self._workers.close()


def program_words(name: str) -> list[str]:
    """Return the command that starts a job's program on this machine."""
    if name == "python":
        return [sys.executable]
    if name == "sh":
        return ["sh"]
    if name == "julia":
        from bilayer_orchestra.engines.itensor.julia import find_julia

        return [str(find_julia().binary)]
    raise MissingEngineError(f"this runtime does not know the program `{name}`")


def engine_environment(engine: str | None) -> dict[str, str]:
    """Return the variables that say where a user-installed engine is."""
    if engine is None:
        return {}
    if engine == "alf":
        from bilayer_orchestra.engines.alf.install.installation import alf_environment

        return alf_environment()
    if engine == "julia":
        from bilayer_orchestra.engines.itensor.julia import find_julia

        return find_julia().environment
    raise MissingEngineError(f"this runtime does not know where the engine `{engine}` is")


def worker_environment(engine: str | None) -> dict[str, str] | None:
    """Return what a worker of ``engine`` needs besides; None if there can be no worker here."""
    if engine == "julia":
        from bilayer_orchestra.engines.itensor.juliacall import juliacall_environment

        return juliacall_environment()
    return None
