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
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.fits.forms import Form
from bilayer_orchestra.fits.pairs import Pairs, Series, series_of
from bilayer_orchestra.fits.solve import THERMAL, Fit, Problem
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
#: ... the same for data with noise: an exponent read off half an octave is noise, and enters the
#: average whenever chi^2 of the wider windows happens to be large.
SPAN_NOISY = 3.0
#: ... and for a form with a correction r^-2, which is there to use small distances: at large ones
#: it cannot be told from the leading term, and only adds noise.
SPAN_CORRECTED = 8.0
#: Most values of r_min in one scan.
MAX_WINDOWS = 24
#: Windows below this weight are not repeated in the bootstrap: noise cannot lift them that far.
NEGLIGIBLE = 1e-12

Start = Callable[[Problem], list[FloatArray]]


@dataclass(frozen=True)
class Window:
    """One model of the data: a form on distances r_min <= r <= r_max, ``edge`` from the ends."""

    form: Form
    r_min: int
    r_max: int
    edge: int


class Fitted(NamedTuple):
    """A window, what was fitted in it, and the fit."""

    window: Window
    problem: Problem
    fit: Fit


@dataclass(frozen=True)
class Scan:
    """All fits of a scan and their weights (which sum to one)."""

    fitted: list[Fitted]
    weights: FloatArray

    @property
    def best(self) -> Fitted:
        """The one with the largest weight."""
        return self.fitted[int(np.argmax(self.weights))]


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
    least_form_error: Callable[[Fit], float] | None = None,
) -> Scan:
    """Fit every form in every window.

    Parameters
    ----------
    pairs : Pairs
        The data of one layer.
    forms : list of Form
        They compete in the average.
    start : callable
        Returns starting values of the shape of a problem.
    r_mins : list of int or None
        Smallest distances of the windows; None: all that the data allow.
    r_max : int or None
        Largest distance; None: all.
    grouped, envelope : bool
        See :func:`.pairs.series_of`.
    edges : list of int
        Distances from the ends of an open chain. With statistical data only one makes sense: the
        data themselves (averages over pairs) depend on it.
    least_form_error : callable, optional
        How far the form can be trusted at best, as a fraction of the correlation, judged from a
        first fit. Data without noise would otherwise prefer the window where a wrong form
        happens to fit to many digits.

    Raises
    ------
    OrchestraError
        If the data cannot determine the parameters.
    """
    series = {edge: series_of(pairs, edge, grouped, envelope) for edge in edges}
    k = min(len(form.shape) + len(form.amplitudes) for form in forms)
    span = SPAN_NOISY if pairs.statistical else SPAN
    candidates = _windows(forms, series, r_mins, r_max, span)
    if not candidates:
        reach = max(int(one.r.max()) for one in series.values())
        raise OrchestraError(
            f"the data do not determine this fit: distances up to {reach} for {k} parameters "
            f"(needed: {k + SPARE} distances with r_max >= {span:g} r_min); "
            "take a longer chain or widen the window"
        )
    if pairs.statistical:
        whole = series[edges[0]]
        lam = shrinkage(whole.deviations, whole.degrees) if len(whole.deviations) else 0.0
        fitted = _fit_all(candidates, series, lambda one: statistical_weights(one, lam), start)
    else:
        rough = _fit_all(candidates, series, lambda one: deterministic_weights(one, 1.0), start)
        error = form_error(rough, max(len(np.unique(one.r)) for one in series.values()))
        if least_form_error is not None and rough:
            # the best fit in the widest window
            first = min(rough, key=lambda one: (-one.fit.count, one.fit.chi2))
            error = max(error, least_form_error(first.fit))
        fitted = _fit_all(
            candidates, series, lambda one: deterministic_weights(one, error), start, rough
        )
    if not fitted:
        raise OrchestraError("no window could be fitted: the data do not look like this form")
    return Scan(fitted, model_weights(np.array([one.fit.chi2 for one in fitted]), fitted))


def model_weights(chi2: FloatArray, fitted: list[Fitted]) -> FloatArray:
    """Return normalized exp(-(chi^2 + 2 k + 2 N_cut) / 2).

    Parameters
    ----------
    chi2 : array, shape (..., models)
        Of the fits themselves, or of replicas of their data.
    """
    k, counts = np.array([(one.fit.k, one.fit.count) for one in fitted]).T
    exponent = -0.5 * (chi2 + 2 * k + 2 * (counts.max() - counts))
    weights = np.exp(exponent - exponent.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def _windows(
    forms: list[Form],
    series: dict[int, Series],
    r_mins: list[int] | None,
    r_max: int | None,
    span: float,
) -> list[Window]:
    result = []
    for edge, one in series.items():
        distances = np.unique(one.r)
        last = int(distances[-1]) if r_max is None else min(r_max, int(distances[-1]))
        first = [r for r in (r_mins or distances) if r <= last]
        if r_mins is None and len(first) > MAX_WINDOWS:
            first = sorted({round(float(r)) for r in np.geomspace(1, last / span, MAX_WINDOWS)})
        for form in forms:
            k = len(form.shape) + len(form.amplitudes)
            for r in first:
                count = int(((distances >= r) & (distances <= last)).sum())
                wide = SPAN_CORRECTED if "correction" in form.amplitudes else span
                if count >= k + SPARE and last >= wide * r:
                    result.append(Window(form, int(r), last, edge))
    return result


def _fit_all(
    candidates: list[Window],
    series: dict[int, Series],
    weighted: Callable[[Series], Weights],
    start: Start,
    earlier: list[Fitted] | None = None,
) -> list[Fitted]:
    """Fit all windows; each starts from its neighbour, the first of a form from many places."""
    known = {window: fit.shape for window, _, fit in earlier or []}
    result: list[Fitted] = []
    last: dict[tuple[str, int], FloatArray] = {}
    for window in candidates:
        whole = series[window.edge]
        chosen = whole.selected((whole.r >= window.r_min) & (whole.r <= window.r_max))
        problem = Problem(window.form, chosen, weighted(chosen))
        key = (window.form.name, window.edge)
        near = known.get(window, last.get(key))
        fit = _solve(problem, start(problem) if near is None else [near])
        if fit is not None and sensible(fit, window, chosen):
            last[key] = fit.shape
            result.append(Fitted(window, problem, fit))
    return result


def sensible(fit: Fit, window: Window, series: Series) -> bool:
    """Whether a fit has not run away, and its window holds what it claims to determine.

    Beyond r of order xi a thermal correlation is a plain exponential, from which eta and xi cannot
    be told apart: windows must begin well inside. No field theory has xi below one site.

    Parameters
    ----------
    fit : Fit
        The fit.
    window, series
        Where, and to what.
    """
    main = fit.form.shape[0]
    if not (np.isfinite(fit.shape).all() and fit.error(main) < max(1.0, abs(fit.value(main)))):
        return False
    for name, value in zip(fit.form.shape, fit.shape, strict=True):
        if name == "eta" and not -1 < value < 20:
            return False
        if name == THERMAL:
            xi = 1 / max(value, 1e-12)
            if not (1 < xi < 100 * series.length and 2 * window.r_min <= max(xi, 2.0)):
                return False
        if name == "wave_vector" and not 0 <= value <= np.pi:
            return False
    if "correction" in fit.form.amplitudes:
        leading, correction = fit.amplitudes[-2:]
        # else it is the leading term itself, and eta too small by two
        return bool(abs(correction) < abs(leading) * window.r_min**2)
    return True


def _solve(problem: Problem, guesses: list[FloatArray]) -> Fit | None:
    """Return the best fit of all starting values."""
    best: Fit | None = None
    for one in guesses:
        try:
            fit = problem.solve(one)
        except (np.linalg.LinAlgError, ValueError):
            continue
        if fit.success and (best is None or fit.chi2 < best.chi2):
            best = fit
    return best


def form_error(fitted: list[Fitted], distances: int) -> float:
    """Return the relative error of form with which the best window has chi^2/dof = 1.

    Zero if truncation alone explains the misfit. Windows with less than a third of the distances
    are not asked: few data agree by chance.
    """
    needed = []
    for _, problem, fit in fitted:
        series = problem.series
        count = len(np.unique(series.r))
        if count < distances / 3 or fit.dof <= 0:
            continue
        square = (series.values - fit.fitted) ** 2
        bias = np.nan_to_num(series.bias) ** 2
        target = fit.dof * len(square) / count

        def excess(
            log_error: float,
            square: FloatArray = square,
            bias: FloatArray = bias,
            scale: FloatArray = series.scale,
            target: float = target,
        ) -> float:
            return float(np.sum(square / (bias + (np.exp(log_error) * scale) ** 2)) - target)

        low, high = np.log(ROUNDING), np.log(1e3)
        if excess(low) <= 0:
            return 0.0
        if excess(high) < 0:
            needed.append(np.exp(brentq(excess, low, high)))
    return float(min(needed)) if needed else 1.0
