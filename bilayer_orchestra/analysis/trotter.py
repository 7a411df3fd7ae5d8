"""Extrapolation of imaginary-time discretization: v(dtau) = v(0) + c dtau^2.

A symmetric decomposition is even in dtau (M. Suzuki, Phys. Lett. A 113, 299 (1985); R. M. Fye,
PRB 33, 6271 (1986)), so the leading error is of second order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bilayer_orchestra.analysis.jackknife import Estimate
from bilayer_orchestra.terms import FloatArray


class Extrapolated(NamedTuple):
    """The limit with its error.

    ``bias`` is the value at the smallest dtau minus the limit (NaN with one dtau); ``chi2`` the
    sum of squared residuals over errors, per element, with ``dof`` degrees of freedom (NaN and 0
    where there is nothing to test).
    """

    estimate: Estimate
    bias: FloatArray
    chi2: FloatArray
    dof: int


def line_weights(dtau: FloatArray, stderr: FloatArray) -> FloatArray:
    """Return w with v(0) = sum_k w_k v_k for the weighted least-squares line in dtau^2.

    Parameters
    ----------
    dtau : array, shape (K,)
        At least two different steps.
    stderr : array, shape (K, ...)
        Errors of the values; elements without any error are fitted with equal weights.
    """
    x = (dtau**2).reshape(-1, *(1,) * (stderr.ndim - 1))
    variance = np.where((stderr > 0).all(axis=0), stderr, 1.0) ** 2
    weight = variance.min(axis=0) / variance  # normalized: squares of tiny errors underflow
    s0, s1, s2 = weight.sum(axis=0), (weight * x).sum(axis=0), (weight * x * x).sum(axis=0)
    return np.asarray(weight * (s2 - s1 * x) / (s0 * s2 - s1**2))


def extrapolate(dtau: list[float], estimates: list[Estimate]) -> Extrapolated:
    """Extrapolate to dtau = 0, element by element, with a weighted line in dtau^2.

    Different steps come from different chains and are independent: the deviations of the limit
    are those of every step times its weight, one after the other.
    """
    steps = np.asarray(dtau, float)
    values = np.stack([estimate.value for estimate in estimates])
    smallest = int(np.argmin(steps))
    nothing = np.full(values.shape[1:], np.nan)
    if len(steps) == 1:
        return Extrapolated(estimates[0], nothing, nothing, 0)
    stderr = np.stack([estimate.stderr for estimate in estimates])
    weights = line_weights(steps, stderr)
    limit = (weights * values).sum(axis=0)
    deviations = np.concatenate(
        [w * estimate.deviations for w, estimate in zip(weights, estimates, strict=True)]
    )
    shares = [np.mean((w * error) ** 2) for w, error in zip(weights, stderr, strict=True)]
    degrees = _combined_degrees(shares, [estimate.degrees for estimate in estimates])
    bias, chi2 = values[smallest] - limit, nothing
    if len(steps) > 2:
        x = (steps**2).reshape(-1, *(1,) * (values.ndim - 1))
        centred = x - np.average(np.broadcast_to(x, values.shape), axis=0, weights=_inverse(stderr))
        inverse = _inverse(stderr)
        mean = np.average(values, axis=0, weights=inverse)
        slope = (inverse * centred * values).sum(axis=0) / (inverse * centred**2).sum(axis=0)
        residual = values - mean - slope * centred
        with np.errstate(divide="ignore", invalid="ignore"):
            chi2 = np.where((stderr > 0).all(axis=0), residual**2 / stderr**2, 0.0).sum(axis=0)
    return Extrapolated(Estimate(limit, deviations, degrees), bias, chi2, len(steps) - 2)


def _combined_degrees(shares: list[float], degrees: list[float]) -> float:
    """Degrees of freedom of a sum of independent variances (Satterthwaite, 1946)."""
    if not sum(shares) > 0:
        return min(degrees)
    return float(sum(shares) ** 2 / sum(s**2 / d for s, d in zip(shares, degrees, strict=True)))


def _inverse(stderr: FloatArray) -> FloatArray:
    """Relative weights 1/stderr^2, equal where an element has no error."""
    variance = np.where((stderr > 0).all(axis=0), stderr, 1.0) ** 2
    return np.asarray(variance.min(axis=0) / variance)
