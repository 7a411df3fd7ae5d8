"""Estimates with errors: the blocked jackknife, and what errors of all kinds have in common.

The jackknife gives errors of any function of averages, with all covariances: B. Efron, The
Jackknife (1982). Blocks must be long against the autocorrelation time; what is left of the
correlation is corrected by a factor (see :mod:`.series`). Deviations are kept:

    Cov[X, Y] = sum_b dX_b dY_b

for any two elements X, Y of any observables, so that a later fit has the covariance between
distances without a matrix of N^4 numbers being stored. With n blocks it has rank n - 1.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bilayer_orchestra.terms import FloatArray

Arrays = dict[str, FloatArray]

#: No element's error is below this share of the root mean square over its observable: an estimate
#: from a change vanishes where the change crosses zero, the error does not. docs/decisions/0005.
COMMON_SHARE = 0.5
#: Rounding of sampled averages, in units of the largest value or of one (free fermions, which have
#: no other error, against closed forms: up to 1.3e-12). Nothing this small is a fluctuation.
ROUNDING = 1e-11


def at_least_common(sizes: FloatArray, share: float = COMMON_SHARE) -> FloatArray:
    """Return ``sizes``, raised to a share of their root mean square; NaN stays NaN."""
    return np.asarray(np.maximum(sizes, share * np.sqrt(np.mean(sizes**2))))


class Estimate(NamedTuple):
    """A value and its deviations, shape (n, ...); the standard error is their norm.

    ``degrees`` are the degrees of freedom of the covariance: n - 1 for n equal blocks.
    """

    value: FloatArray
    deviations: FloatArray
    degrees: float

    @property
    def stderr(self) -> FloatArray:
        """Standard error, the shape of ``value``."""
        return np.asarray(np.sqrt(np.sum(self.deviations**2, axis=0)))


def student_factor(n_blocks: float) -> float:
    """Widening that makes +-1 standard error cover 68.27 % with few blocks (Student's t)."""
    from scipy.special import ndtr, stdtrit  # scipy.stats takes a second to load

    return float(stdtrit(n_blocks - 1, float(ndtr(1.0))))


def jackknife(
    blocks: Arrays, function: Callable[[Arrays], Arrays], inflation: dict[str, float] | None = None
) -> dict[str, Estimate]:
    """Evaluate ``function`` of the averages, with errors.

    Parameters
    ----------
    blocks : dict
        Name -> block averages of shape (n, ...), n >= 2, equally long blocks.
    function : callable
        Takes averages with one leading axis (name -> (k, ...)) and returns observables with the
        same leading axis; need not be linear.
    inflation : dict, optional
        Result name -> factor on the variance, for correlation left between blocks.

    Returns
    -------
    dict
        Name -> estimate. The value is corrected for the bias of order 1/n that a nonlinear
        function of a noisy average has.
    """
    n = len(next(iter(blocks.values())))
    if n < 2:
        raise ValueError("a jackknife needs at least two blocks")
    full = {name: array.mean(axis=0, keepdims=True) for name, array in blocks.items()}
    left_out = {name: full[name] + (full[name] - array) / (n - 1) for name, array in blocks.items()}
    centre, partial = function(full), function(left_out)
    widening = student_factor(n)
    estimates = {}
    for name, values in partial.items():
        mean = values.mean(axis=0)
        factor = np.sqrt((n - 1) / n * (inflation or {}).get(name, 1.0)) * widening
        # a linear function gets its plain mean, without the rounding of the correction
        bias = (n - 1) * (mean - centre[name][0])
        estimates[name] = Estimate(centre[name][0] - bias, factor * (values - mean), n - 1.0)
    return estimates


def combined_degrees(variances: list[float], degrees: list[float]) -> float:
    """Return the degrees of freedom of a sum of independent variances.

    F. E. Satterthwaite, Biometrics Bull. 2, 110 (1946); B. L. Welch, Biometrika 34, 28 (1947).
    """
    if not sum(variances) > 0:
        return min(degrees)
    spread = sum(v**2 / d for v, d in zip(variances, degrees, strict=True))
    return float(sum(variances) ** 2 / spread) if spread > 0 else np.inf
