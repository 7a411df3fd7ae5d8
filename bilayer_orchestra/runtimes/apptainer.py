"""Run a job on this machine inside an Apptainer (or Singularity) image.

Read-only image, nothing of the host but the job directory, no home, a clean environment.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bilayer_orchestra.engines.base import Engine, Job
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.images.use import Image, adapt, container_command, find_image
from bilayer_orchestra.runtimes.child import GRACE, run_child

#: Where the job directory is inside; where our images have their interpreters.
INSIDE = "/job"
PROGRAMS = {
    "sh": "sh",
    "python": "/opt/orchestra/bin/python",
    "julia": "/opt/orchestra/bin/julia",
}


class ApptainerRuntime:
    """One container per job."""

    name = "apptainer"

    def __init__(self, images: dict[str, str] | None = None) -> None:
        self.images = images or {}

    def adapt(self, backend: Engine) -> Engine:
        """Return ``backend`` with its engine in an image."""
        return adapt(backend, self.images)

    def execute(
        self, job: Job, directory: Path, lock: int, on_poll: Callable[[], None]
    ) -> dict[str, str]:
        """Run ``job``; see :class:`bilayer_orchestra.runtimes.base.Runtime`."""
        image = find_image(image_kind(job), self.images)
        command = [*container(container_command(), image, str(directory.absolute()), job)]
        command += [PROGRAMS[job.program], *job.arguments]
        place = run_child(command, directory, {}, lock, on_poll, job.program, grace=GRACE)
        return {"runtime": self.name, **place, **image_facts(image)}

    def close(self) -> None:
        """Every job had a container of its own: nothing is kept."""


def image_facts(image: Image) -> dict[str, str]:
    """Return what the dataset says about the image."""
    return {"image": image.path.name, "image_digest": image.digest}


def image_kind(job: Job) -> str:
    """Return which image a job needs."""
    if job.engine == "alf":
        return "alf"
    return "itensor" if job.engine == "julia" else "block2"


def container(command: str, image: Image, directory: str, job: Job) -> list[str]:
    """Return the words that start a program of ``job`` in ``image``.

    Parameters
    ----------
    directory : str
        Absolute path of the job directory; any characters but line breaks.
    """
    if "\n" in directory:
        raise OrchestraError(f"{directory!r} holds a line break; containers cannot bind it")
    source = directory.replace('"', '""')
    words = [command, "exec", "--containall", "--cleanenv", "--no-home"]
    # the long form: --bind would take a colon or a comma in the path for its own
    words += ["--mount", f'type=bind,"source={source}",destination={INSIDE}', "--pwd", INSIDE]
    for name, value in job.environment.items():
        words += ["--env", f"{name}={value}"]
    return [*words, str(image.path)]
