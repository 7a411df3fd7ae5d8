"""Run a job on this machine inside an Apptainer (or Singularity) image.

Read-only image, nothing of the host but the job directory, no home, a clean environment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.images.use import container_command
from bilayer_orchestra.job import Job, Tools
from bilayer_orchestra.runtimes.base import AttachedRuntime, image_facts
from bilayer_orchestra.runtimes.child import GRACE, run_child
from bilayer_orchestra.runtimes.local import program_path

#: Where the job directory is inside.
INSIDE = "/job"


class ApptainerRuntime(AttachedRuntime):
    """One container per job."""

    name = "apptainer"

    def __init__(self, images: Mapping[str, str]) -> None:
        self.images = images

    def contains(self, kind: str | None) -> bool:
        """Everything runs from an image here."""
        return True

    def execute(
        self, job: Job, tools: Tools, directory: Path, lock: int, on_poll: Callable[[], None]
    ) -> dict[str, str]:
        """Run ``job``; see :class:`bilayer_orchestra.runtimes.base.AttachedRuntime`."""
        command = contained_command(container_command(), str(directory.absolute()), job, tools)
        place = run_child(command, directory, {}, lock, on_poll, job.program, grace=GRACE)
        return {"runtime": self.name, **place, **image_facts(tools)}


def contained_command(
    container: str, directory: str, job: Job, tools: Tools, binds: tuple[str, ...] = ()
) -> list[str]:
    """Return the words that run ``job`` in its image.

    Parameters
    ----------
    container : str
        The container program.
    directory : str
        Absolute path of the job directory; any characters but line breaks.
    binds : tuple of str
        Further directories of the host, as ``--bind`` takes them.
    """
    if "\n" in directory:
        raise OrchestraError(f"{directory!r} holds a line break; containers cannot bind it")
    source = directory.replace('"', '""')
    words = [container, "exec", "--containall", "--cleanenv", "--no-home"]
    # the long form: --bind would take a colon or a comma in the path for its own
    words += ["--mount", f'type=bind,"source={source}",destination={INSIDE}', "--pwd", INSIDE]
    for name, value in job.environment.items():
        words += ["--env", f"{name}={value}"]
    for bind in binds:
        words += ["--bind", bind]
    return [*words, str(tools.image), program_path(job, tools), *job.arguments]
