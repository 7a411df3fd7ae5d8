"""Extrapolation of imaginary-time discretization: v(dtau) = v(0) + a dtau^2 + b dtau^4.

A symmetric decomposition is even in dtau (M. Suzuki, Phys. Lett. A 113, 299 (1985); R. M. Fye,
PRB 33, 6271 (1986)). Two steps fix a line in dtau^2; three or more a parabola, which costs hardly
any statistical error if the steps fall in powers of two (Romberg's scheme: the weights of h, h/2,
h/4 are 1/45, -20/45, 64/45). What may be left is stated, see :class:`Extrapolated`.
"""

from typing import NamedTuple

import numpy as np

from bilayer_orchestra.analysis.estimates import (
    ROUNDING,
    Estimate,
    at_least_common,
    combined_degrees,
)
from bilayer_orchestra.terms import FloatArray


class Extrapolated(NamedTuple):
    """The limit, and how far it can be trusted.

    Parameters
    ----------
    steps : tuple of float
    estimate : Estimate
        The limit with its statistical error.
    remainder : Estimate or None
        What may be left of the discretization, with its sign and noise; None with one step. With
        three or more steps: the line in dtau^2 through the two smallest, minus the limit, that is
        the last correction; what is left was at most 0.3 of it wherever the steps were as small as
        they should be. With two: the correction itself times the squared ratio of the steps. See
        docs/decisions/0009.
    correction : array
        Value at the smallest step minus the limit; NaN with one step.
    chi2 : array
        Sum of squared residuals over errors, per element, with ``dof`` degrees of freedom (NaN
        and 0 where there is nothing to test).
    """

    steps: tuple[float, ...]
    estimate: Estimate
    remainder: Estimate | None
    correction: FloatArray
    chi2: FloatArray
    dof: int

    @property
    def fourth_order(self) -> bool:
        """Whether the dtau^4 term was measured."""
        return len(self.steps) > 2

    @property
    def rounding(self) -> float:
        """Differences of this size mean nothing."""
        return ROUNDING * max(1.0, float(np.abs(self.estimate.value).max(initial=0.0)))

    @property
    def bias(self) -> FloatArray:
        """Size of what may be left, of all elements together; NaN where it is not estimated."""
        if self.remainder is None:
            return np.full(self.estimate.value.shape, np.nan)
        return at_least_common(np.maximum(np.abs(self.remainder.value), self.rounding))


def limit_weights(dtau: FloatArray, stderr: FloatArray) -> FloatArray:
    """Return w with v(0) = sum_k w_k v_k for the weighted least-squares polynomial in dtau^2.

    Parameters
    ----------
    dtau : array, shape (K,)
        At least two different steps.
    stderr : array, shape (K, ...)
        Errors of the values; elements without any error are fitted with equal weights.
    """
    return np.asarray(_coefficients(dtau, stderr)[0])


def extrapolate(dtau: list[float], estimates: list[Estimate]) -> Extrapolated:
    """Extrapolate values at the steps ``dtau`` to dtau = 0, element by element.

    Different steps come from different chains and are independent: the deviations of the limit
    are those of every step times its weight, one after the other.
    """
    steps = np.asarray(dtau, float)
    values = np.stack([estimate.value for estimate in estimates])
    nothing = np.full(values.shape[1:], np.nan)
    if len(steps) == 1:
        return Extrapolated(tuple(dtau), estimates[0], None, nothing, nothing, 0)
    stderr = np.stack([estimate.stderr for estimate in estimates])
    coefficients = _coefficients(steps, stderr)
    limit = _combine(coefficients[0], estimates)
    correction = values[int(np.argmin(steps))] - limit.value
    remainder = _combine(_remainder_weights(steps, coefficients[0]), estimates)
    order, chi2 = len(coefficients) - 1, nothing
    if len(steps) > order + 1:
        x = _powers(steps, order + 1)
        fitted = np.einsum("ka,al...,l...->k...", x, coefficients, values)
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.maximum(stderr, ROUNDING * np.abs(values).max())
            squares = (values - fitted) ** 2 / error**2
            chi2 = np.where((stderr > 0).all(axis=0), squares, 0.0).sum(axis=0)
    dof = len(steps) - order - 1
    return Extrapolated(tuple(dtau), limit, remainder, correction, chi2, dof)


def _powers(dtau: FloatArray, count: int) -> FloatArray:
    """Return 1, x, x^2, ... with x = (dtau / largest)^2, shape (K, count)."""
    return np.vander((dtau / dtau.max()) ** 2, count, increasing=True)


def _coefficients(dtau: FloatArray, stderr: FloatArray) -> FloatArray:
    """Return the map from values to the coefficients of the fit, shape (order + 1, K, ...)."""
    x = _powers(dtau, min(len(dtau), 3))  # steps determine as many powers, two are enough
    if x.shape[0] == x.shape[1]:  # goes through all points, whatever their errors
        fit = np.broadcast_to(np.linalg.inv(x), (*stderr.shape[1:], *x.shape))
    else:
        spread = np.where((stderr > 0).all(axis=0), stderr, 1.0)
        root = np.moveaxis(spread.min(axis=0) / spread, 0, -1)  # tiny errors would underflow
        fit = np.linalg.pinv(root[..., None] * x) * root[..., None, :]
    return np.moveaxis(fit, (-2, -1), (0, 1))


def _remainder_weights(dtau: FloatArray, limit: FloatArray) -> FloatArray:
    """Return the weights of what may be left: see :class:`Extrapolated`."""
    first, second = (int(k) for k in np.argsort(dtau)[:2])
    lower = np.zeros_like(limit)
    lower[first] = 1.0
    if len(dtau) == 2:
        return np.asarray((dtau[first] / dtau[second]) ** 2 * (lower - limit))
    a, b = dtau[first] ** 2, dtau[second] ** 2
    lower[first], lower[second] = b / (b - a), -a / (b - a)
    return np.asarray(lower - limit)


def _combine(weights: FloatArray, estimates: list[Estimate]) -> Estimate:
    """Return the sum of independent estimates with weights of shape (K, ...)."""
    value = sum(w * one.value for w, one in zip(weights, estimates, strict=True))
    parts = [w * one.deviations for w, one in zip(weights, estimates, strict=True)]
    shares = [float(np.sum(part**2)) for part in parts]
    degrees = combined_degrees(shares, [one.degrees for one in estimates])
    return Estimate(np.asarray(value), np.concatenate(parts), degrees)
