"""Run a job on this machine, as a child process that does not outlive the orchestrator."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from bilayer_orchestra.errors import MissingEngineError
from bilayer_orchestra.job import Job, Tools
from bilayer_orchestra.runtimes.base import AttachedRuntime
from bilayer_orchestra.runtimes.child import run_child
from bilayer_orchestra.runtimes.workers import Workers


class LocalRuntime(AttachedRuntime):
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
        self, job: Job, tools: Tools, directory: Path, lock: int, on_poll: Callable[[], None]
    ) -> dict[str, str]:
        """Run ``job``; see :class:`bilayer_orchestra.runtimes.base.AttachedRuntime`."""
        environment = {**os.environ, **job.environment, **tools.environment}
        if self._workers is not None and job.worker is not None and tools.worker is not None:
            hosting = environment | {**tools.worker}
            self._workers.execute(job.worker, hosting, directory, lock, on_poll)
            return {"runtime": self.name, "host": platform.node()}
        command = [program_path(job, tools), *job.arguments]
        place = run_child(command, directory, environment, lock, on_poll, job.program)
        return {"runtime": self.name, **place}

    def close(self) -> None:
        """End the engines that were kept."""
        if self._workers is not None:
            self._workers.close()


def program_path(job: Job, tools: Tools, python: str = sys.executable) -> str:
    """Return the path of a job's program: the engine's, or what every machine has.

    Parameters
    ----------
    job, tools
        What runs, and where its programs are.
    python : str
        The Python of this machine.
    """
    known = {"python": python, "sh": "sh"} | {**tools.programs}
    if job.program not in known:
        raise MissingEngineError(f"nobody says where the program `{job.program}` is")
    return known[job.program]
