"""Fits of a whole dataset: every layer, every point of a sweep."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

from bilayer_orchestra import __version__
from bilayer_orchestra.dataset.parameters import conditions, model_data
from bilayer_orchestra.dataset.schema import append_history
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.fits.choice import grouped
from bilayer_orchestra.fits.options import CONVENTIONS, Options, check_request
from bilayer_orchestra.fits.pairs import Pairs, pairs_of, series_of
from bilayer_orchestra.fits.point import Number, PointFit, fit_pairs
from bilayer_orchestra.observables import FITTED, OBSERVABLES

#: What a fit keeps of its input's attributes: the model, and whose result it was.
_KEPT = (
    "model",
    "model_name",
    "study",
    "study_name",
    "backend",
    "engine",
    "run",
    "request_hash",
    "history",
)


def luttinger(what: str, eta: float, convention: str) -> tuple[float, float]:
    """Return (K, dK/deta).

    Parameters
    ----------
    what : {"pair", "density"}
    convention : str
        A key of :data:`CONVENTIONS`.
    """
    factor = 2.0 if convention == "boson" else 1.0
    inverse = (what == "pair") != (convention == "stiffness")
    if inverse:
        return 1 / (factor * eta), -1 / (factor * eta**2)
    return eta / factor, 1 / factor


def fit(
    dataset: xr.Dataset,
    what: str = "pair",
    layers: Iterable[str] | None = None,
    *,
    boundary: str | None = None,
    beta: float | None = None,
    convention: str = "luther-emery",
    options: Options | None = None,
) -> xr.Dataset:
    """Fit one kind of correlation in every layer and at every point.

    Parameters
    ----------
    dataset : Dataset
        A result, or a collected sweep: dimensions beyond those of the observable are kept. A point
        without values, or whose data do not determine the fit, is NaN with the reason in
        ``<what>_status``.
    what : {"pair", "density", "green"}
    layers : iterable of str, optional
        Default: all.
    boundary : {"open", "periodic"}, optional
        Default: from the dataset's model.
    beta : float, optional
        Inverse temperature; infinity: T = 0. Default: that of each point's model.
    convention : str
        How K is derived; a key of :data:`CONVENTIONS`.

    Returns
    -------
    Dataset
        Dimensions ``layer``, those of the sweep, ``window`` (of the scan) and ``r``. For every
        parameter ``<what>_<name>`` with ``_stderr`` (statistical; NaN: no statistical error) and
        ``_systematic`` (spread of the windows and forms, truncation); ``<what>_chi2_per_dof`` of
        the best window; ``<what>_scan_*``; data and fitted curve by distance;
        ``<what>_input_converged`` (1, 0, or -1: the input does not say) and ``<what>_warnings``.

    Raises
    ------
    OrchestraError
        If nothing can be fitted anywhere.
    """
    options = options or Options()
    chosen = list(dict.fromkeys(layers or (str(one) for one in dataset["layer"].values)))
    check_request(dataset, [what], chosen, boundary, beta, convention, options)
    name = FITTED[what]
    if name not in dataset:
        raise OrchestraError(f"the dataset has no {name}; add it to the model's observables")
    own = {"block", *OBSERVABLES[name].dims}
    extra = [str(dim) for dim in dataset[name].dims if dim not in own]
    rows = []
    places = [
        (layer, dict(zip(extra, index, strict=True)))
        for layer in chosen
        for index in itertools.product(*(range(dataset.sizes[dim]) for dim in extra))
    ]
    # matrices of a few dozen rows: threads only wait for each other (3 to 10 times slower)
    with threadpool_limits(1, user_api="blas"):
        for layer, place in places:
            rows.append(_one(dataset.isel(place), what, layer, boundary, beta, convention, options))
    if all(row["status"].item() != "ok" for row in rows):
        reasons: dict[str, list[str]] = {}
        for (layer, _), row in zip(places, rows, strict=True):
            reasons.setdefault(row["status"].item(), []).append(layer)
        texts = [f"{', '.join(dict.fromkeys(of))}: {text}" for text, of in reasons.items()]
        raise OrchestraError(f"{what}, layer {'; '.join(texts)}")
    shape = [len(chosen), *(dataset.sizes[dim] for dim in extra)]
    result = _assemble(rows, ["layer", *extra], shape)
    coordinates = {
        str(key): coordinate
        for key, coordinate in dataset.coords.items()
        if set(coordinate.dims) <= set(extra)
    }
    result = result.assign_coords(layer=("layer", chosen), **coordinates)
    result = result.rename({v: f"{what}_{v}" for v in result.data_vars})
    _describe(result, what, convention)
    kept = [
        "model",
        "model_name",
        "study",
        "study_name",
        "backend",
        "engine",
        "run",
        "request_hash",
        "history",
    ]
    result.attrs = {key: dataset.attrs[key] for key in kept if key in dataset.attrs}
    result.attrs |= {
        "title": "fits of correlation functions",
        "orchestra_fit_schema": 1,
        "software": f"bilayer_orchestra {__version__}",
    }
    append_history(result, f"fitted {what} of layers {', '.join(chosen)}")
    return result


def rounded(value: float, error: float) -> str:
    """Return ``value`` with as many digits as its error deserves; never a zero that is none."""
    digits = int(np.clip(1 - np.floor(np.log10(error)), 0, 8)) if 0 < error < np.inf else 4
    text = f"{value:.{digits}f}"
    return text if float(text) or not value else f"{value:.1g}"


def _one(
    point: xr.Dataset,
    what: str,
    layer: str,
    boundary: str | None,
    beta: float | None,
    convention: str,
    options: Options,
) -> xr.Dataset:
    """Return the row of one point; a refusal is part of it."""
    try:
        periodic, at_beta = conditions(point, boundary, beta)
        pairs = pairs_of(point, FITTED[what], layer, periodic, at_beta)
        found = fit_pairs(what, pairs, options)
    except OrchestraError as error:
        return xr.Dataset({"status": ((), str(error))})
    row = _row(what, found, pairs, convention)
    warnings = list(found.warnings)
    own = model_data(point)
    if boundary is not None and own.get("boundary", boundary) != boundary:
        warnings.append(f"fitted as if {boundary}, the model is {own['boundary']}")
    temperature = own.get("state", {}).get("beta", np.inf)
    if beta is not None and "state" in own and beta != temperature:
        warnings.append(f"fitted with beta = {beta:g}, the model has {temperature:g}")
    state, reason = input_state(point)
    if state == 0:
        text = f"the input is NOT converged: {reason or 'no reason is stored'}"
        warnings.append(text.replace("; ", ", "))
    row["warnings"] = ((), "; ".join(warnings))
    row["input_converged"] = ((), float(state))
    return row


def input_state(point: xr.Dataset) -> tuple[int, str]:
    """Return (1: converged, 0: not, -1: not said; the reason) of what is fitted."""
    for place in (point, point.attrs):
        if "converged" in place:
            state, reason = place["converged"], place.get("converged_reason", "")
            return int(np.asarray(state).item()), str(np.asarray(reason).item())
    return -1, ""


def _row(what: str, found: PointFit, pairs: Pairs, convention: str) -> xr.Dataset:
    numbers = dict(found.numbers)
    if "eta" in numbers and what in ("pair", "density"):
        eta = numbers["eta"]
        k, slope = luttinger(what, eta.value, convention)
        empty = np.full(len(eta.per_window), np.nan)
        numbers["K"] = Number(k, abs(slope) * eta.stderr, abs(slope) * eta.systematic, empty, empty)
    variables: dict[str, tuple] = {}  # type: ignore[type-arg]
    for name, number in numbers.items():
        variables[name] = ((), number.value)
        variables[f"{name}_stderr"] = ((), number.stderr)
        variables[f"{name}_systematic"] = ((), number.systematic)
        if name != "K":
            variables[f"scan_{name}"] = (("window",), number.per_window)
            variables[f"scan_{name}_error"] = (("window",), number.per_window_error)
    scan, best = found.scan, found.scan.fits[found.scan.best]
    for key in ("r_min", "r_max", "edge"):
        values = np.array([getattr(window, key) for window in scan.windows], float)
        variables[f"scan_{key}"] = (("window",), values)
        variables[key] = ((), values[scan.best])
    ratio = np.array([fit.chi2 / fit.dof if fit.dof > 0 else np.nan for fit in scan.fits])
    variables |= {
        "scan_chi2_per_dof": (("window",), ratio),
        "scan_weight": (("window",), scan.weights),
        "scan_form": (("window",), np.array([one.form.name for one in scan.windows])),
        "chi2_per_dof": ((), ratio[scan.best]),
        "dof": ((), float(best.dof)),
        "form": ((), best.form.name),
        "weights": ((), scan.kind),
        "status": ((), "ok"),
    }
    variables |= _curve(what, found, pairs)
    return xr.Dataset(variables)


def _curve(what: str, found: PointFit, pairs: Pairs) -> dict[str, tuple]:  # type: ignore[type-arg]
    """Return data and best fit by distance, averaged over the same pairs."""
    window, best = found.window, found.scan.fits[found.scan.best]
    series = series_of(pairs, window.edge, True, grouped(what, pairs))
    basis = best.form.bind(series.x, series.y, series.length)
    with np.errstate(all="ignore"):
        fitted = series.average(basis(best.shape)) @ best.amplitudes
    size = pairs.length // 2 if pairs.periodic else pairs.length - 1
    result = {}
    none = np.full(len(series.r), np.nan)
    for key, values in (
        ("data", series.values),
        ("data_stderr", none if series.stderr is None else series.stderr),
        ("fitted", fitted),
    ):
        full = np.full(size, np.nan)
        full[series.r - 1] = values
        result[key] = (("r",), full)
    return result


def _assemble(rows: list[xr.Dataset], dims: list[str], shape: list[int]) -> xr.Dataset:
    """Stack rows (some of them refused, with windows of different number) into one dataset."""
    names = list(dict.fromkeys(str(v) for row in rows for v in row.data_vars))
    longest = {dim: max(row.sizes.get(dim, 0) for row in rows) for dim in ("window", "r")}
    variables = {}
    for name in names:
        example = next(row[name] for row in rows if name in row)
        text = example.dtype.kind in "OU"
        inner = [longest[str(dim)] for dim in example.dims]
        stacked = np.full([len(rows), *inner], "" if text else np.nan, object if text else float)
        for k, row in enumerate(rows):
            if name in row:
                value = row[name].values.tolist()  # plain str and float
                place: tuple[Any, ...] = (k, *(slice(0, n) for n in row[name].shape))
                stacked[place] = value
        if text:
            stacked = stacked.astype(str)
        variables[name] = ([*dims, *example.dims], stacked.reshape([*shape, *inner]))
    return xr.Dataset(variables, {"r": np.arange(1, longest["r"] + 1)})


_TEXTS = {
    "eta": ("decay exponent", "C ~ r^-eta", "1"),
    "K": ("Luttinger parameter, derived from eta", "", "1"),
    "xi": ("length", "thermal: s(r) = (xi/pi) sinh(pi r/xi); metal: exp(-r/xi)", "sites"),
    "inverse_xi": ("inverse length", "exp(-r inverse_xi)", "1 / site"),
    "power": ("power of the prefactor", "r^-power", "1"),
    "wave_vector": ("wave vector of the oscillation", "cos(q r)", "1 / site"),
}


def _describe(result: xr.Dataset, what: str, convention: str) -> None:
    for name, (long_name, definition, units) in _TEXTS.items():
        for suffix, text in (
            ("", ""),
            ("_stderr", "statistical error of "),
            ("_systematic", "systematic error (windows, forms, truncation) of "),
        ):
            variable = f"{what}_{name}{suffix}"
            if variable in result:
                result[variable].attrs = {
                    "units": units,
                    "long_name": text + long_name,
                    "definition": definition,
                }
                if name == "K":
                    result[variable].attrs |= {
                        "convention": convention,
                        "definition": CONVENTIONS[convention],
                    }
