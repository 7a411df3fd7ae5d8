"""What a scan says of each number: its average over windows and forms, and two errors.

The error of a number that was read off a window which the data chose has two parts: the noise
within the window, and that other noise would have chosen another one. Stating the first alone is
too little, adding the spread of the windows to it counts noise twice when all windows are good
(measured in docs/fits.md). Replicas of the whole procedure, in which windows and forms compete
anew, contain both once; the central 68 % of them are the stated interval (B. Efron, J. Am. Stat.
Assoc. 109, 991 (2014)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilayer_orchestra.fits.forms import THERMAL, curvature, wave_vector_shift
from bilayer_orchestra.fits.options import Options
from bilayer_orchestra.fits.pairs import Pairs
from bilayer_orchestra.fits.scan import Scan, model_weights
from bilayer_orchestra.terms import FloatArray

#: How much of the Trotter correction of statistical data may be left (the next order, dtau^4, for
#: the usual two steps).
REMAINDER = 0.25
#: Windows below this weight are not repeated in the bootstrap: noise cannot lift them that far.
NEGLIGIBLE = 1e-12


@dataclass
class Number:
    """Value with statistical (NaN: none, the engine is deterministic) and systematic error.

    ``per_window`` and ``per_window_error`` tell how it moves with the window.
    """

    value: float
    stderr: float
    systematic: float
    per_window: FloatArray
    per_window_error: FloatArray

    @property
    def total(self) -> float:
        """Both errors in quadrature."""
        return float(np.hypot(np.nan_to_num(self.stderr), self.systematic))

    def add(self, error: float) -> None:
        """Add a systematic error in quadrature."""
        self.systematic = float(np.hypot(self.systematic, error))

    def inverse(self) -> Number:
        """Return xi from 1/xi, errors propagated; NaN if 1/xi is compatible with zero."""
        with np.errstate(all="ignore"):
            value = 1 / self.value if self.value > self.total else np.nan
            per_window = np.where(self.per_window > 0, 1 / self.per_window, np.inf)
            errors = (value**2 * self.stderr, value**2 * self.systematic)
            return Number(value, *errors, per_window, per_window**2 * self.per_window_error)


def averages(what: str, pairs: Pairs, found: Scan, options: Options) -> dict[str, Number]:
    """Return the shape parameters that are results, averaged over models.

    Parameters
    ----------
    what : {"pair", "density", "green"}
        The correlation.
    pairs : Pairs
        The data of one layer.
    found : Scan
        Their fits.
    options : Options
        How replicas are made.
    """
    numbers = {
        name: _average(name, found, _replicas(name, found, options) if pairs.statistical else None)
        for name in found.best.form.shape
        if what != "pair" or name != "wave_vector"  # of a correction: no result
    }
    q = numbers.get("wave_vector")
    if q is not None:
        # at q = pi the data depend on q in second order only; another q beats within r_max
        q.systematic = min(q.systematic, np.pi / found.best.problem.window.r_max)
    if THERMAL in numbers:
        xi = 1 / max(numbers[THERMAL].value, 1e-12)
        for number in (numbers[THERMAL], numbers["eta"]):
            number.add(curvature(pairs.filling, xi) * number.value)
        if q is not None:
            q.add(wave_vector_shift(pairs.filling, xi))
    return numbers


def _average(name: str, found: Scan, replicas: FloatArray | None) -> Number:
    """Average one shape parameter over models.

    With noise the result is the centre of the central 68 % of the replicas, and half its width the
    whole error. Its statistical part is what noise does to the average at fixed weights; the rest
    comes from the choice of windows and forms.
    """
    values, errors = np.array([(fit.value(name), fit.error(name)) for fit in found.fits]).T
    weights = np.where(np.isnan(values), 0.0, found.weights)
    weights /= weights.sum()
    counted = [
        (weight, fit, fit.form.shape.index(name))
        for weight, fit in zip(weights, found.fits, strict=True)
        if weight > 0
    ]
    # sizes of the systematic errors of the data are known, signs are not: the worst are taken
    shift = sum(
        weight * float(np.abs(fit.response[k]) @ np.nan_to_num(fit.problem.series.bias))
        for weight, fit, k in counted
    )
    if replicas is None:
        mean = float(np.nansum(weights * values))
        spread = np.sqrt(np.nansum(weights * (values - mean) ** 2))
        within = np.sqrt(np.nansum(weights * errors**2))
        systematic = float(np.hypot(np.hypot(spread, within), shift))
        return Number(mean, np.nan, systematic, values, errors)
    low, high = np.percentile(replicas, [15.87, 84.13])
    total = float(high - low) / 2
    noise = np.sum([weight * fit.deviations[:, k] for weight, fit, k in counted], axis=0)
    stderr = min(float(np.linalg.norm(noise)), total)
    chosen = np.sqrt(total**2 - stderr**2)
    if found.no_window_fits:
        chosen = np.hypot(chosen, total * np.sqrt(found.best.chi2_per_dof - 1))
    systematic = float(np.hypot(chosen, REMAINDER * shift))
    return Number(float(high + low) / 2, stderr, systematic, values, errors)


def _replicas(name: str, found: Scan, options: Options) -> FloatArray:
    """Return the model average of one shape parameter in every replica, (replicas,).

    Fits follow the data to first order, as their errors do, so that a replica costs no search.
    """
    used = [
        fit
        for fit, weight in zip(found.fits, found.weights, strict=True)
        if name in fit.form.shape and weight > NEGLIGIBLE
    ]
    # g of C* = C + sum_b g_b dC_b, shape (replicas, blocks)
    rng, blocks = np.random.default_rng(0), len(found.best.problem.series.deviations)
    if options.resampling == "gaussian":  # has exactly the covariance of the deviations
        factors = rng.standard_normal((options.replicas, blocks))
    else:  # how often each block is drawn
        drawn = rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=options.replicas)
        factors = (drawn - 1.0) * np.sqrt(blocks / (blocks - 1))
    values, chi2 = [], []
    for fit in used:
        row = fit.form.shape.index(name)
        along = fit.problem.series.deviations @ fit.response[row]
        size = np.linalg.norm(along)
        # cross-validated, as the error of the fit itself
        along = along * (fit.error(name) / size if size > 0 else 1.0)
        values.append(fit.shape[row] + factors @ along)
        chi2.append(np.sum((fit.residual + factors @ fit.noise) ** 2, axis=1))
    weights = model_weights(np.stack(chi2, axis=1), used)
    return np.asarray(np.sum(weights * np.stack(values, axis=1), axis=1))
