"""The tasks of a study: every point with every engine, checked before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bilayer_orchestra.engines.base import Engine
from bilayer_orchestra.engines.registry import ENGINES
from bilayer_orchestra.errors import OrchestraError, SpecError
from bilayer_orchestra.model.spec import AbsentModel
from bilayer_orchestra.running.choice import AUTO, engine_for, installed
from bilayer_orchestra.running.directory import NOT_OURS
from bilayer_orchestra.running.point import checked_request
from bilayer_orchestra.running.queued import QueuedPoint
from bilayer_orchestra.running.versions import run_directory
from bilayer_orchestra.runtimes.base import Runtime
from bilayer_orchestra.study.absent import StoredRuns, absent_engine
from bilayer_orchestra.study.load import LoadedStudy, Point


@dataclass(frozen=True)
class Task(QueuedPoint):
    """One point on one engine; named with the engine where there are several.

    Parameters
    ----------
    point : Point
        Its place in the study.
    label : str
        The engine as the study file names it (``auto`` is one of them).
    """

    point: Point
    label: str


def study_root(study: LoadedStudy, output: Path | None) -> Path:
    """Return the directory of the runs: that of the base model, shared with single runs."""
    return output if output is not None else Path("runs") / study.points[0].model.name


def split_by_owner(tasks: list[Task]) -> tuple[list[Task], list[str]]:
    """Return the tasks without what others have to finish, and a line about each other user.

    A finished point is read, whosever it is.
    """
    others: dict[str, list[str]] = {}
    ours = []
    for task in tasks:
        owner = None if task.run.finished else task.run.foreign
        if owner is None:
            ours.append(task)
        else:
            others.setdefault(owner, []).append(task.name)
    lines = [
        f"{names[0]}{f' and {len(names) - 1} more' if names[1:] else ''}: "
        f"{'belong' if names[1:] else 'belongs'} to {owner}; {NOT_OURS}"
        for owner, names in others.items()
    ]
    return ours, lines


def make_tasks(
    study: LoadedStudy, root: Path, runtime: Runtime, any_version: bool | None = None
) -> list[Task]:
    """Return all tasks in the order of the study.

    Parameters
    ----------
    root : Path
        Directory of the runs.
    runtime : Runtime
        Decides which installation of an engine is used.
    any_version : bool, optional
        See :func:`bilayer_orchestra.running.versions.run_directory`.

    Raises
    ------
    SpecError
        With one line for every distinct reason why a point cannot be solved.
    """
    tasks: list[Task] = []
    problems: dict[str, list[str]] = {}
    adapted: dict[str, Engine] = {}
    on_disk = StoredRuns(root)
    for point in study.points:
        for label in study.spec.backends:
            name = point.name if len(study.spec.backends) == 1 else f"{point.name},{label}"
            if label not in (AUTO, *ENGINES.names()) or isinstance(point.model, AbsentModel):
                run = on_disk.find(point.model, label, point.settings)
                tasks.append(Task(name, point.model, absent_engine(label), run, point, label))
                continue
            try:
                chosen = engine_for(point.model, label)
                if chosen.name not in adapted:
                    adapted[chosen.name] = installed(chosen, runtime)
                engine = adapted[chosen.name]
                checked_request(point.model, engine)
                run = run_directory(root, point.model, engine, any_version)
            except OrchestraError as error:
                problems.setdefault(str(error), []).append(name)
                continue
            tasks.append(Task(name, point.model, engine, run, point, label))
    if problems:
        raise SpecError(
            str(study.path),
            [
                f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {text}"
                for text, names in problems.items()
            ],
        )
    return tasks
