"""The one labelled dataset that every backend's result becomes.

Dimensions ``layer``, ``x`` and, for two-point functions, ``layer_``, ``x_``; ``spin`` where it
matters. Beside a value stand ``<name>_stderr`` (statistical) and ``<name>_bias`` (systematic: the
size of what may be left, never negative; NaN where it is not estimated).
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from bilayer_orchestra.averages import Averages
from bilayer_orchestra.dataset.reading import SITE_DIMS, complete, site_dims
from bilayer_orchestra.errors import DamagedFileError, OrchestraError
from bilayer_orchestra.files import refuse_locked, replacing
from bilayer_orchestra.observables import (
    COMPANION,
    CUT,
    ENERGY_UNITS,
    OBSERVABLES,
    OPTIONAL,
    Observable,
)
from bilayer_orchestra.terms import FloatArray, Site, Terms
from bilayer_orchestra.timestamps import utc_now

SCHEMA_VERSION = 1

#: Scalars that describe a run: name -> (long name, definition).
DIAGNOSTICS = {
    "energy_truncation": (
        "truncation error of the energy",
        "size of what may be left in <H>, H including the -mu N terms; NaN: not estimated",
    ),
    "energy_variance": ("energy variance", "<H^2> - <H>^2, H including the -mu N terms"),
    "discarded_weight": ("discarded weight", "largest sum of discarded eigenvalues, last sweep"),
    "bond_dimension": ("bond dimension", "largest bond dimension of the final state"),
    "gap": (
        "gap",
        "energy from the ground level to the next level of the same sector (upper bound in DMRG)",
    ),
    "degeneracy": ("degeneracy", "number of states in the ground level"),
    "residual": ("residual", "largest ||H psi - E psi||"),
    "log_partition": ("log of the partition function", "log Tr exp(-beta (H - mu N))"),
    "second_start_deviation": (
        "deviation of a second start",
        "largest difference of pair and density matrices at equal bond dimension",
    ),
    "bins": ("bins", "Monte Carlo bins that were averaged, all chains and time steps"),
    "chains": ("chains", "independent Markov chains of every time step"),
    "warmup_bins": ("warm-up", "bins dropped at the beginning of every chain"),
    "autocorrelation_time": (
        "integrated autocorrelation time",
        "1/2 + sum_t rho(t), in bins; the slowest element of any observable",
    ),
    "effective_bins": (
        "independent bins",
        "bins / (2 autocorrelation time), of the worst time step",
    ),
    "average_sign": ("average sign", "mean sign of the weight, of the worst chain"),
    "acceptance": ("acceptance", "accepted over proposed updates, lowest of all segments"),
    "precision": ("numerical precision", "largest change of the Green function at a stabilization"),
}
#: Their units; the others have none.
_UNITS = {
    "energy_truncation": ENERGY_UNITS,
    "energy_variance": "energy unit squared",
    "gap": ENERGY_UNITS,
    "residual": ENERGY_UNITS,
}

#: What may stand beside an observable: what follows its name -> (what it is, definition).
_ERRORS = {
    "_stderr": ("standard error of ", "statistical standard error"),
    "_deviation": (
        "deviations of ",
        "covariance of any two elements X, Y of any variables = sum over block of their products",
    ),
    "_bias": (
        "systematic error of ",
        "size of the systematic error that may be left, never negative (NaN: not estimated)",
    ),
}


def build(terms: Terms, averages: Averages, selected: tuple[str, ...]) -> xr.Dataset:
    """Return the labelled dataset of ``averages``.

    Energies are always part of it, observables that a model file lists if they are in ``selected``.

    Parameters
    ----------
    terms : Terms
        What was solved.
    averages : Averages
        In the order of its sites.
    selected : tuple of str
        Names of observables.
    """
    labels = {dim: [getattr(site, dim) for site in terms.sites] for dim in terms.dims}
    along = {dim: _values(ones) for dim, ones in labels.items()}
    places = [np.array([list(along[dim]).index(one) for one in labels[dim]]) for dim in along]
    shape = tuple(len(values) for values in along.values())

    def on_grid(observable: Observable, array: FloatArray) -> FloatArray:
        array = np.asarray(array, dtype=float)
        ends = 2 if observable.two_point else int("x" in observable.dims)
        if not ends:
            return array
        index: list[Any] = [one[:, None] for one in places] * (ends - 1) + places
        grid = np.full(array.shape[:-ends] + shape * ends, np.nan)  # places without a site stay NaN
        grid[(..., *index)] = array
        return grid

    variables: dict[str, xr.Variable] = {}
    for name, observable in OBSERVABLES.items():
        if name not in averages.values or (name in OPTIONAL and name not in selected):
            continue
        arrays = {
            "": averages.values[name],
            "_stderr": averages.stderr.get(name),
            "_deviation": averages.deviations.get(name),
            "_bias": averages.bias.get(name, np.full(np.shape(averages.values[name]), np.nan)),
        }
        for suffix, array in arrays.items():
            if array is None:
                continue
            grid, dims = on_grid(observable, array), observable.on(terms.dims)
            if suffix == "_deviation":  # single precision is far below their own uncertainty
                grid, dims = grid.astype(np.float32), ("block", *dims)
            what, definition = _ERRORS.get(suffix, ("", observable.definition))
            about = {"units": observable.units, "long_name": what + observable.long_name}
            variables[name + suffix] = xr.Variable(dims, grid, about | {"definition": definition})
        variables[name].attrs |= averages.attributes.get(name, {})
    for name, value in averages.diagnostics.items():
        long_name, definition = DIAGNOSTICS[name]
        about = {"units": _UNITS.get(name, "1"), "long_name": long_name}
        variables[name] = xr.Variable((), value, about | {"definition": definition})
    coordinates: dict[str, Any] = {
        "spin": ["up", "down"],
        CUT: (CUT, np.arange(1, terms.n_sites), {"long_name": "sites on the left of the cut"}),
    }
    for dim, values in along.items():
        about = {"long_name": "position along the chain"} if dim == "x" else {}
        coordinates |= {name: (name, values, about) for name in (dim, f"{dim}_")}
    used = {dim for variable in variables.values() for dim in variable.dims}
    dataset = xr.Dataset(variables, {k: v for k, v in coordinates.items() if k in used})
    if terms.dims != Site._fields:
        dataset.attrs[SITE_DIMS] = " ".join(terms.dims)
    return dataset


def _values(labels: list[Any]) -> Any:
    """Return the coordinate of a dimension: names as they appear, numbers from zero."""
    if isinstance(labels[0], str):
        return list(dict.fromkeys(labels))
    return np.arange(max(labels) + 1)


def append_history(dataset: xr.Dataset, entry: str) -> None:
    """Append a dated line to the ``history`` attribute; earlier lines are kept."""
    lines = [dataset.attrs.get("history"), f"{utc_now()} {entry}"]
    dataset.attrs["history"] = "\n".join(filter(None, lines))


def write_atomic(dataset: xr.Dataset, path: Path) -> None:
    """Write netCDF4 so that ``path`` is either the complete new file or untouched.

    Raises
    ------
    OrchestraError
        If the file cannot be written; a previous file at ``path`` is still there.
    """
    compression = {
        str(name): {"zlib": True, "complevel": 1}
        for name, variable in dataset.data_vars.items()
        if variable.ndim >= 2 and variable.dtype.kind in "fiu"  # texts have no filter
    }
    try:
        with replacing(path) as temporary:
            dataset.to_netcdf(temporary, format="NETCDF4", engine="netcdf4", encoding=compression)
    except RuntimeError as error:  # what netCDF4 makes of a full disk
        raise OrchestraError(f"cannot write {path}: {error}; is the disk full?") from error


#: What our files hold, by an attribute; the first that is there decides, since what is made of a
#: sweep tells its study as well.
_FILES = {
    "orchestra_fit_schema": "fits, not what was fitted",
    "orchestra_limit_schema": "limits, not the sweep that they were taken of",
    "orchestra_check": "the report of a check, not the results that were compared",
    "study": "a collected sweep",
    "orchestra_schema": "a result",
}
#: Attributes that every result has, and what they are: tools that rewrite netCDF files drop some.
_ATTRIBUTES: dict[str, Any] = {
    **dict.fromkeys(("model", "model_name", "request_hash", "terms_hash", "backend"), str),
    **dict.fromkeys(("engine", "converged_reason"), str),
    **dict.fromkeys(("seed", "converged"), (int, np.integer)),
}
Wanted = Literal["a result", "a collected sweep"]


def open_result(
    path: str | Path, wanted: tuple[Wanted, ...] = ("a result", "a collected sweep")
) -> xr.Dataset:
    """Load a result, or a collected sweep, into memory.

    Parameters
    ----------
    path : Path
        The file.
    wanted : tuple
        What it may hold. Where that is a result alone, it must have all that is written into one.

    Raises
    ------
    DamagedFileError
        If it cannot be read, is no file of this program, or lacks what is needed.
    OrchestraError
        If it does not exist, is being written, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        inside = path / "result.nc"
        what = "it is no file" if path.exists() else "it does not exist"
        if path.is_dir():
            what = f"it is a directory; name a file in it{f', such as {inside}' * inside.exists()}"
        raise OrchestraError(f"cannot read {path}: {what}")
    refuse_locked(path)
    try:
        dataset = xr.load_dataset(path, engine="netcdf4")
    except OSError as error:
        if (error.errno or 0) > 0:  # those of netCDF are negative
            raise OrchestraError(f"cannot read {path}: {error.strerror}") from error
        raise DamagedFileError(f"cannot read {path}: no netCDF file, or a damaged one") from error
    except Exception as error:  # whatever the library makes of damaged contents
        raise DamagedFileError(f"cannot read {path}, it is damaged: {error}") from error
    kind = next((what for name, what in _FILES.items() if name in dataset.attrs), None)
    if kind is None:
        raise DamagedFileError(f"{path} is not a dataset of this program (no orchestra_schema)")
    if kind not in wanted:
        needed = " or ".join(wanted)
        if kind == "a collected sweep":
            runs = [str(run) for run in dataset["run"].values.flat if run]
            needed += f", such as {path.parent / runs[0] / 'result.nc'}"
        raise OrchestraError(f"{path} holds {kind}; needed here: {needed}")
    complete(dataset)
    lacks = _defect(dataset, complete=wanted == ("a result",)) if kind == "a result" else None
    if lacks is not None:
        raise DamagedFileError(f"{path} was changed by another program: {lacks}")
    for name, variable in dataset.data_vars.items():
        if str(name).endswith("_bias"):  # earlier versions stored a sign
            variable.values = np.abs(variable.values)
    return dataset


def _defect(dataset: xr.Dataset, complete: bool) -> str | None:
    """Return what is wrong with a dataset that another program has rewritten, or None."""
    for key, kind in _ATTRIBUTES.items() if complete else ():
        if key not in dataset.attrs:
            return f"it has no attribute `{key}`"
        if not isinstance(dataset.attrs[key], kind):
            return f"its attribute `{key}` is {dataset.attrs[key]!r}"
    sites = site_dims(dataset)
    for name, variable in dataset.data_vars.items():
        base = COMPANION.sub("", str(name))
        own = OBSERVABLES[base].on(sites) if base in OBSERVABLES else ()
        if base not in OBSERVABLES and base not in DIAGNOSTICS:
            continue
        if not set(own) <= set(variable.dims) <= {*own, "block"}:
            return f"`{name}` has the dimensions {', '.join(map(str, variable.dims)) or 'none'}"
        if variable.dtype.kind not in "fiu":
            return f"`{name}` holds no numbers"
        if any(dim not in dataset.coords for dim in own):
            return f"`{name}` has no coordinates"
    return None
