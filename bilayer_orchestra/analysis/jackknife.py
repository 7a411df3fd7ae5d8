"""The blocked jackknife: errors of any function of averages, with all covariances.

B. Efron, The Jackknife (1982). Blocks must be long against the autocorrelation time; what is left
of the correlation is corrected by a factor (see :mod:`.autocorrelation`). Deviations are kept:

    Cov[X, Y] = sum_b dX_b dY_b

for any two elements X, Y of any observables, so that a later fit has the covariance between
distances without a matrix of N^4 numbers being stored. With n blocks it has rank n - 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bilayer_orchestra.terms import FloatArray

Arrays = dict[str, FloatArray]


#: A combination with a smaller error than this, relative to the largest, is constant.
CONSTANT = 1e-6


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


def chi_squared(difference: FloatArray, deviations: FloatArray, degrees: float) -> float:
    """Return chi^2 per degree of freedom of correlated numbers, with the whole covariance.

    Hotelling's T^2, scaled so that its mean is 1 when the differences are pure noise, although
    the covariance itself is estimated. (Elements of a correlation matrix share few modes: the sum
    of their squared deviations over errors scatters far more than its number suggests.)
    Combinations that do not fluctuate at all, such as a fixed particle number, do not count.

    Parameters
    ----------
    difference : array, shape (p,)
        Value minus expectation.
    deviations : array, shape (n, p)
        See :class:`Estimate`.
    degrees : float
        Degrees of freedom of the covariance; must exceed the fluctuating combinations by 2.

    Raises
    ------
    ValueError
        If there are too few blocks for this many numbers.
    """
    scale = np.sqrt(np.sum(deviations**2, axis=0))
    moving = scale > 0
    _, singular, modes = np.linalg.svd(deviations[:, moving] / scale[moving], full_matrices=False)
    fluctuating = singular > CONSTANT * singular.max(initial=0.0)
    p = int(fluctuating.sum())
    if degrees <= p + 1:
        raise ValueError(f"{degrees:.0f} degrees of freedom are too few for {p} numbers")
    components = (modes @ (difference[moving] / scale[moving]))[fluctuating] / singular[fluctuating]
    t_squared = float(components @ components) * student_factor(degrees + 1) ** 2
    return t_squared * (degrees - p - 1) / (degrees * p)
