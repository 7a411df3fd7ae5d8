"""Fits of a whole dataset: every layer, every point of a sweep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

from bilayer_orchestra import __version__
from bilayer_orchestra.dataset.reading import conditions, model_data
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
    sweep = {str(dim): size for dim, size in dataset[name].sizes.items() if dim not in own}
    points = [
        (layer, dataset.isel(dict(zip(sweep, place, strict=True))))
        for layer in chosen
        for place in np.ndindex(*sweep.values())
    ]
    # matrices of a few dozen rows: threads only wait for each other (3 to 10 times slower)
    with threadpool_limits(1, user_api="blas"):
        rows = [
            _row(point, what, layer, boundary, beta, convention, options) for layer, point in points
        ]
    if all(row["status"].item() != "ok" for row in rows):
        reasons: dict[str, list[str]] = {}
        for (layer, _), row in zip(points, rows, strict=True):
            reasons.setdefault(row["status"].item(), []).append(layer)
        texts = [f"{', '.join(dict.fromkeys(of))}: {text}" for text, of in reasons.items()]
        raise OrchestraError(f"{what}, layer {'; '.join(texts)}")
    shape = {"layer": len(chosen), **sweep}
    stacked = xr.concat(rows, "point", join="outer", fill_value=_no_text(rows))
    result = xr.Dataset(
        {
            f"{what}_{key}": variable.variable.unstack(point=shape).transpose(*shape, ...)
            for key, variable in stacked.data_vars.items()
        },
        {"layer": chosen, "r": stacked["r"]}
        | {key: one for key, one in dataset.coords.items() if set(one.dims) <= set(sweep)},
    )
    _describe(result, what, convention)
    result.attrs = {key: dataset.attrs[key] for key in _KEPT if key in dataset.attrs}
    result.attrs |= {
        "title": "fits of correlation functions",
        "orchestra_fit_schema": 1,
        "software": f"bilayer_orchestra {__version__}",
    }
    append_history(result, f"fitted {what} of layers {', '.join(chosen)}")
    return result


def merged(fits: Sequence[xr.Dataset]) -> xr.Dataset:
    """Return one dataset of the fits of several kinds; scans of fewer windows end with nothing."""
    numbered = [one.assign_coords(window=np.arange(one.sizes["window"])) for one in fits]
    together = xr.merge(
        numbered,
        join="outer",
        combine_attrs="override",
        compat="override",
        fill_value=_no_text(numbered),
    )
    return together.drop_vars("window")


def _no_text(datasets: Sequence[xr.Dataset]) -> dict[str, str]:
    """Return what stands for a missing value of every variable that is text."""
    return {
        str(name): ""
        for one in datasets
        for name, variable in one.data_vars.items()
        if variable.dtype.kind in "OU"
    }


def rounded(value: float, error: float) -> str:
    """Return ``value`` with as many digits as its error deserves; never a zero that is none."""
    digits = int(np.clip(1 - np.floor(np.log10(error)), 0, 8)) if 0 < error < np.inf else 4
    text = f"{value:.{digits}f}"
    return text if float(text) or not value else f"{value:.1g}"


def _row(
    point: xr.Dataset,
    what: str,
    layer: str,
    boundary: str | None,
    beta: float | None,
    convention: str,
    options: Options,
) -> xr.Dataset:
    """Return the numbers of one point; a refusal stands in their place."""
    try:
        periodic, at_beta = conditions(point, boundary, beta)
        pairs = pairs_of(point, FITTED[what], layer, periodic, at_beta)
        found = fit_pairs(what, pairs, options)
    except OrchestraError as error:
        return xr.Dataset({"status": str(error)}, {"window": [], "r": np.array([], int)})
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
    row = _curve(what, found, pairs).assign(_numbers(what, found, convention))
    row["warnings"], row["input_converged"] = "; ".join(warnings), float(state)
    return row.assign_coords(window=np.arange(row.sizes["window"]))


def input_state(point: xr.Dataset) -> tuple[int, str]:
    """Return (1: converged, 0: not, -1: not said; the reason) of what is fitted."""
    for place in (point, point.attrs):
        if "converged" in place:
            state, reason = place["converged"], place.get("converged_reason", "")
            return int(np.asarray(state).item()), str(np.asarray(reason).item())
    return -1, ""


def _numbers(what: str, found: PointFit, convention: str) -> dict[str, Any]:
    numbers = dict(found.numbers)
    if "eta" in numbers and what in ("pair", "density"):
        eta = numbers["eta"]
        k, slope = luttinger(what, eta.value, convention)
        empty = np.full(len(eta.per_window), np.nan)
        numbers["K"] = Number(k, abs(slope) * eta.stderr, abs(slope) * eta.systematic, empty, empty)
    variables: dict[str, Any] = {}
    for name, number in numbers.items():
        variables[name] = number.value
        variables[f"{name}_stderr"] = number.stderr
        variables[f"{name}_systematic"] = number.systematic
        if name != "K":
            variables[f"scan_{name}"] = ("window", number.per_window)
            variables[f"scan_{name}_error"] = ("window", number.per_window_error)
    scanned = {
        "r_min": np.array([one.window.r_min for one in found.scan.fitted], float),
        "r_max": np.array([one.window.r_max for one in found.scan.fitted], float),
        "edge": np.array([one.window.edge for one in found.scan.fitted], float),
        "form": np.array([one.window.form.name for one in found.scan.fitted]),
        "chi2_per_dof": np.array([one.fit.chi2_per_dof for one in found.scan.fitted]),
    }
    best = int(np.argmax(found.scan.weights))
    for name, values in scanned.items():
        variables[f"scan_{name}"] = ("window", values)
        variables[name] = values[best]
    return variables | {
        "scan_weight": ("window", found.scan.weights),
        "dof": float(found.scan.best.fit.dof),
        "weights": found.scan.best.problem.weights.kind,
        "status": "ok",
    }


def _curve(what: str, found: PointFit, pairs: Pairs) -> xr.Dataset:
    """Return data and best fit by distance, averaged over the same pairs."""
    window, _, best = found.scan.best
    series = series_of(pairs, window.edge, True, grouped(what, pairs))
    basis = best.form.bind(series.x, series.y, series.length)
    with np.errstate(all="ignore"):
        fitted = series.average(basis(best.shape)) @ best.amplitudes
    stderr = np.full(len(series.r), np.nan) if series.stderr is None else series.stderr
    curve = xr.Dataset(
        {"data": ("r", series.values), "data_stderr": ("r", stderr), "fitted": ("r", fitted)},
        {"r": series.r},
    )
    return curve.reindex(r=np.arange(1, pairs.distance.max() + 1))


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
