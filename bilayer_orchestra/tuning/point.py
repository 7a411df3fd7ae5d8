"""One point with density targets: search, last run, and a dataset that carries the search.

The run directory of the point holds ``steps/``, an ordinary run directory for every run of the
search. A killed search is repeated from there: finished runs are taken, the interrupted one
resumes.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bilayer_orchestra.dataset.schema import append_history
from bilayer_orchestra.engines.base import Engine
from bilayer_orchestra.files import write_text_atomic
from bilayer_orchestra.model.spec import CanonicalState, Model
from bilayer_orchestra.observables import COMPANION, ENERGY_UNITS
from bilayer_orchestra.running.directory import MODEL, RunDirectory, request_hash
from bilayer_orchestra.running.point import (
    LIBRARIES,
    Outcome,
    checked_request,
    run_point,
    solve_once,
    store,
)
from bilayer_orchestra.runtimes.base import AttachedRuntime
from bilayer_orchestra.tuning.steps import Found, Step, Steps

if TYPE_CHECKING:
    import xarray as xr


def run_model(
    model: Model,
    engine: Engine,
    runtime: AttachedRuntime,
    root: Path,
    on_progress: Callable[[str], None] = lambda line: None,
    wait: bool = True,
    meanwhile: Callable[[], None] = lambda: None,
    run: RunDirectory | None = None,
) -> Outcome:
    """Return the result of ``model``; one with a ``filling``, at the potentials that give it.

    The search and its runs are part of the run directory. Otherwise this is
    :func:`bilayer_orchestra.running.point.run_point`.

    Parameters
    ----------
    model, engine, runtime
        What is solved, by whom, and where.
    root : Path
        Directory that holds the run directories.
    on_progress : callable
        Receives one line whenever there is something new to say.
    wait : bool
        Whether to wait for another process that is computing this very point.
    meanwhile : callable
        Called in a thread while the engine works: for slow imports.
    run : RunDirectory, optional
        Where the result is, or will be; default: the directory of this request below ``root``.
    """
    if model.wished is None:
        return run_point(model, engine, runtime, root, on_progress, wait, meanwhile, run=run)
    checked_request(model, engine)
    run = run or RunDirectory.for_request(root, model, engine)

    def compute(_lock: int) -> xr.Dataset:
        write_text_atomic(run.path / MODEL, model.to_yaml())
        steps = Steps(run.path, engine, runtime, on_progress, wait)
        threading.Thread(target=meanwhile, daemon=True).start()
        found = _search(model, steps)
        with LIBRARIES:
            dataset = label(model, engine, steps.done, found)
            store(dataset, run)
        return dataset

    return solve_once(model, engine, run, on_progress, wait, compute)


def _search(model: Model, steps: Steps) -> Found:
    # scipy takes a while to load, and only searches need it
    if isinstance(model.state, CanonicalState):
        from bilayer_orchestra.tuning.ground import tune_ground

        return tune_ground(model, steps)
    from bilayer_orchestra.tuning.thermal import tune_thermal

    return tune_thermal(model, steps)


def label(model: Model, engine: Engine, done: list[Step], found: Found) -> xr.Dataset:
    """Return the last run's dataset with the tuned values and the history of the search.

    Parameters
    ----------
    model : Model
        With the wished densities.
    engine : Engine
        Who solved it.
    done : list of Step
        All runs of the search, in order.
    found : Found
        Where it ended.
    """
    assert model.wished is not None
    last, uncertainty, tolerance = found
    densities = model.wished.densities()
    layers, targets = list(densities), np.array(list(densities.values()))
    dataset = last.dataset.copy()
    if "density" not in model.observables:
        unasked = [name for name in dataset if COMPANION.sub("", str(name)) == "density"]
        dataset = dataset.drop_vars(unasked)
    cost = sum(step.seconds for step in done) / last.seconds if last.seconds > 0 else math.nan
    layer, step, history = ("layer",), ("step",), ("step", "layer")
    per_site = "electrons per site, both spins"
    #: name -> dims, values, units, long name, definition
    variables: dict[str, tuple[tuple[str, ...], Any, str, str, str]] = {
        "target_density": (layer, targets, "1", "target density", f"wished {per_site}"),
        "chemical_potential": (
            layer,
            last.mu,
            ENERGY_UNITS,
            "tuned chemical potential",
            "mu of -mu n",
        ),
        "chemical_potential_uncertainty": (
            layer,
            uncertainty,
            ENERGY_UNITS,
            "uncertainty of the tuned chemical potential",
            "deviation and statistical error of the densities over the slope dn/dmu",
        ),
        "tuning_chemical_potential": (
            history,
            [one.mu for one in done],
            ENERGY_UNITS,
            "chemical potentials of the search",
            "in order",
        ),
        "tuning_density": (
            history,
            [one.density for one in done],
            "1",
            "densities of the search",
            per_site,
        ),
        "tuning_density_stderr": (
            history,
            [one.stderr for one in done],
            "1",
            "standard error of the densities of the search",
            "statistical standard error; 0 for engines without noise",
        ),
        "tuning_seconds": (
            step,
            [one.seconds for one in done],
            "s",
            "wall time of a run",
            "of the search",
        ),
        "tuning_cost": (
            (),
            cost,
            "1",
            "cost of the search",
            "wall time of all runs over that of the last one",
        ),
    }
    dataset = dataset.assign_coords(layer=layers, step=np.arange(1, len(done) + 1))
    for name, (dims, values, *words) in variables.items():
        attributes = dict(zip(("units", "long_name", "definition"), words, strict=True))
        dataset[name] = (dims, np.asarray(values, dtype=float), attributes)
    reached = bool(np.abs(last.density - targets).max() <= tolerance)
    missed = ", ".join(
        f"n_{name} {value:.6g} (target {target:g})"
        for name, value, target in zip(layers, last.density, targets, strict=True)
    )
    reason = f"{missed} after {len(done)} runs; {last.dataset.attrs['converged_reason']}"
    if not reached:
        reason = f"densities miss their targets by more than {tolerance:g}: {reason}"
    elif (last.stderr > tolerance).any():
        reached = False
        reason = (
            f"error of the densities {last.stderr.max():.1e} exceeds the tolerance {tolerance:g} "
            f"(raise the time_budget or the tolerance): {reason}"
        )
    dataset.attrs |= {
        "model": model.to_yaml(),
        "tuned_model": last.dataset.attrs["model"],
        "request_hash": request_hash(model, engine),
        "converged": int(bool(dataset.attrs["converged"]) and reached),
        "converged_reason": reason,
    }
    append_history(dataset, f"chemical potentials tuned in {len(done)} runs")
    return dataset
