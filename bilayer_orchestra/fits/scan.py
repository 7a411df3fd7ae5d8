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
from bilayer_orchestra.fits.forms import CORRECTION, THERMAL, Form, curvature, forms_for
from bilayer_orchestra.fits.options import Options
from bilayer_orchestra.fits.pairs import Pairs
from bilayer_orchestra.fits.solve import Fit, Problem, Window
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
#: Wave vectors from which a search starts if none is given.
WAVE_VECTORS = 4


@dataclass(frozen=True)
class Scan:
    """All fits of a scan and their weights (which sum to one)."""

    fits: list[Fit]
    weights: FloatArray

    @property
    def best(self) -> Fit:
        """The one with the largest weight."""
        return self.fits[int(np.argmax(self.weights))]

    @property
    def no_window_fits(self) -> bool:
        """Whether chi^2 of data with noise is beyond chance in the best window."""
        best = self.best
        return best.dof > 0 and best.chi2 > best.dof + 4 * np.sqrt(2 * best.dof)


def scan(what: str, pairs: Pairs, options: Options) -> Scan:
    """Fit every form in every window.

    Parameters
    ----------
    what : {"pair", "density", "green"}
        The correlation.
    pairs : Pairs
        The data of one layer.
    options : Options
        What the user fixes.

    Raises
    ------
    OrchestraError
        If the data cannot determine the parameters.
    """
    forms = forms_for(what, pairs, options.power)
    series = {edge: series_of(what, pairs, edge) for edge in edges_for(pairs, options.edge)}
    span = SPAN_NOISY if pairs.statistical else SPAN
    candidates = _windows(forms, series, options, span)
    if not candidates:
        k, reach = min(form.k for form in forms), max(int(one.r.max()) for one in series.values())
        raise OrchestraError(
            f"the data do not determine this fit: distances up to {reach} for {k} parameters "
            f"(needed: {k + SPARE} distances with r_max >= {span:g} r_min); "
            "take a longer chain or widen the window"
        )

    def fit_all(weighted: Callable[[Pairs], Weights], earlier: list[Fit]) -> list[Fit]:
        """Fit all windows; each starts from its neighbour, the first of a form from many places."""
        near = {fit.problem.window: fit.shape for fit in earlier}
        last: dict[tuple[str, int], FloatArray] = {}
        fits = []
        for window in candidates:
            whole = series[window.edge]
            chosen = whole.selected((whole.r >= window.r_min) & (whole.r <= window.r_max))
            problem = Problem(window, chosen, weighted(chosen))
            key = (window.form.name, window.edge)
            start = near.get(window, last.get(key))
            guesses = _guesses(problem, options.wave_vector) if start is None else [start]
            found = [fit for one in guesses if (fit := problem.solve(one)) is not None]
            best = min(found, key=lambda fit: fit.chi2, default=None)
            if best is not None and sensible(best):
                last[key] = best.shape
                fits.append(best)
        return fits

    if pairs.statistical:
        (whole,) = series.values()
        lam = shrinkage(whole.deviations, whole.degrees)
        fits = fit_all(lambda one: statistical_weights(one, lam), [])
    else:
        rough = fit_all(lambda one: deterministic_weights(one, 1.0), [])
        error = form_error(rough, max(len(np.unique(one.r)) for one in series.values()))
        if pairs.beta is not None and rough:
            # the best fit in the widest window; without noise, the window in which a wrong form
            # happens to fit to many digits would be preferred
            error = max(error, _curvature(min(rough, key=lambda one: (-one.count, one.chi2))))
        fits = fit_all(lambda one: deterministic_weights(one, error), rough)
    if not fits:
        raise OrchestraError("no window could be fitted: the data do not look like this form")
    return Scan(fits, model_weights(np.array([one.chi2 for one in fits]), fits))


def model_weights(chi2: FloatArray, fits: list[Fit]) -> FloatArray:
    """Return normalized exp(-(chi^2 + 2 k + 2 N_cut) / 2).

    Parameters
    ----------
    chi2 : array, shape (..., models)
        Of the fits themselves, or of replicas of their data.
    fits : list of Fit
        The models.
    """
    k, counts = np.array([(one.form.k, one.count) for one in fits]).T
    exponent = -0.5 * (chi2 + 2 * k + 2 * (counts.max() - counts))
    weights = np.exp(exponent - exponent.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def series_of(what: str, pairs: Pairs, edge: int) -> Pairs:
    """Return what is fitted: pairs at least ``edge`` sites into an open chain, perhaps averaged.

    Ground-state forms of open chains depend on both positions and see every pair when there is no
    noise. With noise the covariance of all pairs would exceed its rank, and their averages hold
    nearly all information; thermal correlations depend on the distance alone but near the ends.

    Parameters
    ----------
    what : {"pair", "density", "green"}
        The correlation.
    pairs : Pairs
        The data of one layer.
    edge : int
        The first site has 1.
    """
    series = pairs.inside(edge)
    if pairs.periodic or pairs.statistical or pairs.beta is not None or what == "green":
        series = series.by_distance()
    return series if what == "pair" else series.enveloped()


def edges_for(pairs: Pairs, edge: int | None) -> list[int]:
    """Return the distances from the ends of an open chain that are tried.

    With statistical data only one: the averages over pairs depend on it.
    """
    if pairs.periodic:
        return [1]
    if edge is not None:
        return [edge]
    parts = (8,) if pairs.statistical or pairs.beta is not None else (16, 12, 8, 6)
    return sorted({max(2, round(pairs.length / part)) for part in parts})


def _windows(
    forms: list[Form], series: dict[int, Pairs], options: Options, span: float
) -> list[Window]:
    result = []
    for edge, one in series.items():
        distances = np.unique(one.r)
        reach = int(distances[-1])
        last = reach if options.r_max is None else min(options.r_max, reach)
        asked = distances if options.r_min is None else [options.r_min]
        first = [int(r) for r in asked if r <= last]
        if len(first) > MAX_WINDOWS:
            first = sorted({round(float(r)) for r in np.geomspace(1, last / span, MAX_WINDOWS)})
        for form in forms:
            wide = SPAN_CORRECTED if CORRECTION in form.amplitudes else span
            for r in first:
                count = int(((distances >= r) & (distances <= last)).sum())
                if count >= form.k + SPARE and last >= wide * r:
                    result.append(Window(form, r, last, edge))
    return result


def _guesses(problem: Problem, wave_vector: float | None) -> list[FloatArray]:
    """Return starting values of the shape of a problem."""
    form, series = problem.form, problem.series
    density = form.name.startswith("density")
    lengths = [0.5 * series.beta, 2.0 * series.beta] if series.beta else [1.0]
    # how fast the correlation falls in the outer half of what is above the noise
    noise = 3 * series.stderr if series.statistical else 1e-9 * series.scale.max()
    seen = np.flatnonzero(series.scale > noise)
    outer = seen[len(seen) // 2 :]
    if len(np.unique(series.r[outer])) >= 3:
        rate = -np.polyfit(series.r[outer], np.log(series.scale[outer]), 1)[0]
        if rate > 0:
            # far out s(r)^-eta falls with pi eta / xi; the slower part of a density wave is seen
            lengths.append(np.pi * (1.5 if density else 0.7) / rate)
    choices: dict[str, list[float]] = {
        "eta": [0.5, 1.5, 2.5] if density else [0.7],
        THERMAL: [float(1 / one) for one in lengths],
        "inverse_xi": [0.05, 0.5],
        "power": [0.8],
        "wave_vector": [wave_vector or 0.0],
    }
    grid = np.meshgrid(*(choices[name] for name in form.shape), indexing="ij")
    guesses = list(np.stack([one.ravel() for one in grid], axis=1))
    if "wave_vector" not in form.shape or wave_vector is not None:
        return guesses
    # the misfit has a minimum every pi / r_max or so; a search that starts in a wrong one stays
    distances = np.unique(series.r)
    fine = np.linspace(0.0, np.pi, min(4 * len(distances), 256) + 1)[1:]
    data = problem.weights.apply(series.values)
    found: list[tuple[float, FloatArray]] = []
    for guess in guesses:
        trials = np.tile(guess, (len(fine), 1))
        trials[:, form.shape.index("wave_vector")] = fine
        misfit = np.array([np.sum(problem.amplitudes(one, data)[1] ** 2) for one in trials])
        padded = np.concatenate([[np.inf], misfit, [np.inf]])
        minima = np.flatnonzero((misfit <= padded[:-2]) & (misfit <= padded[2:]))
        found += [(float(misfit[k]), trials[k]) for k in minima]
    found.sort(key=lambda one: one[0])
    return [guess for _, guess in found[:WAVE_VECTORS]]


def sensible(fit: Fit) -> bool:
    """Whether a fit has not run away, and its window holds what it claims to determine.

    Beyond r of order xi a thermal correlation is a plain exponential, from which eta and xi cannot
    be told apart: windows must begin well inside. No field theory has xi below one site.
    """
    main, r_min = fit.form.shape[0], fit.problem.window.r_min
    if not (np.isfinite(fit.shape).all() and fit.error(main) < max(1.0, abs(fit.value(main)))):
        return False
    for name, value in zip(fit.form.shape, fit.shape, strict=True):
        if name == "eta" and not -1 < value < 20:
            return False
        if name == THERMAL:
            xi = 1 / max(value, 1e-12)
            if not (1 < xi < 100 * fit.problem.series.length and 2 * r_min <= max(xi, 2.0)):
                return False
        if name == "wave_vector" and not 0 <= value <= np.pi:
            return False
    if CORRECTION in fit.form.amplitudes:
        leading, correction = fit.amplitudes
        # else it is the leading term itself, and eta too small by two
        return bool(abs(correction) < abs(leading) * r_min**2)
    return True


def _curvature(fit: Fit) -> float:
    """Return the relative error of a thermal form that a first fit lets expect."""
    if THERMAL not in fit.form.shape:
        return 0.0
    filling, xi = fit.problem.series.filling, 1 / fit.value(THERMAL)
    return abs(fit.value("eta")) * curvature(filling, xi)


def form_error(fits: list[Fit], distances: int) -> float:
    """Return the relative error of form with which the best window has chi^2/dof = 1.

    Zero if truncation alone explains the misfit. Windows with less than a third of the distances
    are not asked: few data agree by chance.
    """
    asked = [one for one in fits if one.count >= distances / 3 and one.dof > 0]
    least = min(map(_own_form_error, asked), default=np.inf)
    return least if np.isfinite(least) else 1.0


def _own_form_error(fit: Fit) -> float:
    """Return that of one window; infinite if none explains its misfit."""
    series = fit.problem.series
    square, bias = (series.values - fit.fitted) ** 2, np.nan_to_num(series.bias) ** 2
    target = fit.dof * len(square) / fit.count

    def excess(log_error: float) -> float:
        return float(np.sum(square / (bias + (np.exp(log_error) * series.scale) ** 2)) - target)

    low, high = np.log(ROUNDING), np.log(1e3)
    if excess(low) <= 0:
        return 0.0
    return float(np.exp(brentq(excess, low, high))) if excess(high) < 0 else np.inf
