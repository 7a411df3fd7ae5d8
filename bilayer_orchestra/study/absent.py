"""Points whose engine or geometry is not installed here: their results are found by content.

An identity needs the engine, which knows its version and the settings that were left out. What the
study says has to be what was said when the run began, or all that its result states.
"""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import Any

from bilayer_orchestra.averages import Averages
from bilayer_orchestra.dataset.reading import yaml_data
from bilayer_orchestra.engines.base import Engine, Job, Request
from bilayer_orchestra.errors import MissingEngineError, OrchestraError
from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.running.choice import AUTO
from bilayer_orchestra.running.directory import RunDirectory, find_runs, said
from bilayer_orchestra.running.point import stored
from bilayer_orchestra.settings import SpecModel

Data = dict[str, Any]
#: What is said of a point that no run states.
NOT_FOUND = (
    "its engine or geometry is not installed here, and no run was asked for in the same words or "
    "states the same model and settings, defaults included"
)


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


def absent_engine(name: str) -> Engine:
    """Return what stands for the engine called ``name``."""
    engine: Engine = type("Absent", (AbsentEngine,), {"name": name})()
    return engine


class StoredRuns:
    """The runs below a directory, by what they say of themselves; they are read once.

    A result states its engine and its model with the settings. Of a run without a result its record
    and its model file do: they decide only what is said of it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

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
        wanted = model.to_data()
        wanted.pop("numerics", None)
        words = said(model, engine)
        found = [
            run
            for run, used, data, own, asked in self._stated
            if engine in (used, AUTO)
            and (
                (data == wanted and own == settings.get(used, {}))
                or asked == words | {"numerics": settings.get(used) or {}}
            )
        ]
        absent = RunDirectory(self.root / f"{model.name}-{engine}-absent")
        return found[0] if len(found) == 1 else absent

    @functools.cached_property
    def _stated(self) -> list[tuple[RunDirectory, str, Data, Data, Data | None]]:
        """Every run with its engine, its model, the engine's settings, and what was said."""
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
            settings = (data.pop("numerics", None) or {}).get(engine, {})
            rows.append((run, engine, data, settings, None if record is None else record.said))
        return rows
