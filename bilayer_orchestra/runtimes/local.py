"""Run a job on this machine: as a child process, or in a container.

A container is an Apptainer (or Singularity) image: read-only, nothing of the host but the job
directory, no home, a clean environment.
"""

import os
import platform
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from bilayer_orchestra.errors import MissingEngineError, OrchestraError
from bilayer_orchestra.images.use import container_command
from bilayer_orchestra.job import Job, Tools
from bilayer_orchestra.runtimes.base import AttachedRuntime
from bilayer_orchestra.runtimes.child import GRACE, Workers, run_child

#: Where the job directory is inside of a container.
INSIDE = "/job"


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
        if tools.image is not None:
            command = contained_command(container_command(), directory.absolute(), job, tools)
            run_child(command, directory, {}, lock, on_poll, job.program, grace=GRACE)
        elif self._workers is not None and job.worker is not None and tools.worker is not None:
            hosting = {**environment, **tools.worker}
            self._workers.execute(job.worker, hosting, directory, lock, on_poll)
        else:
            command = [program_path(job, tools), *job.arguments]
            run_child(command, directory, environment, lock, on_poll, job.program)
        return {"runtime": self.name, "host": platform.node(), **tools.image_facts()}

    def close(self) -> None:
        """End the engines that were kept."""
        if self._workers is not None:
            self._workers.close()


class ApptainerRuntime(LocalRuntime):
    """One container per job.

    Parameters
    ----------
    images : mapping of str to str
        Kind of image -> file, before what the configuration file says.
    """

    name = "apptainer"

    def __init__(self, images: Mapping[str, str]) -> None:
        super().__init__()
        self.images = images

    def contains(self, kind: str | None) -> bool:
        """Everything runs from an image here."""
        return True


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


def contained_command(
    container: str, directory: Path, job: Job, tools: Tools, binds: tuple[str, ...] = ()
) -> list[str]:
    """Return the words that run ``job`` in its image.

    Parameters
    ----------
    container : str
        The container program.
    directory : Path
        Absolute path of the job directory; any characters but line breaks.
    job, tools
        What runs, and where its programs are inside.
    binds : tuple of str
        Further directories of the host, as ``--bind`` takes them.
    """
    if "\n" in str(directory):
        raise OrchestraError(f"{str(directory)!r} holds a line break; containers cannot bind it")
    source = str(directory).replace('"', '""')
    words = [container, "exec", "--containall", "--cleanenv", "--no-home"]
    # the long form: --bind would take a colon or a comma in the path for its own
    words += ["--mount", f'type=bind,"source={source}",destination={INSIDE}', "--pwd", INSIDE]
    for name, value in job.environment.items():
        words += ["--env", f"{name}={value}"]
    for bind in binds:
        words += ["--bind", bind]
    return [*words, str(tools.image), program_path(job, tools), *job.arguments]
