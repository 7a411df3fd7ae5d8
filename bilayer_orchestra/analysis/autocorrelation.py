"""Integrated autocorrelation times of several chains, and what they do to block errors.

tau = 1/2 + sum_{t >= 1} rho(t), so that the variance of a mean of n values is 2 tau sigma^2 / n
and independent values have tau = 1/2. The sum is cut by Sokal's automatic window: the smallest W
with W >= 5 tau(W) (A. Sokal, in Functional Integration, 1997), and corrected for the subtracted
mean (U. Wolff, hep-lat/0306017, eq. 49). emcee and arviz offer the same for one parameter vector;
here all elements of a matrix are treated at once, pooled over chains with the common mean, so
that chains that disagree show as a long time instead of hiding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bilayer_orchestra.analysis.common import ROUNDING
from bilayer_orchestra.terms import FloatArray

#: Sokal's c: the window is at least this many autocorrelation times.
WINDOW = 5.0
#: Errors are never reduced by more than this factor on the variance.
MIN_INFLATION = 0.8


@dataclass(frozen=True)
class Autocorrelation:
    """Autocorrelation of one observable, in steps of the series it was computed from.

    Parameters
    ----------
    pooled : float
        tau from the autocorrelation averaged over all elements: precise, typical.
    slowest : float
        tau of the slowest element whose tau exceeds ``pooled`` significantly, or ``pooled``.
        Decides block lengths.
    rho : array, shape (W + 1,)
        The pooled autocorrelation inside the window.
    resolved : bool
        Whether the window closed within half of the shortest chain.
    """

    pooled: float
    slowest: float
    rho: FloatArray
    resolved: bool

    def block_inflation(self, length: int) -> float:
        """Variance of the mean over what blocks of ``length`` steps taken as independent give.

        The pooled function is used as measured, the slowest element as a single exponential. May
        be a little below 1: cutting at 1 would make errors from few bins 10 % too large, since
        the noise of this factor would act in one direction only.
        """
        t = np.arange(1, len(self.rho))
        inside = t < length
        blocked = 1 + 2 * np.sum((self.rho[1:] * (1 - t / length))[inside])
        pooled = 2 * self.pooled / blocked if blocked > 0 else np.inf
        pooled = max(pooled, MIN_INFLATION)
        if self.slowest <= max(self.pooled, 0.5):
            return float(pooled)
        a = (2 * self.slowest - 1) / (2 * self.slowest + 1)
        edge = 2 * a * (1 - a**length) / (length * (1 - a * a))
        return float(max(pooled, 1 / (1 - edge)))


def autocovariance(chains: list[FloatArray], n_lags: int) -> FloatArray:
    """Return the autocovariance, shape (n_lags, M), pooled over chains of shape (n_c, M).

    The mean over all chains is subtracted from each.
    """
    total = sum(len(chain) for chain in chains)
    mean = sum(chain.sum(axis=0) for chain in chains) / total
    size = 1 << int(np.ceil(np.log2(2 * max(len(chain) for chain in chains))))
    n_elements = chains[0].shape[1]
    result = np.zeros((n_lags, n_elements))
    slab = max(1, 2**19 // size)  # elements at once, so that they stay in the cache
    for first in range(0, n_elements, slab):
        part = slice(first, first + slab)
        for chain in chains:
            rows = np.ascontiguousarray((chain[:, part] - mean[part]).T)
            spectrum = np.fft.rfft(rows, n=size)
            power = np.fft.irfft(spectrum.real**2 + spectrum.imag**2, n=size)
            lags = min(n_lags, len(chain))
            result[:lags, part] += power[:, :lags].T
    pairs = sum(np.maximum(len(chain) - np.arange(n_lags), 0) for chain in chains)
    return np.asarray(result / np.maximum(pairs, 1)[:, None])


def autocorrelation(chains: list[FloatArray]) -> Autocorrelation:
    """Return the integrated autocorrelation time of one observable.

    Parameters
    ----------
    chains : list of arrays, shape (n_c, M)
        Equally long steps; M elements of one observable. Constant elements are ignored.
    """
    total = sum(len(chain) for chain in chains)
    n_lags = max(1, max(len(chain) for chain in chains) // 2)
    # the sum over elements is often the slowest mode of a matrix
    with_sum = [np.concatenate([c, c.sum(axis=1, keepdims=True)], axis=1) for c in chains]
    covariance = autocovariance(with_sum, n_lags)
    scale = max(float(np.abs(chain).max()) for chain in chains)
    moving = covariance[0] > (ROUNDING * scale) ** 2
    if n_lags < 2 or not moving.any():
        return Autocorrelation(0.5, 0.5, np.ones(1), resolved=not moving.any())
    rho = covariance[:, moving] / covariance[0, moving]
    elements = rho[:, :-1] if moving[-1] and rho.shape[1] > 1 else rho
    pooled_rho = elements.mean(axis=1)
    (pooled,), (window,), (resolved,) = _windowed(pooled_rho[:, None], total)
    times, windows, _ = _windowed(rho, total)
    noise = np.sqrt((4 * windows + 2) / total)  # of log tau: Madras and Sokal, 1988
    significance = 1 + np.sqrt(2 * np.log(rho.shape[1]))  # the largest of so many, and one more
    slow = times * np.exp(-significance * noise) > pooled
    slowest = float(max(pooled, times[slow].max(initial=0.0)))
    return Autocorrelation(float(pooled), slowest, pooled_rho[: window + 1], bool(resolved))


def _windowed(
    rho: FloatArray, total: int
) -> tuple[FloatArray, NDArray[np.int64], NDArray[np.bool_]]:
    """Return (tau, window, closed) for every column of ``rho``, shape (lags, M)."""
    running = np.cumsum(rho, axis=0) - 0.5
    lags = np.arange(len(rho))[:, None]
    # alternating series too: their first term alone would make tau far too short
    closed = lags >= WINDOW * np.maximum(running, 0.5)
    closed[0] = False
    windows = np.where(closed.any(axis=0), closed.argmax(axis=0), len(rho) - 1)
    times = running[windows, np.arange(rho.shape[1])]
    times = np.maximum(times * (1 + (2 * windows + 1) / total), 0.5 / total)
    return times, np.asarray(windows, np.int64), np.asarray(closed.any(axis=0))
