"""Submit what is missing of a study: one directory per point, one array job."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bilayer_orchestra.backends.base import Job
from bilayer_orchestra.errors import OrchestraError, RunBusyError
from bilayer_orchestra.files import (
    other_owner,
    own_directory,
    secure,
    user_name,
    write_text_atomic,
)
from bilayer_orchestra.machine import cores
from bilayer_orchestra.pipeline import make_request
from bilayer_orchestra.runs import ELSEWHERE, started_record
from bilayer_orchestra.runtimes.apptainer import image_facts
from bilayer_orchestra.runtimes.images import ContainedBackend, Image
from bilayer_orchestra.runtimes.slurm.queue import job_of
from bilayer_orchestra.runtimes.slurm.script import batch_script, sha256, task_script
from bilayer_orchestra.runtimes.slurm.site import Site
from bilayer_orchestra.study.tasks import Task
from bilayer_orchestra.timestamps import utc_now

#: The line of sbatch's answer that names the job, with --parsable and without.
_NUMBER = re.compile(r"^(?:Submitted batch job )?(\d+)(?:;\S*| on cluster \S+)?\s*$", re.MULTILINE)
BATCH, TASK, TASKS = "batch.sh", "task.sh", "tasks"


@dataclass(frozen=True)
class Chunk:
    """One array job.

    Parameters
    ----------
    name : str
        Name of the study.
    directory : Path
        Where its script, links and logs are.
    packs : list of list of Task
        The points of every array task.
    command : list of str
        The call of sbatch.
    """

    name: str
    directory: Path
    packs: list[list[Task]]
    command: list[str]


def plan(tasks: list[Task], site: Site, root: Path, name: str) -> list[Chunk]:
    """Return the array jobs that compute ``tasks``; writes nothing."""
    packs = [list(pack) for pack in _batched(tasks, site.points_per_task)]
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


def rendered(task: Task, site: Site) -> tuple[Job, str]:
    """Return the job of a point and its task script; writes nothing."""
    request = make_request(task.point.model, task.backend)
    with cores(site.point_cpus):
        job = task.backend.render(request)
    return job, task_script(job, task.run.job.absolute(), site, site.holds(task.backend.name))


def batch_of(chunk: Chunk, site: Site, write: bool) -> str:
    """Return the batch script of one array job.

    Parameters
    ----------
    write : bool
        Whether the job directories and task scripts are written, too.
    """
    images: dict[Path, Image] = {}
    sums: list[list[str]] = []
    for pack in chunk.packs:
        sums.append([])
        for task in pack:
            job, script = rendered(task, site)
            sums[-1].append(sha256(script))
            if isinstance(task.backend, ContainedBackend):
                images[task.backend.image.path] = task.backend.image
            if write:
                task.run.write_job(job, task.point.model.to_yaml())
                write_text_atomic(task.run.path / TASK, script)
    return batch_script(site, chunk.name, sums, images.values())


def submit(chunk: Chunk, site: Site) -> str:
    """Write and submit one array job; return its number.

    Raises
    ------
    OrchestraError
        With what sbatch said.
    """
    with _held(chunk):
        _link(chunk)
        write_text_atomic(chunk.directory / BATCH, batch_of(chunk, site, write=True))
        number = _sbatch(chunk)
        for index, pack in enumerate(chunk.packs):
            for task in pack:
                _record(task, f"{number}_{index}", chunk, site)
    return number


def _link(chunk: Chunk) -> None:
    """Name the points of every array task by links, in which any character survives."""
    links = chunk.directory / TASKS
    for directory in (chunk.directory.parent, chunk.directory):
        own_directory(directory, ELSEWHERE)
    try:
        for index, pack in enumerate(chunk.packs):
            (links / str(index)).mkdir(parents=True)
            for position, task in enumerate(pack):
                target = os.path.relpath(task.run.path, links / str(index))
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


def _record(task: Task, job: str, chunk: Chunk, site: Site) -> None:
    place = {
        "runtime": "slurm",
        "submission": os.path.relpath(chunk.directory, task.run.path.parent),
    }
    if isinstance(task.backend, ContainedBackend):
        place |= image_facts(task.backend.image)
    task.run.forget_execution()
    record = started_record(task.point.model, task.backend)
    message = f"submitted to Slurm as job {job}"
    task.run.write_record(
        replace(record, state="pending", message=message, job=job, place=place, pid=None)
    )


@contextlib.contextmanager
def _held(chunk: Chunk) -> Iterator[None]:
    """Hold the lock of every point while its directory is written and its job is recorded."""
    with contextlib.ExitStack() as stack:
        for task in itertools.chain.from_iterable(chunk.packs):
            try:
                stack.enter_context(task.run.locked(wait=False))
            except RunBusyError as error:
                raise OrchestraError(
                    f"another process took {task.run.path} just now; nothing of this job was "
                    "submitted, the same command submits the rest"
                ) from error
        yield


def _batched(items: list, size: int) -> Iterator[list]:  # type: ignore[type-arg]
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


def _fresh(parent: Path, name: str) -> Path:
    for attempt in itertools.count():
        path = parent / (f"{name}.{attempt}" if attempt else name)
        if not path.exists():
            return path
    raise AssertionError
