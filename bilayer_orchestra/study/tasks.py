"""The tasks of a study: every point with every engine, checked before anything runs.

Results of points whose engine or geometry is not installed here are found by content: an identity
needs the engine, which knows its version and the settings that were left out. What the study says
has to be what was said when the run began, or all that its result states.
"""

import contextlib
import functools
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bilayer_orchestra.averages import Averages
from bilayer_orchestra.dataset.reading import yaml_data
from bilayer_orchestra.engines.base import Engine, Job, Request
from bilayer_orchestra.engines.registry import ENGINES
from bilayer_orchestra.errors import MissingEngineError, OrchestraError, SpecError
from bilayer_orchestra.model.spec import AbsentModel, Model
from bilayer_orchestra.running.choice import AUTO, engine_for, installed
from bilayer_orchestra.running.directory import NOT_OURS, RunDirectory, find_runs, said
from bilayer_orchestra.running.point import Runner, checked_request, stored
from bilayer_orchestra.running.queued import QueuedPoint
from bilayer_orchestra.settings import SpecModel
from bilayer_orchestra.study.load import LoadedStudy, and_others

Data = dict[str, Any]
#: What is said of a point that no run states.
NOT_FOUND = (
    "its engine or geometry is not installed here, and no run was asked for in the same words or "
    "states the same model and settings, defaults included"
)


@dataclass(frozen=True)
class Task(QueuedPoint):
    """One point on one engine; named with the engine where there are several.

    Parameters
    ----------
    index : tuple of int
        Its place in the dataset of the study: on every axis and, if there are several, the engine.
    """

    index: tuple[int, ...]


def split_by_owner(tasks: list[Task]) -> tuple[list[Task], list[str]]:
    """Return the tasks without what others have to finish, and a line about each other user.

    A finished point is read, whosever it is.
    """
    others: defaultdict[str, list[str]] = defaultdict(list)
    ours = []
    for task in tasks:
        owner = None if task.run.finished else task.run.foreign
        if owner is None:
            ours.append(task)
        else:
            others[owner].append(task.name)
    lines = [
        f"{and_others(names)}: {'belong' if names[1:] else 'belongs'} to {owner}; {NOT_OURS}"
        for owner, names in others.items()
    ]
    return ours, lines


def make_tasks(study: LoadedStudy, runner: Runner) -> list[Task]:
    """Return all tasks in the order of the study.

    Raises
    ------
    SpecError
        With one line for every distinct reason why a point cannot be solved.
    """
    tasks: list[Task] = []
    problems: defaultdict[str, list[str]] = defaultdict(list)
    adapted: dict[str, Engine] = {}
    on_disk = StoredRuns(runner.root)
    for point in study.points:
        for number, label in enumerate(study.spec.backends):
            name, index = point.name, point.index
            if len(study.spec.backends) > 1:
                name, index = f"{name},{label}", (*index, number)
            engine: Engine
            try:
                if label not in (AUTO, *ENGINES.names()) or isinstance(point.model, AbsentModel):
                    engine = type("Absent", (AbsentEngine,), {"name": label})()
                    run = on_disk.find(point.model, label, point.settings)
                else:
                    chosen = engine_for(point.model, label)
                    if chosen.name not in adapted:
                        adapted[chosen.name] = installed(chosen, runner.runtime)
                    engine = adapted[chosen.name]
                    checked_request(point.model, engine)
                    run = runner.run_directory(point.model, engine)
            except OrchestraError as error:
                problems[str(error)].append(name)
                continue
            tasks.append(Task(name, point.model, engine, run, index))
    if problems:
        lines = [f"{and_others(names)}: {text}" for text, names in problems.items()]
        raise SpecError(str(study.path), lines)
    return tasks


class AbsentEngine(Engine):
    """Stands for an engine that is not installed here."""

    summary = "not installed"
    ensembles = ()
    stochastic = False
    systematics = ()
    settings = SpecModel

    def version(self) -> str:
        """Raise MissingEngineError."""
        raise MissingEngineError(f"the engine `{self.name}` is not installed here")

    def render(self, request: Request) -> Job:
        """Raise MissingEngineError."""
        raise MissingEngineError(self.version())

    def parse(self, directory: Path, request: Request) -> Averages:
        """Raise MissingEngineError."""
        raise MissingEngineError(self.version())


@dataclass
class StoredRuns:
    """The runs below a directory, by what they say of themselves; they are read once.

    A result states its engine and its model with the settings. Of a run without a result its record
    and its model file do: they decide only what is said of it.
    """

    root: Path

    def find(self, model: Model, engine: str, settings: dict[str, Any]) -> RunDirectory:
        """Return the run that says the same; one that is not there if none does, or several do.

        Parameters
        ----------
        model : Model
            Without the engines' settings. What was left out and has a default, only its geometry
            knows.
        engine : str
            Name of the engine, or ``auto``.
        settings : dict
            All that the study says of engines' settings, by name.
        """
        wanted, words, found = model.to_data(), said(model, engine), []
        for run, used, stated, asked in self._stated:
            own = {"numerics": settings.get(used) or {}}
            if engine in (used, AUTO) and (stated == wanted | own or asked == words | own):
                found.append(run)
        absent = RunDirectory(self.root / f"{model.name}-{engine}-absent")
        return found[0] if len(found) == 1 else absent

    @functools.cached_property
    def _stated(self) -> list[tuple[RunDirectory, str, Data, Data | None]]:
        """Every run with its engine, its model with the engine's settings, and what was said."""
        rows = []
        for run in find_runs(self.root):
            result, record = None, run.record()
            with contextlib.suppress(OrchestraError):  # which the status of the point tells
                result = stored(run)
            if result is not None:
                engine = str(result.dataset.attrs["backend"])
                data = yaml_data(str(result.dataset.attrs["model"]))
            elif record is not None:
                engine, data = record.backend, run.model_data()
            else:
                continue
            settings = (data.get("numerics") or {}).get(engine, {})
            asked = record.said if record else None
            rows.append((run, engine, data | {"numerics": settings}, asked))
        return rows
