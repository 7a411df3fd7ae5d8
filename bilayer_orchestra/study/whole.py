"""A whole study: run or submit what is missing, combine what is there, store it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from pathlib import Path

from bilayer_orchestra.errors import Interrupted, OrchestraError
from bilayer_orchestra.files import make_directory, other_owner
from bilayer_orchestra.images.use import image_table
from bilayer_orchestra.running.published import make_room, of_study, owner
from bilayer_orchestra.running.queued import label_computed
from bilayer_orchestra.runtimes.base import AttachedRuntime, Runtime
from bilayer_orchestra.runtimes.local import LocalRuntime
from bilayer_orchestra.runtimes.registry import get_runtime
from bilayer_orchestra.runtimes.slurm.runtime import SlurmRuntime
from bilayer_orchestra.study.collect import Collected, collect
from bilayer_orchestra.study.load import LoadedStudy
from bilayer_orchestra.study.local import Listener, run_points
from bilayer_orchestra.study.submit import submit_study
from bilayer_orchestra.study.tasks import make_tasks, split_by_owner
from bilayer_orchestra.tuning.point import run_model


@dataclass(frozen=True)
class Ended:
    """What became of a study.

    Parameters
    ----------
    collected : Collected
        What is finished by now, as one dataset.
    failures : dict
        Name of a point -> message, of what failed just now.
    others : list of str
        Lines about points that other users have to finish.
    stopped : BaseException or None
        What interrupted the points; to be raised again when the dataset is stored.
    """

    collected: Collected
    failures: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    stopped: BaseException | None = None


def study_runtime(
    study: LoadedStudy,
    name: str | None = None,
    images: Sequence[str] | None = None,
    site: str | None = None,
) -> Runtime:
    """Return where the points of a study run.

    Parameters
    ----------
    study : LoadedStudy
        The study.
    name, site : str, optional
        The runtime and the site profile; default: what the study says.
    images : sequence of str, optional
        Texts ``KIND=FILE``.
    """
    return get_runtime(
        name or study.spec.runtime,
        image_table(list(images or ())),
        many=True,
        site=site or study.spec.site,
        beside=study.path.parent,
    )


def run_study(
    study: LoadedStudy,
    root: Path,
    runtime: Runtime,
    show: Callable[[int], AbstractContextManager[Listener]],
    say: Callable[[str], None],
    jobs: int = 1,
    any_version: bool | None = None,
) -> Ended:
    """Run what is missing, or submit it to a queue; combine what is there.

    Parameters
    ----------
    study : LoadedStudy
        The study.
    root : Path
        Directory of the runs.
    runtime : Runtime
        Where the points run; closed at the end.
    show : callable
        Gets the number of points and returns what listens while they run.
    say : callable
        Receives lines for the user.
    jobs : int
        Points at the same time, on this machine.
    any_version : bool, optional
        See :func:`bilayer_orchestra.running.versions.run_directory`.
    """
    with closing(runtime):
        if isinstance(runtime, SlurmRuntime):
            submit_study(study, root, runtime, say, any_version=any_version)
            return Ended(collect(study, make_tasks(study, root, runtime, any_version)))
        assert isinstance(runtime, AttachedRuntime)
        tasks = make_tasks(study, root, runtime, any_version)
        make_directory(root)
        ours, others = split_by_owner(tasks)
        for line in others:
            say(line)
        failures, stopped = {}, None
        with show(len(ours)) as listener:
            try:
                failures = run_points(ours, runtime, jobs, listener)
            except (Interrupted, KeyboardInterrupt) as interruption:
                stopped = interruption
    return Ended(collect(study, tasks), failures, others, stopped)


def collect_study(
    study: LoadedStudy, root: Path, runtime: Runtime, any_version: bool | None = None
) -> Collected:
    """Combine what is finished; label what was computed in the meantime.

    Parameters
    ----------
    study, root, runtime, any_version
        As in :func:`run_study`.
    """
    tasks, states = make_tasks(study, root, runtime, any_version), None
    if any((record := task.run.record()) and record.job for task in tasks):
        states = label_computed(tasks)
    for task in split_by_owner(tasks)[0]:
        if not task.run.result.exists() and task.run.executed():
            with contextlib.suppress(OrchestraError):  # which its status tells
                run_model(task.model, task.engine, LocalRuntime(), root, wait=False)
    return collect(study, tasks, states)


def store(collected: Collected, study: LoadedStudy, root: Path, say: Callable[[str], None]) -> Path:
    """Write the dataset into ``root``, or here where others have theirs there; return its path.

    Parameters
    ----------
    collected : Collected
        The dataset.
    study : LoadedStudy
        Its study.
    root : Path
        Directory of the runs.
    say : callable
        Receives lines for the user.
    """
    from bilayer_orchestra.dataset.schema import write_atomic

    path = root / f"{study.name}.nc"
    foreign = other_owner(path) or (None if os.access(root, os.W_OK) else other_owner(root))
    if foreign is not None:  # what others have collected stays
        say(f"{path} belongs to {foreign}; yours is in the working directory")
        path = Path(path.name)
    make_room(path.parent, of_study(study.name), owner(collected.dataset), say)
    write_atomic(collected.dataset, path)
    return path
