"""What a dataset says of the model that it belongs to: the parameters of each of its points.

Everything is read from the file alone, so that results of models that are not known here can be
listed, drawn and fitted as well.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bilayer_orchestra.errors import OrchestraError

if TYPE_CHECKING:
    import xarray as xr

#: Keys of a model that are no parameters.
_OTHER = frozenset({"version", "name", "model", "observables", "numerics"})


def yaml_data(text: str) -> dict[str, Any]:
    """Return the content of a stored model or study; nothing if it is none."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

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
    axes = None
    for name, coordinate in dataset.coords.items():
        path = coordinate.attrs.get("model_path")
        if path is None:
            continue
        value = coordinate.item() if coordinate.ndim == 0 else None
        if isinstance(value, str):  # perhaps the name of a section
            if axes is None:
                axes = _section(yaml_data(str(dataset.attrs.get("study", ""))).get("axes"))
            values = _section(axes.get(str(name))).get("values")
            value = values.get(value) if isinstance(values, dict) else value
        keys = str(path).split(".")
        _set(data, keys, value)
        if tuned and keys[0] in ("filling", "length") and "n_up" in _section(data.get("state")):
            del data["state"]  # the particle numbers are those of the first point
    return data


def _set(data: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        data[key] = _section(data.get(key))  # an emptied one is one left out
        data = data[key]
    if value is None:
        data.pop(keys[-1], None)
    else:
        data[keys[-1]] = value


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
