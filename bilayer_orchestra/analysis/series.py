"""Monte Carlo series of several chains: warm-up, autocorrelation, blocks, and whether they agree.

Warm-up by MSER (K. P. White, Simulation 69, 323 (1997)): drop the first d values where d minimizes
sum_{t >= d} (x_t - mean_d)^2 / (n - d)^2, the squared standard error that independent values would
have. It has no parameter, weighs the bias that is removed against the data that are lost, and did
best in comparisons of such rules (Hoad, Robinson, Davies, J. Oper. Res. Soc. 61, 1382 (2010)). The
chains start from independent random fields, so their transient is common and the noise is not:
the rule is applied to the mean over chains.

Autocorrelation times: tau = 1/2 + sum_{t >= 1} rho(t), so that the variance of a mean of n values
is 2 tau sigma^2 / n and independent values have tau = 1/2. The sum is cut by Sokal's automatic
window: the smallest W with W >= 5 tau(W) (A. Sokal, in Functional Integration, 1997), and corrected
for the subtracted mean (U. Wolff, hep-lat/0306017, eq. 49). emcee and arviz offer the same for one
parameter vector; here all elements of a matrix are treated at once, pooled over chains with the
common mean, so that chains that disagree show as a long time instead of hiding.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc  # scipy.stats takes a second to load

from bilayer_orchestra.analysis.estimates import ROUNDING
from bilayer_orchestra.terms import FloatArray

#: Sokal's c: the window is at least this many autocorrelation times.
WINDOW = 5.0
#: Errors are never reduced by more than this factor on the variance.
MIN_INFLATION = 0.8
#: Blocks are lengthened until the correlation left between them changes a variance by less.
RESIDUAL = 0.1
#: Fewer blocks than this make the error itself too uncertain (18 % at 16).
MIN_BLOCKS = 16
#: More are of little use: the error is known to 6 %, and covariances of tens of distances are.
MAX_BLOCKS = 128
#: Probability, after allowing for the number of elements looked at, that counts as impossible.
IMPOSSIBLE = 1e-5


def mser(series: FloatArray) -> int:
    """Return the number of initial values to drop, at most half of them.

    Parameters
    ----------
    series : array, shape (n,)
    """
    n = len(series)
    if n < 4:
        return 0
    backwards = (series - series[n // 2 :].mean())[::-1]
    count = np.arange(1, n + 1)
    sums, squares = np.cumsum(backwards), np.cumsum(backwards**2)
    spread = np.maximum(squares - sums**2 / count, 0.0)[::-1]  # index d: values d ... n-1
    objective = (spread / count[::-1].astype(float) ** 2)[: n // 2 + 1]
    # constant up to rounding: nothing is warm-up
    return int(np.argmin(objective)) if objective.min() > 0 else 0


def warmup_length(chains: list[dict[str, FloatArray]]) -> int:
    """Return the bins to drop from every chain: the largest that any monitored series asks for.

    Parameters
    ----------
    chains : list of dict
        Per chain: name -> series of shape (n_c,). The common length is compared, of chains that
        have at least half as many values as the longest.
    """
    lengths = [min(len(series) for series in chain.values()) for chain in chains]
    long = [k for k, n in enumerate(lengths) if 2 * n >= max(lengths)]
    common = min(lengths[k] for k in long)
    means = [np.mean([chains[k][name][:common] for k in long], axis=0) for name in chains[0]]
    return max(mser(mean) for mean in means)


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
        t = np.arange(1, min(len(self.rho), length))
        blocked = 1 + 2 * np.sum(self.rho[t] * (1 - t / length))
        pooled = max(2 * self.pooled / blocked if blocked > 0 else np.inf, MIN_INFLATION)
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


def block_length(times: list[Autocorrelation], steps: list[int]) -> int:
    """Return the length of jackknife blocks in steps, the same for all observables.

    The shortest for which no observable needs more than :data:`RESIDUAL` of correction, at most
    :data:`MAX_BLOCKS` blocks, and at least :data:`MIN_BLOCKS` as long as there are as many steps.

    Parameters
    ----------
    times : list of Autocorrelation
        One per observable.
    steps : list of int
        Length of every chain.
    """

    def count(length: int) -> int:  # the division drops the remainder of every chain
        return sum(k // length for k in steps)

    # long enough for few blocks
    allowed = [n for n in range(1, max(steps) + 1) if count(n) <= MAX_BLOCKS] or [max(steps)]
    best = allowed[0]
    for length in allowed:
        if best < length < 1.1 * best:  # every length up to 10, then steps of about 10 %
            continue
        if count(length) < MIN_BLOCKS and length > best:
            break
        best = length
        if max((t.block_inflation(length) for t in times), default=1.0) <= 1 + RESIDUAL:
            break
    return best


def merge(chains: list[FloatArray], length: int) -> FloatArray:
    """Join ``length`` consecutive steps into one block average; chains are not mixed.

    Parameters
    ----------
    chains : list of arrays, shape (n_c, ...)
        Steps of every chain.
    length : int
        Steps of a block.

    Returns
    -------
    array, shape (n, ...)
        Blocks of all chains; what does not fill a block is dropped at a chain's beginning.
    """
    blocks = [
        chain[len(chain) % length :].reshape(len(chain) // length, length, *chain.shape[1:])
        for chain in chains
    ]
    return np.concatenate([of_chain.mean(axis=1) for of_chain in blocks])


def chains_disagree(blocks: FloatArray, per_chain: list[int]) -> bool:
    """Whether the means of chains differ by more than the blocks inside them allow.

    The F test of a one-way analysis of variance, the statistic behind Gelman and Rubin's R-hat
    (Statist. Sci. 7, 457 (1992)) with its finite-sample distribution. Needs two chains with
    blocks to compare inside.

    Parameters
    ----------
    blocks : array, shape (n, M)
        Block averages, chain after chain.
    per_chain : list of int
        Blocks of every chain.
    """
    groups = [g for g in np.split(blocks, np.cumsum(per_chain)[:-1]) if len(g)]
    n, n_groups = len(blocks), len(groups)
    if n_groups < 2 or n - n_groups < 2:
        return False
    mean = blocks.mean(axis=0)
    between = sum(len(g) * (g.mean(axis=0) - mean) ** 2 for g in groups) / (n_groups - 1)
    within = sum(((g - g.mean(axis=0)) ** 2).sum(axis=0) for g in groups) / (n - n_groups)
    return _impossible(
        np.asarray(between), np.asarray(within), blocks, (n_groups - 1, n - n_groups)
    )


def drifts(blocks: FloatArray, per_chain: list[int], inflation: float = 1.0) -> bool:
    """Whether the first halves of all chains differ from the second halves.

    J. Geweke's comparison (1992), as a two-sample F test of block averages.

    Parameters
    ----------
    blocks : array, shape (n, M)
        Block averages, chain after chain.
    per_chain : list of int
        Blocks of every chain.
    inflation : float
        Factor on variances for the correlation left between blocks.
    """
    groups = [g for g in np.split(blocks, np.cumsum(per_chain)[:-1]) if len(g) >= 2]
    n = sum(2 * (len(g) // 2) for g in groups)
    if n < 6:
        return False
    early = np.concatenate([g[: len(g) // 2] for g in groups])
    late = np.concatenate([g[-(len(g) // 2) :] for g in groups])
    difference = (early.mean(axis=0) - late.mean(axis=0)) ** 2
    pooled = (early.var(axis=0) * len(early) + late.var(axis=0) * len(late)) / (n - 2)
    variance = pooled * inflation * (1 / len(early) + 1 / len(late))
    return _impossible(difference, variance, blocks, (1, n - 2))


def _impossible(
    signal: FloatArray, noise: FloatArray, blocks: FloatArray, degrees: tuple[int, int]
) -> bool:
    """Whether noise does not explain the signal of an element of ``blocks``; rounding is none.

    An F test of variances, shape (M,), with these degrees of freedom.
    """
    rounding = (ROUNDING * np.abs(blocks).max(axis=0, initial=0.0)) ** 2
    ratio = (signal / np.maximum(noise, rounding + 1e-300)).max(initial=0.0)
    return bool(fdtrc(*degrees, ratio) * blocks.shape[1] < IMPOSSIBLE)
