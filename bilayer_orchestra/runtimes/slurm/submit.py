"""Submit what is missing of a study: one directory per point, one array job."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bilayer_orchestra.errors import OrchestraError, RunBusyError
from bilayer_orchestra.machine import cores
from bilayer_orchestra.pipeline import make_request
from bilayer_orchestra.runs import started_record, write_text_atomic
from bilayer_orchestra.runtimes.slurm.script import batch_script, task_script
from bilayer_orchestra.runtimes.slurm.site import Site
from bilayer_orchestra.study.tasks import Task
from bilayer_orchestra.timestamps import utc_now

BATCH, TASK, TASKS = "batch.sh", "task.sh", "tasks"


@dataclass(frozen=True)
class Chunk:
    """One array job.

    Parameters
    ----------
    directory : Path
        Where its script, links and logs are.
    script : str
        Text of the batch script.
    packs : list of list of Task
        The points of every array task.
    command : list of str
        The call of sbatch.
    """

    directory: Path
    script: str
    packs: list[list[Task]]
    command: list[str]


def plan(tasks: list[Task], site: Site, root: Path, name: str) -> list[Chunk]:
    """Return the array jobs that compute ``tasks``; writes nothing."""
    packs = [list(pack) for pack in _batched(tasks, site.points_per_task)]
    chunks = []
    stamp = utc_now().replace(":", "").replace("-", "")[:15]
    for number, group in enumerate(_batched(packs, site.array_limit)):
        directory = _fresh(root / f"{name}.slurm", f"{stamp}-{number}")
        concurrent = f"%{site.concurrent}" if site.concurrent else ""
        command = ["sbatch", "--parsable", f"--array=0-{len(group) - 1}{concurrent}"]
        # relative to --chdir: a file name pattern must not see the characters of our paths
        command += [f"--chdir={directory.absolute()}", "--output=task-%a.log"]
        command += [str(directory.absolute() / BATCH)]
        chunks.append(Chunk(directory, batch_script(site, name), list(group), command))
    return chunks


def prepare(task: Task, site: Site) -> str:
    """Return the task script of a point, having written its job directory."""
    request = make_request(task.point.model, task.backend)
    with cores(site.point_cpus):
        job = task.backend.render(request)
    task.run.write_job(job, task.point.model.to_yaml())
    script = task_script(job, task.run.job.absolute(), site, site.holds(task.backend.name))
    write_text_atomic(task.run.path / TASK, script)
    return script


def submit(chunk: Chunk, site: Site) -> str:
    """Write and submit one array job; return its number.

    Raises
    ------
    OrchestraError
        With what sbatch said.
    """
    with _held(chunk):
        _link(chunk)
        write_text_atomic(chunk.directory / BATCH, chunk.script)
        for pack in chunk.packs:
            for task in pack:
                prepare(task, site)
        number = _sbatch(chunk)
        for index, pack in enumerate(chunk.packs):
            for task in pack:
                _record(task, f"{number}_{index}", chunk, site)
    return number


def _link(chunk: Chunk) -> None:
    """Name the points of every array task by links, in which any character survives."""
    links = chunk.directory / TASKS
    try:
        for index, pack in enumerate(chunk.packs):
            (links / str(index)).mkdir(parents=True)
            for position, task in enumerate(pack):
                task.run.path.mkdir(parents=True, exist_ok=True)
                target = os.path.relpath(task.run.path, links / str(index))
                (links / str(index) / f"{position:04d}").symlink_to(target)
    except OSError as error:
        raise OrchestraError(f"cannot write {links}: {error.strerror}") from error


def _sbatch(chunk: Chunk) -> str:
    try:
        answer = subprocess.run(chunk.command, capture_output=True, text=True, check=False)
    except OSError as error:
        shutil.rmtree(chunk.directory, ignore_errors=True)
        raise OrchestraError(f"sbatch cannot be started: {error.strerror}") from error
    number = answer.stdout.strip().partition(";")[0]
    if answer.returncode != 0 or not number.isdigit():
        said = (answer.stderr.strip() or answer.stdout.strip() or "nothing").splitlines()
        text = "\n".join(f"  {line}" for line in said)
        command = shlex.join(chunk.command)
        raise OrchestraError(
            f"sbatch refused this job (exit code {answer.returncode}) and said:\n{text}\n"
            f"the call was: {command}"
        )
    write_text_atomic(chunk.directory / "job", number + "\n")
    return number


def _record(task: Task, job: str, chunk: Chunk, site: Site) -> None:
    place = {
        "runtime": "slurm",
        "submission": os.path.relpath(chunk.directory, task.run.path.parent),
    }
    if site.holds(task.backend.name):
        from bilayer_orchestra.runtimes.apptainer import image_facts

        place |= image_facts(task.backend.image)  # type: ignore[attr-defined]
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
