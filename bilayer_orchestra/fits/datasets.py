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
from bilayer_orchestra.fits.options import CONVENTIONS, Options, check_request
from bilayer_orchestra.fits.pairs import Pairs, pairs_of
from bilayer_orchestra.fits.point import PointFit, fit_pairs
from bilayer_orchestra.observables import FITTED, OBSERVABLES

#: What a fit keeps of its input's attributes: the model, and whose result it was.
_KEPT = "model model_name study study_name backend engine run request_hash history"
#: What is said of every number.
_ATTRIBUTES = {
    "eta": {"long_name": "decay exponent", "definition": "C ~ r^-eta", "units": "1"},
    "K": {"long_name": "Luttinger parameter, derived from eta", "units": "1"},
    "xi": {
        "long_name": "length",
        "definition": "thermal: s(r) = (xi/pi) sinh(pi r/xi); metal: exp(-r/xi)",
        "units": "sites",
    },
    "inverse_xi": {
        "long_name": "inverse length",
        "definition": "exp(-r inverse_xi)",
        "units": "1 / site",
    },
    "power": {"long_name": "power of the prefactor", "definition": "r^-power", "units": "1"},
    "wave_vector": {
        "long_name": "wave vector of the oscillation",
        "definition": "cos(q r)",
        "units": "1 / site",
    },
}
_ERRORS = {
    "stderr": "statistical error of ",
    "systematic": "systematic error (windows, forms, truncation) of ",
}


def luttinger(what: str, eta: float, convention: str) -> tuple[float, float]:
    """Return (K, dK/deta).

    Parameters
    ----------
    what : {"pair", "density"}
        The correlation.
    eta : float
        Its decay exponent.
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
    options : Options, optional
        What else is fixed.

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
    asked, how = list(layers or []), options or Options()
    check_request(dataset, [what], asked, boundary, beta, convention, how)
    chosen = list(dict.fromkeys(asked or map(str, dataset["layer"].values)))
    name = FITTED[what]
    if name not in dataset:
        raise OrchestraError(f"the dataset has no {name}; add it to the model's observables")

    def row(layer: str, point: xr.Dataset) -> xr.Dataset:
        """Return the numbers of one point; a refusal stands in their place."""
        try:
            pairs = pairs_of(point, name, layer, *conditions(point, boundary, beta))
            found = fit_pairs(what, pairs, how)
        except OrchestraError as error:
            return xr.Dataset({"status": str(error)}, {"window": [], "r": np.array([], int)})
        state, remarks = _input(point, boundary, beta)
        variables = _numbers(what, found, convention) | {
            "status": "ok",
            "input_converged": float(state),
            "warnings": "; ".join([*found.warnings, *remarks]),
        }
        return _curve(found, pairs).assign(variables)

    own = {"block", *OBSERVABLES[name].dims}
    sweep = {str(dim): size for dim, size in dataset[name].sizes.items() if dim not in own}
    points = [
        (layer, dataset.isel(dict(zip(sweep, place, strict=True))))
        for layer in chosen
        for place in np.ndindex(*sweep.values())
    ]
    # matrices of a few dozen rows: threads only wait for each other (3 to 10 times slower)
    with threadpool_limits(1, user_api="blas"):
        rows = [row(*point) for point in points]
    statuses = [one["status"].item() for one in rows]
    if "ok" not in statuses:
        reasons: dict[str, dict[str, None]] = {}
        for (layer, _), status in zip(points, statuses, strict=True):
            reasons.setdefault(status, {})[layer] = None
        texts = [f"{', '.join(of)}: {text}" for text, of in reasons.items()]
        raise OrchestraError(f"{what}, layer {'; '.join(texts)}")
    shape = {"layer": len(chosen), **sweep}
    stacked = xr.concat(_numbered(rows), "point", join="outer", fill_value=_no_text(rows))
    result = xr.Dataset(
        {
            f"{what}_{key}": variable.variable.unstack(point=shape).transpose(*shape, ...)
            for key, variable in stacked.data_vars.items()
        },
        {"layer": chosen, "r": stacked["r"]}
        | {key: one for key, one in dataset.coords.items() if set(one.dims) <= set(sweep)},
    )
    derived = {"convention": convention, "definition": CONVENTIONS[convention]}
    for key, attributes in (_ATTRIBUTES | {"K": _ATTRIBUTES["K"] | derived}).items():
        if f"{what}_{key}" not in result:
            continue
        result[f"{what}_{key}"].attrs = attributes
        for suffix, text in _ERRORS.items():
            long_name = text + attributes["long_name"]
            result[f"{what}_{key}_{suffix}"].attrs = attributes | {"long_name": long_name}
    result.attrs = {key: dataset.attrs[key] for key in _KEPT.split() if key in dataset.attrs}
    result.attrs |= {
        "title": "fits of correlation functions",
        "orchestra_fit_schema": 1,
        "software": f"bilayer_orchestra {__version__}",
    }
    append_history(result, f"fitted {what} of layers {', '.join(chosen)}")
    return result


def merged(fits: Sequence[xr.Dataset]) -> xr.Dataset:
    """Return one dataset of the fits of several kinds; scans of fewer windows end with nothing."""
    together = xr.merge(
        _numbered(fits),
        join="outer",
        combine_attrs="override",
        compat="override",
        fill_value=_no_text(fits),
    )
    return together.drop_vars("window")


def _numbered(fits: Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """Return the same with numbers of the windows, by which they are joined."""
    return [one.assign_coords(window=np.arange(one.sizes["window"])) for one in fits]


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


def total_error(fits: xr.Dataset, name: str) -> xr.DataArray:
    """Return both errors of a number in quadrature; one that is not there is zero."""
    statistical, systematic = (fits[f"{name}_{kind}"].fillna(0) for kind in _ERRORS)
    return (statistical**2 + systematic**2) ** 0.5


def _input(point: xr.Dataset, boundary: str | None, beta: float | None) -> tuple[int, list[str]]:
    """Return (1: converged, 0: not, -1: not said; warnings) of what is fitted."""
    warnings, own = [], model_data(point)
    if boundary is not None and own.get("boundary", boundary) != boundary:
        warnings.append(f"fitted as if {boundary}, the model is {own['boundary']}")
    temperature = own.get("state", {}).get("beta", np.inf)
    if beta is not None and "state" in own and beta != temperature:
        warnings.append(f"fitted with beta = {beta:g}, the model has {temperature:g}")
    said = next((one for one in (point, point.attrs) if "converged" in one), None)
    if said is None:
        return -1, warnings
    state = int(np.asarray(said["converged"]).item())
    if state == 0:
        reason = np.asarray(said.get("converged_reason", "")).item() or "no reason is stored"
        warnings.append(f"the input is NOT converged: {reason.replace('; ', ', ')}")
    return state, warnings


def _numbers(what: str, found: PointFit, convention: str) -> dict[str, Any]:
    fits, weights = found.scan.fits, found.scan.weights
    windows = [one.problem.window for one in fits]
    scanned = {
        "r_min": np.array([one.r_min for one in windows], float),
        "r_max": np.array([one.r_max for one in windows], float),
        "edge": np.array([one.edge for one in windows], float),
        "form": np.array([one.form.name for one in windows]),
        "chi2_per_dof": np.array([one.chi2_per_dof for one in fits]),
    }
    variables: dict[str, Any] = {key: one[np.argmax(weights)] for key, one in scanned.items()}
    for name, number in found.numbers.items():
        scanned |= {name: number.per_window, f"{name}_error": number.per_window_error}
        variables |= {
            name: number.value,
            f"{name}_stderr": number.stderr,
            f"{name}_systematic": number.systematic,
        }
    if what in ("pair", "density"):
        eta = found.numbers["eta"]
        k, slope = luttinger(what, eta.value, convention)
        errors = {"stderr": abs(slope) * eta.stderr, "systematic": abs(slope) * eta.systematic}
        variables |= {"K": k} | {f"K_{suffix}": error for suffix, error in errors.items()}
    scanned["weight"] = weights
    return (
        variables
        | {f"scan_{key}": ("window", one) for key, one in scanned.items()}
        | {
            "dof": float(found.scan.best.dof),
            "weights": found.scan.best.problem.weights.kind,
        }
    )


def _curve(found: PointFit, pairs: Pairs) -> xr.Dataset:
    """Return data and best fit by distance, averaged over the same pairs."""
    best = found.scan.best
    series = pairs.inside(best.problem.window.edge).by_distance()
    basis = best.form.bind(series.x, series.y, series.length)
    with np.errstate(all="ignore"):
        fitted = series.average(basis(best.shape)) @ best.amplitudes
    stderr = series.stderr if series.statistical else np.full(len(series.r), np.nan)
    curve = xr.Dataset(
        {"data": ("r", series.values), "data_stderr": ("r", stderr), "fitted": ("r", fitted)},
        {"r": series.r},
    )
    return curve.reindex(r=np.arange(1, pairs.r.max() + 1))
