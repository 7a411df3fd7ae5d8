"""One model, any engine, any runtime: what the command line and the Python interface call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.running.choice import AUTO, engine_for, installed
from bilayer_orchestra.running.point import Outcome, checked_request
from bilayer_orchestra.running.queued import QueuedPoint, run_queued
from bilayer_orchestra.running.versions import run_directory
from bilayer_orchestra.runtimes.base import AttachedRuntime
from bilayer_orchestra.runtimes.registry import get_runtime
from bilayer_orchestra.runtimes.slurm.runtime import SlurmRuntime
from bilayer_orchestra.tuning.point import run_model


@dataclass(frozen=True)
class Options:
    """How a point is solved; nothing of this changes a number.

    Parameters
    ----------
    images : mapping of str to str
        Kind of image -> file.
    site : str or None
        Site profile of the queue.
    on_progress : callable
        Receives one line whenever there is something new to say.
    wait_for_others : bool
        Whether to wait for another process that is computing this very point.
    wait_for_queue : bool
        Whether to wait for what a queue computes.
    meanwhile : callable
        Called in a thread while the engine works: for slow imports.
    any_version : bool or None
        See :func:`bilayer_orchestra.running.versions.run_directory`.
    """

    images: Mapping[str, str] = field(default_factory=dict)
    site: str | None = None
    on_progress: Callable[[str], None] = lambda line: None
    wait_for_others: bool = True
    wait_for_queue: bool = True
    meanwhile: Callable[[], None] = lambda: None
    any_version: bool | None = None


def solve(
    model: Model,
    engine: str = AUTO,
    runtime: str = "local",
    root: Path | None = None,
    options: Options | None = None,
) -> Outcome | None:
    """Return the result of ``model``, computing it only if it is not there yet.

    Parameters
    ----------
    engine : str
        Name of the engine; ``auto`` chooses.
    runtime : str
        Where it runs.
    root : Path, optional
        Directory of the run directories; default: ``runs/NAME``.
    options : Options, optional
        How.

    Returns
    -------
    Outcome or None
        None if a queue has not computed it yet and ``wait_for_queue`` is false.

    Raises
    ------
    OrchestraError
        On every failure that is not a defect of this program.
    """
    how, root = options or Options(), root or Path("runs") / model.name
    several_jobs = model.wished is not None
    place = get_runtime(runtime, how.images, several_jobs, how.site)
    with closing(place):
        solver = installed(engine_for(model, engine), place)
        how.on_progress(f"{model.name} with {solver.version()} ({solver.name})")
        run = run_directory(root, model, solver, how.any_version)
        if isinstance(place, SlurmRuntime):
            checked_request(model, solver)
            point = QueuedPoint(model.name, model, solver, run)
            return run_queued(point, place, how.on_progress, how.wait_for_queue)
        assert isinstance(place, AttachedRuntime)
        return run_model(
            model, solver, place, root, how.on_progress, how.wait_for_others, how.meanwhile, run
        )
