"""A Slurm cluster as a runtime: it takes jobs, and says later what became of them.

One array job holds many of them, and the SHA-256 of all that it starts.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.files import (
    ELSEWHERE,
    other_owner,
    own_directory,
    secure,
    sha256,
    user_name,
    write_text_atomic,
)
from bilayer_orchestra.runtimes.base import PlacedJob, Runtime
from bilayer_orchestra.runtimes.slurm.queue import job_of
from bilayer_orchestra.runtimes.slurm.script import batch_script, task_script
from bilayer_orchestra.runtimes.slurm.site import Site
from bilayer_orchestra.runtimes.slurm.state import read_marker
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
    concurrent : int or None
        Most of its tasks that run at once.
    """

    name: str
    directory: Path
    packs: list[list[PlacedJob]]
    concurrent: int | None

    @property
    def command(self) -> list[str]:
        """The call of sbatch."""
        array = f"--array=0-{len(self.packs) - 1}"
        array += f"%{self.concurrent}" if self.concurrent else ""
        place = self.directory.absolute()
        # relative to --chdir: a file name pattern must not see the characters of our paths
        where = [f"--chdir={place}", "--output=task-%a.log", str(place / BATCH)]
        return ["sbatch", "--parsable", array, *where]


class SlurmRuntime(Runtime):
    """Array jobs of one site."""

    name = "slurm"

    def __init__(self, site: Site) -> None:
        self.site, self.images = site, site.images

    def contains(self, kind: str | None) -> bool:
        """Engines run from the images that the site names, others are native."""
        return kind in self.site.images

    def plan(self, jobs: Sequence[PlacedJob], root: Path, name: str) -> list[Chunk]:
        """Return the array jobs that compute ``jobs``; writes nothing.

        Parameters
        ----------
        root : Path
            Directory beside whose runs the submissions are kept.
        name : str
            What the scheduler calls the jobs.
        """
        packs = _batched(jobs, self.site.points_per_task)
        stamp = utc_now().replace(":", "").replace("-", "")[:15]
        folder = root / f"{name}.slurm"
        if other_owner(folder) is not None:  # who has the same study in this directory
            folder = root / f"{name}.{user_name(os.geteuid())}.slurm"
        return [
            Chunk(name, _fresh(folder, f"{stamp}-{number}"), group, self.site.concurrent)
            for number, group in enumerate(_batched(packs, self.site.array_limit))
        ]

    def batch_script(self, chunk: Chunk) -> str:
        """Return the batch script of one array job."""
        tools = [one.tools for pack in chunk.packs for one in pack]
        images = {one.image: one.image_digest for one in tools if one.image is not None}
        sums = [[sha256(task_script(one, self.site)) for one in pack] for pack in chunk.packs]
        return batch_script(self.site, chunk.name, sums, images)

    def submit(self, chunk: Chunk) -> str:
        """Write and submit one array job, whose run directories are there; return its number.

        Raises
        ------
        OrchestraError
            With what sbatch said.
        """
        _link(chunk)
        for one in itertools.chain.from_iterable(chunk.packs):
            write_text_atomic(one.run / TASK, task_script(one, self.site))
        write_text_atomic(chunk.directory / BATCH, self.batch_script(chunk))
        return _sbatch(chunk)


def computed(run: Path) -> dict[str, str] | None:
    """Return facts about where the job of ``run`` ended well, for the dataset; None: it did not."""
    marker = read_marker(run)
    if marker is None or not marker.done:
        return None
    return {"runtime": SlurmRuntime.name, "host": marker.host, "job": marker.job}


def _link(chunk: Chunk) -> None:
    """Name the points of every array task by links, in which any character survives."""
    links = chunk.directory / TASKS
    for directory in (chunk.directory.parent, chunk.directory):
        own_directory(directory, ELSEWHERE)
    try:
        for index, pack in enumerate(chunk.packs):
            (links / str(index)).mkdir(parents=True)
            for position, one in enumerate(pack):
                target = os.path.relpath(one.run, links / str(index))
                (links / str(index) / f"{position:04d}").symlink_to(target)
    except OSError as error:
        raise OrchestraError(f"cannot write {links}: {error.strerror}") from error
    secure(chunk.directory, ELSEWHERE)


def _sbatch(chunk: Chunk) -> str:
    try:
        answer = subprocess.run(chunk.command, capture_output=True, text=True, check=False)
    except OSError as error:
        shutil.rmtree(chunk.directory, ignore_errors=True)
        raise OrchestraError(f"sbatch cannot be started: {error.strerror}") from error
    found = set(_NUMBER.findall(answer.stdout)) if answer.returncode == 0 else set()
    # sites wrap sbatch and print numbers of their own, and a busy scheduler may take a job without
    # saying so: it is asked then
    number = found.pop() if len(found) == 1 else job_of(chunk.directory.absolute() / BATCH)
    if number is None:
        said = (answer.stderr.strip() or answer.stdout.strip() or "nothing").splitlines()
        text = "\n".join(f"  {line}" for line in said)
        did = (
            f"refused this job (exit code {answer.returncode})"
            if answer.returncode
            else "gave no single number for this job, and squeue does not show it; look before you "
            "submit again,"
        )
        raise OrchestraError(
            f"sbatch {did} and said:\n{text}\nthe call was: {shlex.join(chunk.command)}"
        )
    write_text_atomic(chunk.directory / "job", number + "\n")
    return number


def _batched(items: Sequence[T], size: int) -> list[list[T]]:
    return [list(items[begin : begin + size]) for begin in range(0, len(items), size)]


def _fresh(parent: Path, name: str) -> Path:
    further = (parent / f"{name}.{attempt}" for attempt in itertools.count(1))
    return next(path for path in itertools.chain([parent / name], further) if not path.exists())
