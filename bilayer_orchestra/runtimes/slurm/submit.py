"""Submit jobs: one array job for many of them, which holds the SHA-256 of all that it starts."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
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
from bilayer_orchestra.runtimes.base import PlacedJob
from bilayer_orchestra.runtimes.slurm.queue import job_of
from bilayer_orchestra.runtimes.slurm.script import batch_script, task_script
from bilayer_orchestra.runtimes.slurm.site import Site
from bilayer_orchestra.timestamps import utc_now

T = TypeVar("T")

#: The line of sbatch's answer that names the job, with --parsable and without.
_NUMBER = re.compile(r"^(?:Submitted batch job )?(\d+)(?:;\S*| on cluster \S+)?\s*$", re.MULTILINE)
BATCH, TASK, TASKS = "batch.sh", "task.sh", "tasks"


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
    command : list of str
        The call of sbatch.
    """

    name: str
    directory: Path
    packs: list[list[PlacedJob]]
    command: list[str]


def plan(jobs: Sequence[PlacedJob], site: Site, root: Path, name: str) -> list[Chunk]:
    """Return the array jobs that compute ``jobs``; writes nothing."""
    packs = list(_batched(jobs, site.points_per_task))
    chunks = []
    stamp = utc_now().replace(":", "").replace("-", "")[:15]
    folder = root / f"{name}.slurm"
    if other_owner(folder) is not None:  # who has the same study in this directory
        folder = root / f"{name}.{user_name(os.geteuid())}.slurm"
    for number, group in enumerate(_batched(packs, site.array_limit)):
        directory = _fresh(folder, f"{stamp}-{number}")
        concurrent = f"%{site.concurrent}" if site.concurrent else ""
        command = ["sbatch", "--parsable", f"--array=0-{len(group) - 1}{concurrent}"]
        # relative to --chdir: a file name pattern must not see the characters of our paths
        command += [f"--chdir={directory.absolute()}", "--output=task-%a.log"]
        command += [str(directory.absolute() / BATCH)]
        chunks.append(Chunk(name, directory, list(group), command))
    return chunks


def batch_of(chunk: Chunk, site: Site) -> str:
    """Return the batch script of one array job."""
    images = {one.tools.image: one.tools.image_digest for pack in chunk.packs for one in pack}
    sums = [[sha256(task_script(one, site)) for one in pack] for pack in chunk.packs]
    known = {path: digest for path, digest in images.items() if path is not None}
    return batch_script(site, chunk.name, sums, known)


def submit(chunk: Chunk, site: Site) -> str:
    """Write and submit one array job, whose run directories are there; return its number.

    Raises
    ------
    OrchestraError
        With what sbatch said.
    """
    _link(chunk)
    for one in itertools.chain.from_iterable(chunk.packs):
        write_text_atomic(one.run / TASK, task_script(one, site))
    write_text_atomic(chunk.directory / BATCH, batch_of(chunk, site))
    return _sbatch(chunk)


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


def _batched(items: Sequence[T], size: int) -> Iterator[list[T]]:
    for begin in range(0, len(items), size):
        yield list(items[begin : begin + size])


def _fresh(parent: Path, name: str) -> Path:
    for attempt in itertools.count():
        path = parent / (f"{name}.{attempt}" if attempt else name)
        if not path.exists():
            return path
    raise AssertionError
