"""One point, any engine, any runtime; one with density targets, at the potentials that give them.

The run directory of a search holds ``steps/``, an ordinary run directory for every run of it. A
killed search is repeated from there: finished runs are taken, the interrupted one resumes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bilayer_orchestra.engines.base import Engine
from bilayer_orchestra.files import write_text_atomic
from bilayer_orchestra.model.spec import CanonicalState, Model
from bilayer_orchestra.running.choice import engine_for, installed
from bilayer_orchestra.running.directory import MODEL
from bilayer_orchestra.running.point import Outcome, Runner, checked_request, run_point, solve_once
from bilayer_orchestra.running.queued import QueuedPoint, run_queued
from bilayer_orchestra.runtimes.slurm.runtime import SlurmRuntime

if TYPE_CHECKING:
    import xarray as xr


def solve(model: Model, engine: str, runner: Runner, detach: bool = False) -> Outcome | None:
    """Return the result of ``model``, computing it only if it is not there yet.

    Parameters
    ----------
    model : Model
        What is solved.
    engine : str
        Name of the engine; ``auto`` chooses.
    runner : Runner
        Where, and how.
    detach : bool
        Whether to return None until a queue has computed it, instead of waiting.

    Raises
    ------
    OrchestraError
        On every failure that is not a defect of this program.
    """
    solver = installed(engine_for(model, engine), runner.runtime)
    runner.tell(f"{model.name} with {solver.version()} ({solver.name})")
    if isinstance(runner.runtime, SlurmRuntime):
        checked_request(model, solver)
        run = runner.run_directory(model, solver)
        return run_queued(QueuedPoint(model.name, model, solver, run), runner, detach)
    return run_model(model, solver, runner)


def run_model(model: Model, engine: Engine, runner: Runner) -> Outcome:
    """Return the result of ``model``; one with a ``filling``, at the potentials that give it.

    The search and its runs are part of the run directory. Otherwise this is
    :func:`bilayer_orchestra.running.point.run_point`.

    Parameters
    ----------
    model, engine
        What is solved, and by whom.
    runner : Runner
        Where, and how.
    """
    if model.wished is None:
        return run_point(model, engine, runner)
    checked_request(model, engine)
    run = runner.run_directory(model, engine)

    def compute(_lock: int) -> xr.Dataset:
        # scipy takes a while to load, and only searches need it
        from bilayer_orchestra.tuning.ground import GroundSearch
        from bilayer_orchestra.tuning.thermal import ThermalSearch

        write_text_atomic(run.path / MODEL, model.to_yaml())
        ground = isinstance(model.state, CanonicalState)
        search = (GroundSearch if ground else ThermalSearch)(model, engine, run, runner)
        return search.label(search.find())

    return solve_once(model, engine, run, runner, compute)
