"""The shell scripts of a submission, from templates/slurm; every word is quoted."""

from __future__ import annotations

import hashlib
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from bilayer_orchestra.engines.base import Job
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.images.use import Image
from bilayer_orchestra.resources import resource
from bilayer_orchestra.runtimes.slurm.site import Site

#: Where containers/alf.def leaves the program for several ranks.
MPI_PROGRAM = "/opt/orchestra/alf/ALF-MPI.out"


def task_script(job: Job, directory: Path, site: Site, contained: bool) -> str:
    """Return ``task.sh`` of one point.

    Parameters
    ----------
    directory : Path
        Absolute path of its job directory, as the compute nodes see it.
    contained : bool
        Whether the engine comes from an image.
    """
    environment: dict[str, str] = {}
    if contained and job.ranks > 1 and site.launcher:
        environment = {**job.environment, **_launched(job, directory, site)}
        command = [job.program, *job.arguments]
    elif contained:
        command = _contained(job, directory, site)
    else:
        from bilayer_orchestra.runtimes.local import engine_environment

        environment = {**job.environment, **engine_environment(job.engine)}
        if site.launcher and job.engine == "alf":
            environment["ORCHESTRA_ALF_LAUNCHER"] = site.launcher
        command = [*_native(job, site), *job.arguments]
    lines = [f"    export {name}={shlex.quote(value)}" for name, value in environment.items()]
    sums = [f"{sha256(text)}  {name}" for name, text in job.files.items()]
    if job.engine == "alf" and not contained:
        from bilayer_orchestra.engines.alf.install.installation import VARIABLE, binary_digest

        binary = environment[VARIABLE]
        sums.append(f"{binary_digest(Path(binary))}  {binary}")
    values = {
        "ENVIRONMENT": "\n".join(lines),
        "COMMAND": shlex.join(command),
        "SUMS": "\n".join(sums),
    }
    return fill("task.sh", values)


def sha256(text: str) -> str:
    """Return the SHA-256 of ``text`` as ``sha256sum`` prints it."""
    return hashlib.sha256(text.encode()).hexdigest()


def batch_script(
    site: Site, name: str, sums: Sequence[Sequence[str]] = (), images: Iterable[Image] = ()
) -> str:
    """Return ``batch.sh`` of one array job.

    Parameters
    ----------
    sums : sequence of sequences of str
        SHA-256 of the task script of every point of every array task.
    images : iterable of Image
        What the points start besides.
    """
    options = [
        f"--job-name={name}",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={site.cpus}",
        f"--time={site.time}",
        "--open-mode=append",
        "--requeue",
        # to the batch shell alone: it stops the engines in order
        *([f"--signal=B:USR1@{site.signal}"] if site.signal else []),
    ]
    for option, value in (
        ("partition", site.partition),
        ("account", site.account),
        ("qos", site.qos),
        ("mem", site.memory),
    ):
        options += [f"--{option}={value}"] if value else []
    options += [text.removeprefix("#SBATCH").strip() for text in site.sbatch]
    modules = []
    if site.modules:
        modules.append("command -v module >/dev/null || . /etc/profile")
        modules.append(f"module load {shlex.join(site.modules)} || exit 1")
    values = {
        "DIRECTIVES": "\n".join(f"#SBATCH {option}" for option in options),
        "MODULES": "\n".join(modules),
        "PROLOGUE": "\n".join(site.prologue),
        "PARALLEL": str(site.parallel),
        "REQUEUES": str(site.requeues),
        "SUMS": "\n".join(f'"{" ".join(pack)}"' for pack in sums),
        "IMAGES": "\n".join(f"{i.digest.removeprefix('sha256:')} {i.path}" for i in images),
    }
    return fill("batch.sh", values)


def fill(template: str, values: dict[str, str]) -> str:
    """Replace @NAME@ once; what is put in is not looked at again."""
    text = resource("templates", "slurm", template).read_text(encoding="utf-8")
    return re.sub(r"@([A-Z]+)@", lambda match: values[match[1]], text)


def _native(job: Job, site: Site) -> list[str]:
    if job.program == "python":
        return [site.python or sys.executable]
    from bilayer_orchestra.runtimes.local import program_words

    return program_words(job.program)


def _launched(job: Job, directory: Path, site: Site) -> dict[str, str]:
    """Return what makes the job, outside of the image, start its MPI ranks inside.

    The launcher hands its ranks what they need to find each other in the environment and in
    /tmp, so these containers are not cut off from either.
    """
    from bilayer_orchestra.images.use import find_image
    from bilayer_orchestra.runtimes.apptainer import image_kind

    image = find_image(image_kind(job), site.images)
    words = [site.container, "exec", "--no-home", "--bind", str(directory)]
    words += [word for bind in site.binds for word in ("--bind", bind)]
    words.append(str(image.path))
    for word in words:
        if re.search(r"\s", word) or (word == str(directory) and re.search("[:,]", word)):
            raise OrchestraError(
                f"{word!r} holds a space, a colon or a comma; MPI in containers cannot take it"
            )
    return {
        "ORCHESTRA_ALF": MPI_PROGRAM,
        "ORCHESTRA_ALF_LAUNCHER": " ".join([str(site.launcher), *words]),
    }


def _contained(job: Job, directory: Path, site: Site) -> list[str]:
    from bilayer_orchestra.images.use import find_image
    from bilayer_orchestra.runtimes.apptainer import PROGRAMS, container, image_kind

    if "\n" in str(directory):
        raise OrchestraError(f"{str(directory)!r} holds a line break; containers cannot bind it")
    image = find_image(image_kind(job), site.images)
    words = container(site.container, image, str(directory), job)
    binds = [word for bind in site.binds for word in ("--bind", bind)]
    return [*words[:-1], *binds, words[-1], PROGRAMS[job.program], *job.arguments]
