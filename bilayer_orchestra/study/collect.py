"""One labelled dataset over all axes of a study: what is finished, and NaN for what is not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from bilayer_orchestra import __version__
from bilayer_orchestra.dataset.schema import SCHEMA_VERSION, append_history
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.observables import OBSERVABLES
from bilayer_orchestra.running.point import set_aside, stored
from bilayer_orchestra.study.axes import FACTS
from bilayer_orchestra.study.load import LoadedStudy
from bilayer_orchestra.study.tasks import NOT_FOUND, AbsentEngine, Task
from bilayer_orchestra.timestamps import utc_now


@dataclass(frozen=True)
class Collected:
    """What is there of a study.

    Parameters
    ----------
    dataset : Dataset
        What is finished by now, over all axes.
    missing : dict
        Name of a task -> (state, message), of what is not in it.
    unconverged : dict
        Name of a task -> reason, of what is not converged.
    failed : bool
        Whether a point failed just now, or is another user's to finish.
    stopped : BaseException or None
        What interrupted the points; to be raised again when the dataset is stored.
    """

    dataset: xr.Dataset
    missing: dict[str, tuple[str, str]]
    unconverged: dict[str, str]
    failed: bool = False
    stopped: BaseException | None = None


def collect(
    study: LoadedStudy, tasks: list[Task], states: Mapping[str, tuple[str, str]] | None = None
) -> Collected:
    """Combine the stored results of ``tasks``.

    Parameters
    ----------
    study : LoadedStudy
        The study.
    tasks : list of Task
        All of its points with every engine.
    states : dict, optional
        (state, message) of every task by name, where somebody asked the scheduler already.
    """
    several = len(study.spec.backends) > 1
    dims = (*(axis.label for axis in study.axes), *(["backend"] if several else []))
    shape = (*study.shape, *([len(study.spec.backends)] if several else []))
    results: dict[tuple[int, ...], xr.Dataset] = {}
    missing: dict[str, tuple[str, str]] = {}
    unconverged: dict[str, str] = {}
    facts = {
        name: np.full(shape, empty, dtype=object if isinstance(empty, str) else "i8")
        for name, empty in (FACTS | dict.fromkeys(("status", "message", "run"), "")).items()
    }
    for task in tasks:
        index = task.index
        facts["run"][index] = task.run.path.name
        result, state, message = _result(task, states or {})
        if result is None:
            missing[task.name] = (state, message)
        else:
            results[index] = result
            if not result.attrs["converged"]:
                unconverged[task.name] = str(result.attrs["converged_reason"])
            for name in FACTS.keys() & result.attrs.keys():
                facts[name][index] = result.attrs[name]
        facts["status"][index], facts["message"][index] = state, message
    dataset = _combine(dims, shape, results)
    for axis in study.axes:
        for name, (values, path) in axis.coordinates().items():
            coordinate = np.array(values, dtype=object if isinstance(values[0], str) else None)
            attributes = {"model_path": path} if path else {}
            dataset.coords[name] = (axis.label, coordinate, attributes)
    if several:
        dataset.coords["backend"] = ("backend", np.array(study.spec.backends, dtype=object))
    for name, array in facts.items():
        dataset[name] = (dims, array)
    dataset.attrs = {
        "title": f"{study.name}: {len(results)} of {len(tasks)} points",
        "orchestra_schema": SCHEMA_VERSION,
        "study": study.text,
        "study_name": study.name,
        "model": study.points[0].model.to_yaml(),
        "points": len(tasks),
        "finished": len(results),
        "software": f"bilayer_orchestra {__version__}",
        "created": utc_now(),
    }
    append_history(dataset, f"collected {len(results)} of {len(tasks)} points")
    return Collected(dataset, missing, unconverged)


def _result(
    task: Task, states: Mapping[str, tuple[str, str]]
) -> tuple[xr.Dataset | None, str, str]:
    """Return the stored result of a task, if it can be read, its state and a message."""
    try:
        if (found := stored(task.run)) is not None:
            return found.dataset, "finished", ""
        if not task.run.foreign and task.run.result.exists():
            return None, "failed", f"{set_aside(task.run)}; the same sweep computes it again"
    except OrchestraError as error:  # such as a file that only its owner may read
        return None, "failed", str(error)
    if isinstance(task.engine, AbsentEngine) and task.run.record() is None:
        return None, "unknown", NOT_FOUND
    return None, *(states.get(task.name) or task.run.status())


def _combine(
    dims: tuple[str, ...], shape: tuple[int, ...], results: dict[tuple[int, ...], xr.Dataset]
) -> xr.Dataset:
    """Place every result at its index; coordinates are united, holes are NaN.

    What has dimensions of its own stays in a run's own file: deviations, whose blocks differ from
    run to run, and the history of a search for chemical potentials.
    """
    labels = {
        str(dim): None
        for result in results.values()
        for name, variable in result.data_vars.items()
        if name in OBSERVABLES
        for dim in variable.dims
    }
    inner = {dim: _united(dim, results) for dim in ("spin", *labels)}
    variables: dict[str, xr.Variable] = {}
    for index, result in results.items():
        names = [name for name, one in result.data_vars.items() if set(one.dims) <= set(inner)]
        known = {dim: values for dim, values in inner.items() if dim in result.dims}
        for name, placed in result[names].reindex(known).data_vars.items():
            if str(name) not in variables:
                holes = np.full((*shape, *placed.shape), np.nan)
                variables[str(name)] = xr.Variable((*dims, *placed.dims), holes, placed.attrs)
            target = variables[str(name)]
            target.values[index] = placed.transpose(*target.dims[len(dims) :]).values
    used = {str(dim) for variable in variables.values() for dim in variable.dims}
    coordinates = {dim: values for dim, values in inner.items() if dim in used}
    return xr.Dataset(variables, coordinates)


def _united(dim: str, results: dict[tuple[int, ...], xr.Dataset]) -> list[Any]:
    having = [result for result in results.values() if dim in result.coords]
    values = list(dict.fromkeys(one for result in having for one in result[dim].values.tolist()))
    numbers = all(isinstance(one, int) for one in values)
    return sorted(values) if numbers else values
