"""Points whose engine or geometry is not installed here: their results are found by content.

An identity needs the engine, which knows its version and the settings that were left out. What is
said in the study and in the run's own model file has to be the same instead, word for word.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bilayer_orchestra.averages import Averages
from bilayer_orchestra.engines.base import Engine, Job, Request
from bilayer_orchestra.errors import MissingEngineError
from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.running.choice import AUTO
from bilayer_orchestra.running.directory import RunDirectory, find_runs
from bilayer_orchestra.settings import SpecModel

#: What is said of a point that no run states.
NOT_FOUND = (
    "its engine or geometry is not installed here, and no run states the same model and settings, "
    "defaults included"
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


def stored_run(root: Path, model: Model, engine: str, settings: dict[str, Any]) -> RunDirectory:
    """Return the run below ``root`` that says the same; one that is not there if none does.

    Parameters
    ----------
    model : Model
        Without the engines' settings. What was left out and has a default, only its geometry knows:
        where that is absent the study has to say everything.
    engine : str
        Name of the engine, or ``auto``.
    settings : dict
        All that the study says of engines' settings, by name.
    """
    wanted = model.to_data()
    wanted.pop("numerics", None)
    found = []
    for run in find_runs(root):
        record, data = run.record(), run.model_data()
        if record is None or engine not in (record.backend, AUTO):
            continue
        used = (data.pop("numerics", None) or {}).get(record.backend, {})
        if data == wanted and used == settings.get(record.backend, {}):
            found.append(run)
    return found[0] if len(found) == 1 else RunDirectory(root / f"{model.name}-{engine}-absent")
