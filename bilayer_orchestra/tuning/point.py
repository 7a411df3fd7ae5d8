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
from typing import TYPE_CHECKING

import numpy as np

from bilayer_orchestra.engines.base import Engine
from bilayer_orchestra.files import write_text_atomic
from bilayer_orchestra.model.bilayer import BilayerModel
from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.model.state import CanonicalState
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
from bilayer_orchestra.tuning.steps import LAYERS, Step, Steps

if TYPE_CHECKING:
    import xarray as xr

    from bilayer_orchestra.terms import FloatArray


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

    The search and its runs are part of the run directory. Otherwise and in its parameters this is
    :func:`bilayer_orchestra.running.point.run_point`.
    """
    if getattr(model, "filling", None) is None:
        return run_point(model, engine, runtime, root, on_progress, wait, meanwhile, run=run)
    assert isinstance(model, BilayerModel)
    return run_tuned(model, engine, runtime, root, on_progress, wait, meanwhile, run)


def run_tuned(
    model: BilayerModel,
    engine: Engine,
    runtime: AttachedRuntime,
    root: Path,
    on_progress: Callable[[str], None],
    wait: bool,
    meanwhile: Callable[[], None] = lambda: None,
    run: RunDirectory | None = None,
) -> Outcome:
    """Return the result at the chemical potentials that give ``model.filling``."""
    checked_request(model, engine)
    run = run or RunDirectory.for_request(root, model, engine)

    def compute(_lock: int) -> xr.Dataset:
        write_text_atomic(run.path / MODEL, model.to_yaml())
        steps = Steps(run.path, engine, runtime, on_progress, wait)
        threading.Thread(target=meanwhile, daemon=True).start()
        last, uncertainty, tolerance = _search(model, steps)
        with LIBRARIES:
            dataset = label(model, engine, steps.done, last, uncertainty, tolerance)
            store(dataset, run)
        return dataset

    return solve_once(model, engine, run, on_progress, wait, compute)


def _search(model: BilayerModel, steps: Steps) -> tuple[Step, FloatArray, float]:
    """Return the run with the wished densities, the uncertainty of mu (2,), and the tolerance."""
    if not isinstance(model.state, CanonicalState):
        from bilayer_orchestra.tuning.thermal import tune_thermal

        return tune_thermal(model, steps)
    from bilayer_orchestra.tuning.ground import TOLERANCE, tune_ground

    last, slope = tune_ground(model, steps)
    assert model.filling is not None
    miss = abs(last.density[1] - model.filling.M)
    # what the remaining miss is in mu; mu_P is fixed
    uncertainty = np.array([0.0, miss / slope if slope > 0 else math.nan])
    return last, uncertainty, model.filling.tolerance or TOLERANCE


def label(
    model: BilayerModel,
    engine: Engine,
    done: list[Step],
    last: Step,
    uncertainty: FloatArray,
    tolerance: float,
) -> xr.Dataset:
    """Return the last run's dataset with the tuned values and the history of the search."""
    import xarray as xr

    from bilayer_orchestra.dataset.schema import append_history

    assert model.filling is not None
    targets = np.array([model.filling.P, model.filling.M])
    energy = "energy unit of the model file"
    per_site = "electrons per site, both spins"
    plain = last.seconds
    cost = sum(step.seconds for step in done) / plain if plain > 0 else math.nan
    dataset = last.dataset.copy()
    if "density" not in model.observables:
        names = [name for name in dataset if str(name).partition("_")[0] == "density"]
        dataset = dataset.drop_vars([n for n in names if "density_density" not in str(n)])

    def variable(
        dims: tuple[str, ...], values: object, units: str, long_name: str, definition: str
    ) -> xr.Variable:
        attributes = {"units": units, "long_name": long_name, "definition": definition}
        return xr.Variable(dims, np.asarray(values, dtype=float), attributes)

    def stacked(name: str) -> FloatArray:
        return np.stack([getattr(step, name) for step in done])

    layer, history = ("layer",), ("step", "layer")
    extra = {
        "target_density": variable(layer, targets, "1", "target density", f"wished {per_site}"),
        "chemical_potential": variable(
            layer, last.mu, energy, "tuned chemical potential", "mu of -mu n"
        ),
        "chemical_potential_uncertainty": variable(
            layer,
            uncertainty,
            energy,
            "uncertainty of the tuned chemical potential",
            "deviation and statistical error of the densities over the slope dn/dmu",
        ),
        "tuning_chemical_potential": variable(
            history, stacked("mu"), energy, "chemical potentials of the search", "in order"
        ),
        "tuning_density": variable(
            history, stacked("density"), "1", "densities of the search", per_site
        ),
        "tuning_density_stderr": variable(
            history,
            stacked("stderr"),
            "1",
            "standard error of the densities of the search",
            "statistical standard error; 0 for engines without noise",
        ),
        "tuning_seconds": variable(
            ("step",), [step.seconds for step in done], "s", "wall time of a run", "of the search"
        ),
        "tuning_cost": variable(
            (), cost, "1", "cost of the search", "wall time of all runs over that of the last one"
        ),
    }
    dataset = dataset.assign_coords(layer=list(LAYERS), step=np.arange(1, len(done) + 1))
    dataset = dataset.assign(extra)
    reached = bool(np.abs(last.density - targets).max() <= tolerance)
    missed = ", ".join(
        f"n_{name} {value:.6g} (target {target:g})"
        for name, value, target in zip(LAYERS, last.density, targets, strict=True)
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
