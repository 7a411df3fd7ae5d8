"""Reading a dataset back, from the file alone: its model, its errors, arrays in site order.

Results of models and of engines that are not known here can be listed, drawn and fitted as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from bilayer_orchestra.engines.registry import ENGINES
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.terms import FloatArray, Site
from bilayer_orchestra.yaml_text import set_value

if TYPE_CHECKING:
    import xarray as xr

#: Keys of a model that are no parameters.
_OTHER = frozenset({"version", "name", "model", "observables", "numerics"})
#: Attribute with the dimensions of a site where they are not those of coupled chains.
SITE_DIMS = "site_dims"
#: Attributes in which a dataset states its errors: whether there is noise, and which systematic
#: ones. *None* is a statement, too (exact diagonalization: rounding, bounded by residual and gap);
#: silence is not.
STOCHASTIC, SYSTEMATICS, NONE = "stochastic", "systematics", "none"
#: Stands for the errors of a dataset that states none.
NOT_STATED = "errors that are not stated"


def yaml_data(text: str) -> dict[str, Any]:
    """Return the content of a stored model or study; nothing if it is none."""
    try:
        return _section(YAML(typ="safe", pure=True).load(text))
    except (YAMLError, ValueError, RecursionError):  # files of others may hold anything
        return {}


def _section(value: Any) -> dict[str, Any]:
    """Return what should be a section; an empty one for what is none."""
    return value if isinstance(value, dict) else {}


def model_data(dataset: xr.Dataset) -> dict[str, Any]:
    """Return the model of one point as plain data.

    Parameters
    ----------
    dataset : Dataset
        A result, or one point of a collected sweep: what its axes set there is part of the model.
        With several points left on an axis, the values of that axis are missing.
    """
    if "model" in dataset.data_vars and dataset["model"].ndim == 0 and dataset["model"].item():
        return yaml_data(str(dataset["model"].item()))
    data = yaml_data(str(dataset.attrs.get("model", "")))
    tuned = "filling" in data
    for name, coordinate in dataset.coords.items():
        path = coordinate.attrs.get("model_path")
        if path is None:
            continue
        value = coordinate.item() if coordinate.ndim == 0 else None
        if isinstance(value, str):  # perhaps the name of a section
            axes = _section(yaml_data(str(dataset.attrs.get("study", ""))).get("axes"))
            values = _section(axes.get(str(name))).get("values")
            value = values.get(value) if isinstance(values, dict) else value
        keys = str(path).split(".")
        set_value(data, keys, value)
        if tuned and keys[0] in ("filling", "length") and "n_up" in _section(data.get("state")):
            del data["state"]  # the particle numbers are those of the first point
    return data


def conditions(
    point: xr.Dataset, boundary: str | None = None, beta: float | None = None
) -> tuple[bool, float | None]:
    """Return (periodic, beta or None at T = 0) of one point.

    Parameters
    ----------
    point : Dataset
        A result, or one point of a collected sweep.
    boundary : {"open", "periodic"}, optional
        Instead of what the dataset says.
    beta : float, optional
        Inverse temperature, in 1/energy, instead of what the dataset says; infinity: T = 0.

    Raises
    ------
    OrchestraError
        If the dataset does not say and the caller neither.
    """
    model = model_data(point)
    boundary = boundary or model.get("boundary") or point.attrs.get("boundary")
    if boundary not in ("open", "periodic"):
        raise OrchestraError("the dataset does not say its boundary: give --boundary open|periodic")
    if beta is None:
        beta = _section(model.get("state")).get("beta")
    if beta is None and "beta" in point.coords and "model_path" not in point["beta"].attrs:
        beta = float(point["beta"])  # of datasets that somebody put together
    if not isinstance(beta, (int, float)) or not math.isfinite(beta):
        return boundary == "periodic", None
    return boundary == "periodic", float(beta)


def flat(data: dict[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Return path -> value of everything inside the sections of ``data``."""
    values: dict[tuple[str, ...], Any] = {}
    for key, value in data.items():
        here = (*path, str(key))
        values |= flat(value, here) if isinstance(value, dict) else {here: value}
    return values


def parameters(data: dict[str, Any], backend: str | None = None) -> str:
    """Return the parameters of a model in one line, in the words of the model file.

    Couplings of a layer that are zero are left out.

    Parameters
    ----------
    data : dict
        As :func:`model_data` returns it.
    backend : str, optional
        Whose settings are parameters, too, where they are not the usual ones.
    """
    numerics = _section(_section(data.get("numerics")).get(backend)) if backend else {}
    shown = {key: value for key, value in data.items() if key not in _OTHER} | numerics
    words = []
    for path, value in flat(shown).items():
        if len(path) > 1 and value == 0 and path[0] != "state":
            continue
        # `layers.P.hopping` is P.hopping, `state.beta` is beta
        names = path[path[0] in ("layers", "state") :] if len(path) > 1 else path
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        words.append(f"{'.'.join(names)}={text}")
    return ", ".join(words)


def statement(stochastic: bool, systematics: Sequence[str]) -> dict[str, Any]:
    """Return the attributes of a dataset that state its errors."""
    return {STOCHASTIC: int(stochastic), SYSTEMATICS: ", ".join(systematics) or NONE}


def complete(dataset: xr.Dataset) -> None:
    """State the errors of a dataset from before they were: as the engine that wrote it does."""
    engine = ENGINES.get(str(dataset.attrs.get("backend", "")))
    if SYSTEMATICS not in dataset.attrs and engine is not None:
        dataset.attrs |= statement(engine.stochastic, engine.systematics)


def systematics_of(dataset: xr.Dataset) -> tuple[str, ...] | None:
    """Return the names of the systematic errors; None if the dataset states nothing."""
    text = dataset.attrs.get(SYSTEMATICS)
    if text is None:
        return None
    return () if text == NONE else tuple(str(text).split(", "))


def is_stochastic(dataset: xr.Dataset) -> bool:
    """Return whether the averages have statistical errors, as the dataset states or shows."""
    shown = any(str(name).endswith("_stderr") for name in dataset.data_vars)
    return bool(dataset.attrs.get(STOCHASTIC, shown))


def need_chains(dims: Iterable[object], what: str) -> None:
    """Refuse sites that are not labelled by layer and x.

    Parameters
    ----------
    dims : iterable
        Labels of sites, or all dimensions of a dataset.
    what : str
        Needs the chains, in the plural.
    """
    found = [str(dim) for dim in dims if dim != "spin" and not str(dim).endswith("_")]
    if not {"layer", "x"} <= set(found):
        raise OrchestraError(
            f"{what} need chains, whose sites are labelled by layer and x; here are "
            f"{', '.join(found)}"
        )


def by_site(array: xr.DataArray, sites: Sequence[Site]) -> FloatArray:
    """Return a function of one or two sites in the order of ``sites``; of none as it is.

    Parameters
    ----------
    array : DataArray
        With the fields of the sites' labels as dimensions (``layer``, ``x``) and, of two sites,
        those of the second one (``layer_``, ``x_``); others come first, spin up before spin down.
    sites : sequence of Site
        All or some of its sites.

    Returns
    -------
    array, shape (..., N) or (..., N, N)
    """
    import xarray as xr

    labels = {dim: [getattr(site, dim) for site in sites] for dim in sites[0]._fields}
    ends = [end for end in ("", "_") if f"{sites[0]._fields[0]}{end}" in array.dims]
    for end in ends:
        places = {dim + end: xr.Variable(f"site{end}", one) for dim, one in labels.items()}
        array = array.sel(places)
    if "spin" in array.dims:
        array = array.sel(spin=["up", "down"])
    return np.asarray(array.transpose(..., *(f"site{end}" for end in ends)).values)


def mirrored(array: xr.DataArray) -> xr.DataArray:
    """Return a function of two sites with its sites exchanged; labels decide, not positions."""
    dims = paired_dims(array)
    other = array.rename({dim: f"{dim}_" for dim in dims} | {f"{dim}_": dim for dim in dims})
    return other.transpose(*array.dims).reindex_like(array)


def on_site(matrix: xr.DataArray) -> xr.DataArray:
    """Return the elements with equal sites of a function of two sites."""
    dims = paired_dims(matrix)
    # indices along dimensions that stay select pairs of equal labels
    same = matrix.sel({f"{dim}_": matrix[dim] for dim in dims})
    return same.transpose(..., *dims).drop_vars([f"{dim}_" for dim in dims])


def density_product(density: xr.DataArray) -> xr.DataArray:
    """Return ``<n_i><n_j>`` of the densities per spin."""
    total = density.sum("spin")
    return total * total.rename({dim: f"{dim}_" for dim in total.dims})


def paired_dims(array: xr.DataArray) -> list[str]:
    """Return the dimensions of the first of two sites."""
    return [str(dim) for dim in array.dims if f"{dim}_" in array.dims]


def site_dims(dataset: xr.Dataset) -> tuple[str, ...]:
    """Return the fields of the labels of a dataset's sites."""
    return tuple(str(dataset.attrs.get(SITE_DIMS, " ".join(Site._fields))).split())
