"""The shell scripts of a submission, from templates/slurm; every word is quoted."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.files import file_sha256, sha256
from bilayer_orchestra.job import Tools
from bilayer_orchestra.resources import fill, resource
from bilayer_orchestra.runtimes.apptainer import contained_command
from bilayer_orchestra.runtimes.base import PlacedJob
from bilayer_orchestra.runtimes.local import program_path
from bilayer_orchestra.runtimes.slurm.site import Site


def task_script(placed: PlacedJob, site: Site) -> str:
    """Return ``task.sh`` of one job."""
    job, tools, directory = placed.job, placed.tools, (placed.run / "job").absolute()
    environment: dict[str, str] = {}
    launched = tools.image is not None and job.ranks > 1 and site.launcher and tools.launched
    if tools.image is None or launched:
        environment = {**job.environment, **tools.environment, **tools.launched}
        if job.launcher and site.launcher:
            inside = _launched(tools, directory, site) if launched else []
            environment[job.launcher] = " ".join([site.launcher, *inside])
        python = site.python or sys.executable
        command = [program_path(job, tools, python), *job.arguments]
    else:
        command = contained_command(site.container, str(directory), job, tools, site.binds)
    lines = [f"    export {name}={shlex.quote(value)}" for name, value in environment.items()]
    sums = [f"{sha256(text)}  {name}" for name, text in job.files.items()]
    sums += [f"{file_sha256(binary)}  {binary}" for binary in tools.binaries]
    values = {
        "ENVIRONMENT": "\n".join(lines),
        "COMMAND": shlex.join(command),
        "SUMS": "\n".join(sums),
        # compute nodes need nothing but a shell, unless the profile says that there is more
        "WATCH": shlex.join([site.python, *placed.watch]) if site.python and placed.watch else "",
    }
    return _filled("task.sh", values)


def batch_script(
    site: Site, name: str, sums: Sequence[Sequence[str]] = (), images: Mapping[Path, str] = {}
) -> str:
    """Return ``batch.sh`` of one array job.

    Parameters
    ----------
    sums : sequence of sequences of str
        SHA-256 of the task script of every point of every array task.
    images : mapping of Path to str
        Image that the points start -> its digest, ``sha256:...``.
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
        "IMAGES": "\n".join(
            f"{digest.removeprefix('sha256:')} {path}" for path, digest in images.items()
        ),
    }
    return _filled("batch.sh", values)


def _filled(template: str, values: dict[str, str]) -> str:
    return fill(resource("templates", "slurm", template).read_text(encoding="utf-8"), values)


def _launched(tools: Tools, directory: Path, site: Site) -> list[str]:
    """Return what a launcher, outside of the image, starts its MPI ranks inside with.

    It hands its ranks what they need to find each other in the environment and in /tmp, so these
    containers are not cut off from either.
    """
    words = [site.container, "exec", "--no-home", "--bind", str(directory)]
    words += [word for bind in site.binds for word in ("--bind", bind)]
    words.append(str(tools.image))
    for word in words:
        if re.search(r"\s", word) or (word == str(directory) and re.search("[:,]", word)):
            raise OrchestraError(
                f"{word!r} holds a space, a colon or a comma; MPI in containers cannot take it"
            )
    return words
