"""Limits along a dimension of a dataset: discarded weight, dtau, temperature, 1/L.

What the backends do inside one run (:mod:`.truncation`, :mod:`.trotter`) is done here over a
dimension of collected results, for any variables, by the dimension's name.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.optimize import least_squares

from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.terms import FloatArray


@dataclass(frozen=True)
class Model:
    """v(z) = v(0) + c f(z), and what z is for a given coordinate."""

    name: str
    formula: str
    dim: str


MODELS = {
    model.name: model
    for model in (
        Model("truncation", "v(0) + c w", "discarded_weight"),
        Model("trotter", "v(0) + c dtau^2", "dtau"),
        Model("size", "v(0) + c / L", "length"),
        Model("size2", "v(0) + c / L^2", "length"),
        Model("power", "v(0) + c T^2", "beta"),
        Model("gap", "v(0) + c exp(-gap beta)", "beta"),
    )
}


def extrapolate(dataset: xr.Dataset, dim: str, model: str, names: list[str]) -> xr.Dataset:
    """Extrapolate variables along ``dim``.

    Parameters
    ----------
    dataset : Dataset
        ``dim`` is a coordinate: the discarded weight, dtau, beta or the length of every point.
        Points are independent of each other.
    model : str
        A key of :data:`MODELS`.
    names : list of str
        Variables; every other dimension is kept, element by element.

    Returns
    -------
    Dataset
        ``<name>``, ``<name>_stderr`` (statistical; NaN without errors), ``<name>_systematic`` (the
        change when the point farthest from the limit is left out, without noise also that when the
        next order is fitted; NaN with the fewest points possible), ``<name>_chi2_per_dof`` (NaN
        without errors or degrees of freedom); for ``gap`` also ``<name>_gap``. The model is in the
        attributes.

    Raises
    ------
    OrchestraError
        If the points do not determine the limit.
    """
    if model not in MODELS:
        raise OrchestraError(f"unknown model {model!r}; choose from {', '.join(MODELS)}")
    if dim not in dataset.dims or dim not in dataset.coords:
        raise OrchestraError(f"{dim!r} is no dimension with coordinates of this dataset")
    if dataset[dim].dtype.kind not in "iuf":
        raise OrchestraError(f"the positions on {dim!r} have names, and a limit needs numbers")
    points = np.asarray(dataset[dim].values, float)
    needed = 4 if model == "gap" else 2
    if len(np.unique(points)) < needed:
        raise OrchestraError(
            f"{model} needs {needed} different values of {dim}, there are {len(np.unique(points))}"
        )
    if not (np.isfinite(points).all() and (points > 0).all()):
        raise OrchestraError(f"{dim} must be positive and finite to be extrapolated")
    result = {}
    for name in names:
        if name not in dataset or dim not in dataset[name].dims:
            raise OrchestraError(f"{name!r} does not depend on {dim!r}")
        stderr = f"{name}_stderr"
        errors = dataset[stderr] if stderr in dataset else xr.full_like(dataset[name], np.nan)
        outputs = xr.apply_ufunc(
            lambda v, e: _limit(points, v, e, model),
            dataset[name],
            errors,
            input_core_dims=[[dim], [dim]],
            output_core_dims=[["limit"]],
            vectorize=True,
        )
        suffixes = ["", "_stderr", "_systematic", "_chi2_per_dof", "_gap"]
        for k, suffix in enumerate(suffixes[: 5 if model == "gap" else 4]):
            result[name + suffix] = outputs.isel(limit=k)
            result[name + suffix].attrs = {
                **dataset[name].attrs,
                "extrapolation": f"{MODELS[model].formula} over {dim} ({model})",
            }
    return xr.Dataset(result)


def _limit(points: FloatArray, values: FloatArray, stderr: FloatArray, model: str) -> FloatArray:
    """Return (limit, stderr, systematic, chi2/dof, gap) of one element; NaN if undetermined."""
    present = np.isfinite(values)
    points, values, stderr = points[present], values[present], stderr[present]
    k = 3 if model == "gap" else 2
    nothing = np.full(5, np.nan)
    if len(np.unique(points)) < (4 if model == "gap" else 2):
        return nothing
    noisy = bool(np.isfinite(stderr).all() and (stderr > 0).all())
    fit = _fit(points, values, stderr if noisy else _scale(points, model), model)
    if fit is None:
        return nothing
    value, error, chi2, gap = fit
    dof = len(values) - k
    systematic = np.nan
    if len(np.unique(points)) > k:
        far = _distance(points, model)
        kept = far < far.max()
        sigma = (stderr if noisy else _scale(points, model))[kept]
        fewer = _fit(points[kept], values[kept], sigma, model)
        systematic = abs(fewer[0] - value) if fewer else np.nan
        if not noisy and model != "gap":
            systematic = max(systematic, abs(_with_next_order(points, values, model) - value))
    return np.array(
        [
            value,
            error if noisy else np.nan,
            systematic,
            chi2 / dof if noisy and dof > 0 else np.nan,
            gap,
        ]
    )


def _with_next_order(points: FloatArray, values: FloatArray, model: str) -> float:
    """Return the limit of v(0) + c z + d z^2; without noise nothing hides the next order."""
    z = _distance(points, model)
    z = z / z.max()
    design = np.stack([np.ones_like(z), z, z**2], axis=1) / z[:, None]
    return float(np.linalg.lstsq(design, values / z, rcond=None)[0][0])


def _distance(points: FloatArray, model: str) -> FloatArray:
    """Return what vanishes in the limit."""
    match model:
        case "truncation":
            return points
        case "trotter":
            return np.asarray(points**2)
        case "size":
            return np.asarray(1 / points)
        case _:
            return np.asarray(1 / points**2)


def _scale(points: FloatArray, model: str) -> FloatArray:
    """Return relative errors of deterministic points: the form is worse farther from the limit."""
    if model == "gap":
        return np.ones(len(points))
    z = _distance(points, model)
    return np.asarray(z / z.max())


def _fit(
    points: FloatArray, values: FloatArray, sigma: FloatArray, model: str
) -> tuple[float, float, float, float] | None:
    """Return (limit, its error, chi2, gap)."""

    def linear(f: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        design = np.stack([np.ones_like(f), f], axis=1) / sigma[:, None]
        solution = np.linalg.lstsq(design, values / sigma, rcond=None)[0]
        return np.asarray(solution), np.asarray(values / sigma - design @ solution), design

    if model != "gap":
        z = _distance(points, model)
        solution, residual, design = linear(z / z.max())
        covariance = np.linalg.pinv(design.T @ design)
        return (
            float(solution[0]),
            float(np.sqrt(covariance[0, 0])),
            float(residual @ residual),
            np.nan,
        )
    first = points.min()

    def misfit(u: FloatArray) -> FloatArray:
        return linear(np.exp(-np.exp(u[0]) * (points - first)))[1]

    best = None
    for start in np.log(np.array([0.2, 1.0, 5.0]) / np.ptp(points)):
        found = least_squares(misfit, [start], method="lm")
        if best is None or found.cost < best.cost:
            best = found
    assert best is not None
    gap = float(np.exp(best.x[0]))
    decay = np.exp(-gap * (points - first))
    if decay.min() > 0.9 or np.count_nonzero(decay > 1e-6) < 3:
        return None  # no decay is seen, or nothing but its end
    solution, residual, design = linear(decay)
    if abs(solution[1]) <= 1e-9 * np.abs(values).max():
        gap = np.nan  # a constant has the limit, and no gap
    slope = -solution[1] * (points - first) * decay / sigma
    full = np.column_stack([design, slope])
    covariance = np.linalg.pinv(full.T @ full)
    return float(solution[0]), float(np.sqrt(covariance[0, 0])), float(residual @ residual), gap
