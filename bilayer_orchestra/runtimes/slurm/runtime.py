"""A Slurm cluster as a runtime: it takes jobs, and says later what became of them.

One array job holds many of them, and the SHA-256 of all that it starts. Its shell scripts are made
from templates/slurm; every word is quoted.
"""

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bilayer_orchestra import files
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.job import Job, Tools
from bilayer_orchestra.resources import fill, resource
from bilayer_orchestra.runtimes.base import Runtime
from bilayer_orchestra.runtimes.local import contained_command, program_path
from bilayer_orchestra.runtimes.slurm.site import SiteProfile
from bilayer_orchestra.runtimes.slurm.state import job_of, read_marker
from bilayer_orchestra.timestamps import utc_now

T = TypeVar("T")

#: The line of sbatch's answer that names the job, with --parsable and without.
_NUMBER = re.compile(r"^(?:Submitted batch job )?(\d+)(?:;\S*| on cluster \S+)?\s*$", re.MULTILINE)
#: Script of an array job, in the directory of the submission.
BATCH = "batch.sh"
#: Script of one point, in its run directory.
TASK = "task.sh"
#: Directory of the submission with links to the points of every array task.
TASKS = "tasks"


@dataclass(frozen=True)
class PlacedJob:
    """A job for a queue.

    Parameters
    ----------
    run : Path
        The run directory in whose ``job/`` it runs.
    job, tools
        What runs.
    watch : tuple of str
        Arguments of a Python, started in the run directory beside the job, that leaves the file
        ``job/stop`` once the job has done enough; empty: there is nothing to watch.
    """

    run: Path
    job: Job
    tools: Tools
    watch: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chunk:
    """One array job.

    Parameters
    ----------
    name : str
        What the scheduler calls it.
    directory : Path
        Where its script, links and logs are.
    packs : list of list of PlacedJob
        The jobs of every array task.
    """

    name: str
    directory: Path
    packs: list[list[PlacedJob]]

    @property
    def jobs(self) -> list[PlacedJob]:
        """The jobs of all array tasks."""
        return list(itertools.chain.from_iterable(self.packs))


class SlurmRuntime(Runtime):
    """Array jobs of one site.

    Parameters
    ----------
    site : SiteProfile
        What its scheduler wants to hear.
    named : str, optional
        How the profile was named.
    """

    name = "slurm"

    def __init__(self, site: SiteProfile, named: str | None = None) -> None:
        self.site, self.images, self.named = site, site.images, named

    def contains(self, kind: str | None) -> bool:
        """Engines run from the images that the site names, others are native."""
        return kind in self.site.images

    def plan(self, jobs: Sequence[PlacedJob], root: Path, name: str) -> list[Chunk]:
        """Return the array jobs that compute ``jobs``; writes nothing.

        Parameters
        ----------
        jobs : sequence of PlacedJob
            What is submitted.
        root : Path
            Directory beside whose runs the submissions are kept.
        name : str
            What the scheduler calls the jobs.
        """
        packs = _batched(jobs, self.site.points_per_task)
        stamp = utc_now().replace(":", "").replace("-", "")[:15]
        folder = root / f"{name}.slurm"
        if files.other_owner(folder) is not None:  # who has the same study in this directory
            folder = root / f"{name}.{files.user_name(os.geteuid())}.slurm"
        return [
            Chunk(name, _fresh(folder / f"{stamp}-{number}"), group)
            for number, group in enumerate(_batched(packs, self.site.array_limit))
        ]

    def command(self, chunk: Chunk) -> list[str]:
        """Return the call of sbatch."""
        array = f"--array=0-{len(chunk.packs) - 1}"
        array += f"%{self.site.concurrent}" if self.site.concurrent else ""
        place = chunk.directory.absolute()
        # relative to --chdir: a file name pattern must not see the characters of our paths
        where = [f"--chdir={place}", "--output=task-%a.log", str(place / BATCH)]
        return ["sbatch", "--parsable", array, *where]

    def batch_script(self, chunk: Chunk) -> str:
        """Return ``batch.sh`` of one array job."""
        site = self.site
        named = {
            "job-name": chunk.name,
            "nodes": 1,
            "ntasks": 1,
            "cpus-per-task": site.cpus,
            "time": site.time,
            "open-mode": "append",
            # to the batch shell alone: it stops the engines in order
            "signal": f"B:USR1@{site.signal}" if site.signal else None,
            "partition": site.partition,
            "account": site.account,
            "qos": site.qos,
            "mem": site.memory,
        }
        options = [f"--{name}={value}" for name, value in named.items() if value is not None]
        options += ["--requeue", *(text.removeprefix("#SBATCH").strip() for text in site.sbatch)]
        modules = []
        if site.modules:
            modules.append("command -v module >/dev/null || . /etc/profile")
            modules.append(f"module load {shlex.join(site.modules)} || exit 1")
        tools = [one.tools for one in chunk.jobs if one.tools.image is not None]
        images = {one.image: one.image_digest.removeprefix("sha256:") for one in tools}
        sums = [[files.sha256(task_script(one, site)) for one in pack] for pack in chunk.packs]
        values = {
            "DIRECTIVES": "\n".join(f"#SBATCH {option}" for option in options),
            "MODULES": "\n".join(modules),
            "PROLOGUE": "\n".join(site.prologue),
            "PARALLEL": str(site.parallel),
            "REQUEUES": str(site.requeues),
            "SUMS": "\n".join(f'"{" ".join(pack)}"' for pack in sums),
            "IMAGES": "\n".join(f"{digest} {path}" for path, digest in images.items()),
        }
        return _filled(BATCH, values)

    def submit(self, chunk: Chunk) -> str:
        """Write and submit one array job, whose run directories are there; return its number.

        Raises
        ------
        OrchestraError
            With what sbatch said.
        """
        _link(chunk)
        for one in chunk.jobs:
            files.write_text_atomic(one.run / TASK, task_script(one, self.site))
        script, command = chunk.directory / BATCH, self.command(chunk)
        files.write_text_atomic(script, self.batch_script(chunk))
        try:
            answer = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            shutil.rmtree(chunk.directory, ignore_errors=True)
            raise OrchestraError(f"sbatch cannot be started: {error.strerror}") from error
        found = set(_NUMBER.findall(answer.stdout)) if answer.returncode == 0 else set()
        # sites wrap sbatch and print numbers of their own, and a busy scheduler may take a job
        # without saying so: it is asked then
        number = found.pop() if len(found) == 1 else job_of(script.absolute())
        if number is None:
            said = (answer.stderr.strip() or answer.stdout.strip() or "nothing").splitlines()
            text = "\n".join(f"  {line}" for line in said)
            did = (
                f"refused this job (exit code {answer.returncode})"
                if answer.returncode
                else "gave no single number for this job, and squeue does not show it; look before "
                "you submit again,"
            )
            raise OrchestraError(
                f"sbatch {did} and said:\n{text}\nthe call was: {shlex.join(command)}"
            )
        files.write_text_atomic(chunk.directory / "job", number + "\n")
        return number


def computed(run: Path) -> dict[str, str] | None:
    """Return facts about where the job of ``run`` ended well, for the dataset; None: it did not."""
    marker = read_marker(run)
    if marker is None or not marker.done:
        return None
    return {"runtime": SlurmRuntime.name, "host": marker.host, "job": marker.job}


def task_script(placed: PlacedJob, site: SiteProfile) -> str:
    """Return ``task.sh`` of one job."""
    job, tools, directory = placed.job, placed.tools, (placed.run / "job").absolute()
    environment: dict[str, str] = {}
    launched = tools.image is not None and job.ranks > 1 and site.launcher and tools.launched
    if tools.image is None or launched:
        environment = {**job.environment, **tools.environment, **tools.launched}
        if job.launcher and site.launcher:
            inside = _launched(tools, str(directory), site) if launched else []
            environment[job.launcher] = " ".join([site.launcher, *inside])
        python = site.python or sys.executable
        command = [program_path(job, tools, python), *job.arguments]
    else:
        command = contained_command(site.container, directory, job, tools, site.binds)
    lines = [f"    export {name}={shlex.quote(value)}" for name, value in environment.items()]
    sums = [f"{files.sha256(text)}  {name}" for name, text in job.files.items()]
    sums += [f"{files.file_sha256(binary)}  {binary}" for binary in tools.binaries]
    values = {
        "ENVIRONMENT": "\n".join(lines),
        "COMMAND": shlex.join(command),
        "SUMS": "\n".join(sums),
        # compute nodes need nothing but a shell, unless the profile says that there is more
        "WATCH": shlex.join([site.python, *placed.watch]) if site.python and placed.watch else "",
    }
    return _filled(TASK, values)


def _filled(template: str, values: dict[str, str]) -> str:
    return fill(resource("templates", "slurm", template).read_text(encoding="utf-8"), values)


def _launched(tools: Tools, directory: str, site: SiteProfile) -> list[str]:
    """Return what a launcher, outside of the image, starts its MPI ranks inside with.

    It hands its ranks what they need to find each other in the environment and in /tmp, so these
    containers are not cut off from either.
    """
    words = [site.container, "exec", "--no-home", "--bind", directory]
    words += [word for bind in site.binds for word in ("--bind", bind)]
    words.append(str(tools.image))
    for word in words:
        if re.search(r"\s", word) or (word == directory and re.search("[:,]", word)):
            raise OrchestraError(
                f"{word!r} holds a space, a colon or a comma; MPI in containers cannot take it"
            )
    return words


def _link(chunk: Chunk) -> None:
    """Name the points of every array task by links, in which any character survives."""
    links = chunk.directory / TASKS
    for directory in (chunk.directory.parent, chunk.directory):
        files.own_directory(directory, files.ELSEWHERE)
    try:
        for index, pack in enumerate(chunk.packs):
            (links / str(index)).mkdir(parents=True)
            for position, one in enumerate(pack):
                target = os.path.relpath(one.run, links / str(index))
                (links / str(index) / f"{position:04d}").symlink_to(target)
    except OSError as error:
        raise OrchestraError(f"cannot write {links}: {error.strerror}") from error
    files.secure(chunk.directory, files.ELSEWHERE)


def _batched(items: Sequence[T], size: int) -> list[list[T]]:
    return [list(items[begin : begin + size]) for begin in range(0, len(items), size)]


def _fresh(path: Path) -> Path:
    """Return a path at which nothing is: this one, or with a number behind it."""
    further = (path.with_name(f"{path.name}.{attempt}") for attempt in itertools.count(1))
    return next(one for one in itertools.chain([path], further) if not one.exists())
