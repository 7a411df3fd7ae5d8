"""The tasks of a study: every point with every backend, checked before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bilayer_orchestra.engines.base import Engine
from bilayer_orchestra.engines.registry import choose, get_engine
from bilayer_orchestra.errors import OrchestraError, SpecError
from bilayer_orchestra.running.directory import NOT_OURS, RunDirectory
from bilayer_orchestra.running.point import checked_request
from bilayer_orchestra.study.load import LoadedStudy, Point


@dataclass(frozen=True)
class Task:
    """One point on one backend.

    Parameters
    ----------
    name : str
        Name of the point, with the backend where there are several.
    point : Point
        The model.
    label : str
        The backend as the study file names it (``auto`` is one of them).
    backend : Engine
        The engine itself.
    run : RunDirectory
        Where it is, or will be, on disk.
    """

    name: str
    point: Point
    label: str
    backend: Engine
    run: RunDirectory


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
    study: LoadedStudy, root: Path, adapt: Callable[[Engine], Engine] = lambda backend: backend
) -> list[Task]:
    """Return all tasks in the order of the study.

    Parameters
    ----------
    adapt : callable
        What a runtime makes of a backend, such as another installation of the engine.

    Raises
    ------
    SpecError
        With one line for every distinct reason why a point cannot be solved.
    """
    tasks: list[Task] = []
    problems: dict[str, list[str]] = {}
    adapted: dict[str, Engine] = {}
    for point in study.points:
        for label in study.spec.backends:
            name = point.name if len(study.spec.backends) == 1 else f"{point.name},{label}"
            try:
                chosen = choose(point.model.terms()) if label == "auto" else label
                if chosen not in adapted:
                    adapted[chosen] = adapt(get_engine(chosen))
                backend = adapted[chosen]
                checked_request(point.model, backend)
                run = RunDirectory.for_request(root, point.model, backend)
            except OrchestraError as error:
                problems.setdefault(str(error), []).append(name)
                continue
            tasks.append(Task(name, point, label, backend, run))
    if problems:
        raise SpecError(
            str(study.path),
            [
                f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {text}"
                for text, names in problems.items()
            ],
        )
    return tasks
