"""The public interface, imported by the package when one of its names is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pandas as pd
import xarray as xr

from bilayer_orchestra.analysis.limits import extrapolate
from bilayer_orchestra.checking.comparison import NEIGHBOURS
from bilayer_orchestra.checking.plan import Check, compare_files, usable_engines
from bilayer_orchestra.checking.verdict import Verdict
from bilayer_orchestra.dataset.schema import open_result
from bilayer_orchestra.display import Output, output_console, progress
from bilayer_orchestra.engines.registry import engines as _engines
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.fits.datasets import fit
from bilayer_orchestra.model.spec import Model, load_model
from bilayer_orchestra.running.directory import runs_directory
from bilayer_orchestra.running.point import Runner
from bilayer_orchestra.runtimes.registry import get_runtime
from bilayer_orchestra.tuning.point import solve

__all__ = [
    "Model",
    "OrchestraError",
    "Verdict",
    "check",
    "extrapolate",
    "fit",
    "list_engines",
    "load_model",
    "open_result",
    "run",
    "sweep",
]


def list_engines() -> pd.DataFrame:
    """Return the installed engines: version (empty: missing), why it is missing, what it solves."""
    rows = {}
    for name, engine in _engines().items():
        try:
            version, problem = engine.version(), ""
        except OrchestraError as error:
            version, problem = "", str(error)
        solves = ", ".join(engine.ensembles)
        rows[name] = (version, problem, solves, engine.stochastic, engine.summary)
    columns = ["version", "problem", "solves", "stochastic", "summary"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def run(
    model: Model,
    engine: str = "auto",
    runtime: str = "local",
    *,
    output: str | Path | None = None,
    images: Mapping[str, str] | None = None,
    site: str | None = None,
    wait: bool = True,
    any_version: bool | None = None,
    quiet: bool = False,
) -> xr.Dataset | None:
    """Return the result of a model: the stored one, or computed now.

    Parameters
    ----------
    model : Model
        See :func:`load_model`.
    engine : str
        Name of an installed engine; ``auto`` chooses.
    runtime : {"local", "apptainer", "slurm"}
        Where it runs.
    output : path, optional
        Directory of the runs; default: ``runs/NAME``.
    images : mapping, optional
        Kind of image -> file.
    site : str, optional
        Site profile of the cluster.
    wait : bool
        Whether to wait for a queue; else None is returned until the result is there.
    any_version : bool, optional
        What to do if the result is there from another version of the engine: take it (True),
        compute again (False), or raise an error that names it (None).
    quiet : bool
        Whether to show no progress.

    Raises
    ------
    OrchestraError
        If the model cannot be solved.
    """
    place = get_runtime(runtime, images, model.wished is not None, site)
    with closing(place), progress(output_console(), quiet) as show:
        root = runs_directory(model.name, output)
        runner = Runner(root, place, show, any_version=any_version)
        outcome = solve(model, engine, runner, detach=not wait)
    return None if outcome is None else outcome.dataset


def sweep(
    study: str | Path,
    runtime: str | None = None,
    *,
    jobs: int = 1,
    output: str | Path | None = None,
    site: str | None = None,
    any_version: bool | None = None,
    quiet: bool = False,
) -> xr.Dataset:
    """Run what is missing of a study; return one dataset over its axes, holes where points failed.

    On a cluster the points are submitted, and the dataset holds what is finished by now.

    Parameters
    ----------
    study : path
        The study file.
    runtime : str, optional
        Where the points run; default: what the study says.
    jobs : int
        Points at the same time, on this machine.
    output : path, optional
        Directory of the runs; default: ``runs/NAME`` of the base model.
    site, any_version, quiet
        As in :func:`run`.

    Raises
    ------
    OrchestraError
        If the study cannot be run; a point that fails is a hole with its reason in ``message``.
    """
    from bilayer_orchestra.study.load import load_study
    from bilayer_orchestra.study.run import run_study, store, study_runner

    loaded, console = load_study(Path(study)), Output(quiet=True) if quiet else output_console()
    runner = study_runner(loaded, output, runtime, site, any_version=any_version)
    collected = run_study(loaded, runner, console, jobs)
    store(collected, loaded, runner.root, console.say)
    if collected.stopped is not None:
        raise collected.stopped
    return collected.dataset


def check(
    what: Model | Mapping[str, xr.Dataset],
    engines: Sequence[str] | None = None,
    *,
    distance: int = NEIGHBOURS,
    output: str | Path | None = None,
    any_version: bool | None = None,
    quiet: bool = False,
) -> Verdict:
    """Say whether independent methods agree.

    Parameters
    ----------
    what : Model or mapping of str to Dataset
        A model that several engines solve, or stored results by label.
    engines : sequence of str, optional
        Those that take part; default: all that can.
    distance : int
        Distance up to which agreement is asked for.
    output : path, optional
        Directory of the runs; default: ``runs/NAME``.
    any_version, quiet
        As in :func:`run`.

    Raises
    ------
    OrchestraError
        If there are not two results that can be compared.
    """
    if not isinstance(what, Model):
        first = next(iter(what.values()))
        return compare_files(dict(what), str(first.attrs["model_name"]), distance)
    names = list(engines) if engines is not None else usable_engines(what)[0]
    root = runs_directory(what.name, output)
    with progress(output_console(), quiet) as show:
        return Check(what, names, root, show, distance, any_version).run()
