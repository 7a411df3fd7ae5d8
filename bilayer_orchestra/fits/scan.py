"""Window scans and model averaging.

Which distances belong to the asymptotic form is not known beforehand. Every window (smallest
distance, distance from the ends) and every form is a model of the data, with weight

    w ~ exp(-(chi^2 + 2 k + 2 N_cut) / 2)

for k parameters and N_cut data left out (W. I. Jay and E. T. Neil, PRD 103, 114502 (2021)).
The average has a statistical error, and a systematic one: the spread of the models around it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.fits.forms import Form
from bilayer_orchestra.fits.pairs import Pairs, Series, series_of
from bilayer_orchestra.fits.solve import Fit, Problem
from bilayer_orchestra.fits.weights import (
    ROUNDING,
    Weights,
    deterministic_weights,
    shrinkage,
    statistical_weights,
)
from bilayer_orchestra.terms import FloatArray

#: A window must hold this many distances more than the form has parameters ...
SPARE = 2
#: ... and reach out to this multiple of its smallest distance: less decides no exponent.
SPAN = 1.5
#: Most values of r_min in one scan.
MAX_WINDOWS = 24
#: Windows below this weight are not repeated in the bootstrap.
NEGLIGIBLE = 1e-3

Start = Callable[[Form, Series], list[FloatArray]]


@dataclass(frozen=True)
class Window:
    """One model of the data: a form on distances r_min <= r <= r_max, ``edge`` from the ends."""

    form: Form
    r_min: int
    r_max: int
    edge: int


@dataclass
class Scan:
    """All fits of a scan and their weights (which sum to one)."""

    windows: list[Window]
    fits: list[Fit]
    problems: list[Problem]
    weights: FloatArray
    total: float
    kind: str
    form_error: float

    @property
    def best(self) -> int:
        """Index of the window with the largest weight."""
        return int(np.argmax(self.weights))

    def average(self, values: FloatArray) -> tuple[float, float]:
        """Return the mean over models of one number per fit, and the spread around it."""
        mean = float(self.weights @ values)
        return mean, float(np.sqrt(self.weights @ (values - mean) ** 2))


def scan(
    pairs: Pairs,
    forms: list[Form],
    start: Start,
    *,
    edges: list[int],
    r_mins: list[int] | None,
    r_max: int | None,
    grouped: bool,
    envelope: bool,
) -> Scan:
    """Fit every form in every window.

    Parameters
    ----------
    edges : list of int
        Distances from the ends of an open chain. With statistical data only one makes sense: the
        data themselves (averages over pairs) depend on it.

    Raises
    ------
    OrchestraError
        If the data cannot determine the parameters.
    """
    series = {edge: series_of(pairs, edge, grouped, envelope) for edge in edges}
    k = min(len(form.shape) + len(form.amplitudes) for form in forms)
    candidates = _windows(forms, series, r_mins, r_max)
    if not candidates:
        reach = max(int(one.r.max()) for one in series.values())
        raise OrchestraError(
            f"the data do not determine this fit: distances up to {reach} for {k} parameters "
            f"(needed: {k + SPARE} distances with r_max >= {SPAN:g} r_min); "
            "take a longer chain or widen the window"
        )
    if pairs.statistical:
        whole = series[edges[0]]
        lam = shrinkage(whole.deviations, whole.degrees) if len(whole.deviations) else 0.0
        weighted: Callable[[Series], Weights] = lambda one: statistical_weights(one, lam)  # noqa: E731
        error = 0.0
    else:
        error = form_error(candidates, series, start)
        weighted = lambda one: deterministic_weights(one, error)  # noqa: E731
    windows, fits, problems = [], [], []
    for window in candidates:
        chosen = _cut(series[window.edge], window)
        problem = Problem(window.form, chosen, weighted(chosen))
        fit = _solve(problem, start)
        if fit is not None:
            windows.append(window)
            fits.append(fit)
            problems.append(problem)
    if not fits:
        raise OrchestraError("no window could be fitted: the data do not look like this form")
    total = max(fit.count for fit in fits)
    weights = model_weights(
        np.array([fit.chi2 for fit in fits]),
        np.array([fit.k for fit in fits]),
        total - np.array([fit.count for fit in fits]),
    )
    return Scan(windows, fits, problems, weights, total, problems[0].weights.kind, error)


def model_weights(chi2: FloatArray, k: FloatArray, cut: FloatArray) -> FloatArray:
    """Return normalized exp(-(chi2 + 2 k + 2 cut) / 2)."""
    exponent = -0.5 * (chi2 + 2 * k + 2 * cut)
    weights = np.exp(exponent - exponent.max())
    return np.asarray(weights / weights.sum())


def _cut(series: Series, window: Window) -> Series:
    return series.selected((series.r >= window.r_min) & (series.r <= window.r_max))


def _windows(
    forms: list[Form], series: dict[int, Series], r_mins: list[int] | None, r_max: int | None
) -> list[Window]:
    result = []
    for edge, one in series.items():
        distances = np.unique(one.r)
        last = int(distances[-1]) if r_max is None else min(r_max, int(distances[-1]))
        first = [r for r in (r_mins or distances) if r <= last]
        if r_mins is None and len(first) > MAX_WINDOWS:
            first = sorted({int(round(r)) for r in np.geomspace(1, last / SPAN, MAX_WINDOWS)})
        for form in forms:
            k = len(form.shape) + len(form.amplitudes)
            for r in first:
                count = int(((distances >= r) & (distances <= last)).sum())
                if count >= k + SPARE and last >= SPAN * r:
                    result.append(Window(form, int(r), last, edge))
    return result


def _solve(problem: Problem, start: Start) -> Fit | None:
    """Return the best fit of all starting values."""
    best: Fit | None = None
    for one in start(problem.form, problem.series):
        try:
            fit = problem.solve(one)
        except (np.linalg.LinAlgError, ValueError):
            continue
        if fit.success and (best is None or fit.chi2 < best.chi2):
            best = fit
    return best


def form_error(candidates: list[Window], series: dict[int, Series], start: Start) -> float:
    """Return the relative error of form with which the best window has chi^2/dof = 1.

    Zero if truncation alone explains the misfit. Windows with less than a third of the distances
    are not asked: few data agree by chance.
    """
    wide = max(len(np.unique(one.r)) for one in series.values())
    needed = []
    for window in candidates:
        chosen = _cut(series[window.edge], window)
        count = len(np.unique(chosen.r))
        if count < wide / 3:
            continue
        weights = deterministic_weights(chosen, 1.0)
        fit = _solve(Problem(window.form, chosen, weights), start)
        if fit is None or fit.dof <= 0:
            continue
        square = (chosen.values - fit.fitted) ** 2
        bias = np.nan_to_num(chosen.bias) ** 2
        share = count / len(square)

        def excess(log_error: float, data=(square, bias, chosen.scale, share, fit.dof)) -> float:  # type: ignore[no-untyped-def]
            square, bias, scale, share, dof = data
            sigma = bias + (np.exp(log_error) * scale) ** 2
            return float(share * np.sum(square / sigma) - dof)

        low, high = np.log(ROUNDING), np.log(1e3)
        if excess(low) <= 0:
            return 0.0
        needed.append(np.exp(brentq(excess, low, high)) if excess(high) < 0 else 1e3)
    return float(min(needed)) if needed else 1.0
