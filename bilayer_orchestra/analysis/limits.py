"""Limits along a dimension of a dataset: discarded weight, dtau, temperature, 1/L.

What the backends do inside one run (:mod:`.truncation`, :mod:`.trotter`) is done here over a
dimension of collected results, for any variables, by the dimension's name.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.polynomial.polynomial import polyfit
from scipy.optimize import least_squares

from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.terms import FloatArray


class LimitForm(NamedTuple):
    """How values approach their limit.

    Parameters
    ----------
    formula : str
        In the words of the dimension.
    dim : str
        The dimension that it is meant for.
    z : callable
        Of the coordinates along it; vanishes in the limit.
    parameters : int
        Numbers that are fitted; the third one is the gap.
    needed : int
        The fewest different points that determine the limit.
    """

    formula: str
    dim: str
    z: Callable[[FloatArray], FloatArray]
    parameters: int = 2
    needed: int = 2


MODELS = {
    "truncation": LimitForm("v(0) + c w", "discarded_weight", lambda w: w),
    "trotter": LimitForm("v(0) + c dtau^2", "dtau", lambda dtau: dtau**2),
    "size": LimitForm("v(0) + c / L", "length", lambda length: 1 / length),
    "size2": LimitForm("v(0) + c / L^2", "length", lambda length: 1 / length**2),
    "power": LimitForm("v(0) + c T^2", "beta", lambda beta: 1 / beta**2),
    "gap": LimitForm("v(0) + c exp(-gap beta)", "beta", lambda beta: 1 / beta**2, 3, 4),
}
#: What is said of every element: suffix of its variable, in the order of :func:`_limit`.
SUFFIXES = ("", "_stderr", "_systematic", "_chi2_per_dof", "_gap")


def extrapolate(dataset: xr.Dataset, dim: str, model: str, names: list[str]) -> xr.Dataset:
    """Extrapolate variables along ``dim``.

    Parameters
    ----------
    dataset : Dataset
        Its points are independent of each other.
    dim : str
        A dimension with coordinates: the discarded weight, dtau, beta or the length of every point.
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
    form, positions = MODELS[model], dataset.indexes.get(dim)
    if positions is None or positions.dtype.kind not in "iuf":
        raise OrchestraError(f"a limit needs numbers along {dim!r}, not names or nothing")
    points = np.asarray(positions, float)
    usable = np.isfinite(points) & (points > 0)
    if not usable.all() or len(np.unique(points)) < form.needed:
        raise OrchestraError(
            f"{model} needs {form.needed} different values of {dim} or more, all positive and "
            f"finite; these are {', '.join(f'{point:g}' for point in points)}"
        )
    result = {}
    for name in names:
        if name not in dataset or dim not in dataset[name].dims:
            raise OrchestraError(f"{name!r} does not depend on {dim!r}")
        stderr = f"{name}_stderr"
        errors = dataset[stderr] if stderr in dataset else xr.full_like(dataset[name], np.nan)
        outputs = xr.apply_ufunc(
            lambda values, stderr: _limit(points, values, stderr, form),
            dataset[name],
            errors,
            input_core_dims=[[dim], [dim]],
            output_core_dims=[["limit"]],
            vectorize=True,
        )
        said = {"extrapolation": f"{form.formula} over {dim} ({model})"}
        for k, suffix in enumerate(SUFFIXES[: form.parameters + 2]):
            result[name + suffix] = outputs.isel(limit=k).assign_attrs(dataset[name].attrs | said)
    return xr.Dataset(result)


def _limit(
    points: FloatArray, values: FloatArray, stderr: FloatArray, form: LimitForm
) -> FloatArray:
    """Return (limit, stderr, systematic, chi2/dof, gap) of one element; NaN if undetermined."""
    present = np.isfinite(values)
    points, values, stderr = points[present], values[present], stderr[present]
    different = len(np.unique(points))
    if different < form.needed:
        return np.full(len(SUFFIXES), np.nan)
    noisy = bool(np.isfinite(stderr).all() and (stderr > 0).all())
    z = form.z(points)
    # without noise the form is worse farther from the limit
    relative = np.ones(len(z)) if form.parameters == 3 else z / z.max()
    sigma = stderr if noisy else relative
    value, error, chi2, gap = _fit(points, values, sigma, form)
    dof, systematic = len(values) - form.parameters, np.nan
    if different > form.parameters:
        kept = z < z.max()
        shares = sigma if noisy else sigma / sigma[kept].max()
        systematic = abs(_fit(points[kept], values[kept], shares[kept], form)[0] - value)
        if not noisy and form.parameters == 2:  # nothing hides the next order
            bent = polyfit(relative, values, 2, w=1 / relative)[0]
            systematic = max(systematic, abs(bent - value))
    if not noisy:
        error, chi2 = np.nan, np.nan
    return np.array([value, error, systematic, chi2 / dof if dof > 0 else np.nan, gap])


def _fit(
    points: FloatArray, values: FloatArray, sigma: FloatArray, form: LimitForm
) -> tuple[float, float, float, float]:
    """Return (limit, its error, chi2, gap); NaN if no decay is seen."""
    z = form.z(points)
    basis, gap, steps = z / z.max(), np.nan, points - points.min()

    def line(basis: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return (v(0), c) of v(0) + c ``basis``, and what is left, in errors."""
        design = np.stack([np.ones_like(basis), basis], axis=1) / sigma[:, None]
        solution = np.linalg.lstsq(design, values / sigma, rcond=None)[0]
        return np.asarray(solution), np.asarray(values / sigma - design @ solution)

    def misfit(log_gap: FloatArray) -> FloatArray:
        return line(np.exp(-np.exp(log_gap[0]) * steps))[1]

    if form.parameters == 3:  # the best exponential in beta, from its lowest value on
        starts = np.log(np.array([0.2, 1.0, 5.0]) / np.ptp(steps))
        fits = [least_squares(misfit, [start], method="lm") for start in starts]
        gap = float(np.exp(min(fits, key=lambda found: found.cost).x[0]))
        basis = np.exp(-gap * steps)
        if basis.min() > 0.9 or np.count_nonzero(basis > 1e-6) < 3:
            return np.nan, np.nan, np.nan, np.nan  # no decay is seen, or nothing but its end
    (limit, amplitude), residual = line(basis)
    columns = [np.ones_like(basis), basis]
    if form.parameters == 3:
        columns.append(-amplitude * steps * basis)  # by the gap
        if abs(amplitude) <= 1e-9 * np.abs(values).max():
            gap = np.nan  # a constant has the limit, and no gap
    design = np.stack(columns, axis=1) / sigma[:, None]
    error = np.sqrt(np.linalg.pinv(design.T @ design)[0, 0])
    return float(limit), float(error), float(residual @ residual), gap
