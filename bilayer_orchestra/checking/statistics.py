"""Are two measured vectors equal within their errors? Two tests with known false-alarm rates.

``largest``
    the largest pull |d_e| / s_e over all elements e: notices one wrong element. Its distribution
    under agreement depends on how elements are correlated; it is simulated from the blocks'
    deviations themselves, error bars included (they are estimated from the same few blocks, which
    makes the tails those of Student's t and not of a Gaussian).
``collective``
    Hotelling's T^2 in the leading modes of the correlation matrix: notices many small deviations
    that move together. The covariance of p elements from n blocks has at most n - 1 modes; only the
    largest n / 4 are used (SVD cut), since smaller ones are badly estimated. Systematic errors are
    allowed for by the shift within them that makes T^2 smallest: taking them off element by element
    would push the difference into modes whose statistical error is far below them.

Both p-values are multiplied by two (Bonferroni) and the smaller counts.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import lsq_linear
from scipy.special import chdtrc, fdtrc, stdtr, stdtrit

from bilayer_orchestra.analysis.estimates import combined_degrees
from bilayer_orchestra.checking.elements import Elements
from bilayer_orchestra.terms import FloatArray

#: Simulated differences under agreement, at most; ENOUGH larger ones end the simulation early, and
#: p-values below ENOUGH / DRAWS come from the Bonferroni bound.
DRAWS, ENOUGH = 2000, 20
#: Modes per degree of freedom that the collective test uses.
MODES = 0.25
#: Differences below this part of the values of a class, and below this part of the natural scale of
#: the observable, are rounding; a statistical error far below the second is rounding itself.
ROUNDING, RESOLUTION = 1e-6, 1e-8
#: Values below this part of the natural scale are told from zero by nobody: they count as this.
ZERO = 1e-6


class Test(NamedTuple):
    """Outcome for some elements of one observable.

    ``p_value`` is not corrected for the number of tests. ``detectable`` is the smallest deviation
    of all elements together, relative to their root mean square, that would have been noticed with
    90 % probability at the given level. ``pulls`` are (difference beyond the systematic allowance)
    / error. ``width`` is the spread of the difference in the modes over what the errors say: 1 if
    the stated errors are right, with ``width_p`` the probability of one this small (near 0: errors
    too large) or smaller (near 1: too small, or a difference).
    """

    p_value: float
    chi2: float
    modes: int
    pulls: FloatArray
    difference: FloatArray
    stderr: FloatArray
    allowance: FloatArray
    detectable: float
    width: float = np.nan
    width_p: float = np.nan

    @property
    def worst(self) -> int:
        """Place of the element with the largest pull."""
        return int(np.argmax(np.abs(self.pulls)))

    @property
    def largest_pull(self) -> float:
        """Pull of the worst element, with its sign."""
        return float(self.pulls[self.worst])

    @property
    def stochastic(self) -> bool:
        """Whether the p-value is a probability, and not just yes or no."""
        return self.modes > 0


def compare(
    a: Elements,
    b: Elements,
    allowance: FloatArray,
    level: float,
    scale: float = 1.0,
    size: float | None = None,
) -> Test:
    """Test whether ``a`` and ``b`` are equal up to ``allowance``.

    Parameters
    ----------
    a, b : Elements
        With the same labels.
    allowance : array, shape (p,)
        Sum of the systematic errors; differences are reduced by it before they are tested.
    level : float
        Significance at which ``detectable`` is evaluated.
    scale : float
        Natural size of the observable, for values that vanish.
    size : float, optional
        What ``detectable`` is a part of, where it is not the values themselves.

    Raises
    ------
    ValueError
        If the labels differ.
    """
    if a.labels != b.labels:
        raise ValueError("the two results do not have the same elements")
    raw, stderr = a.values - b.values, np.hypot(a.stderr, b.stderr)
    own = max(_rms(a.values), _rms(b.values))
    allowed = allowance + max(ROUNDING * own, RESOLUTION * scale)
    beyond = np.sign(raw) * np.maximum(np.abs(raw) - allowed, 0.0)
    noisy = np.flatnonzero(stderr > 1e-3 * RESOLUTION * scale)
    pulls = np.where(beyond == 0, 0.0, np.copysign(np.inf, beyond))
    pulls[noisy] = beyond[noisy] / stderr[noisy]
    test = Test(1.0, 0.0, 0, pulls, raw, stderr, allowance, 0.0)
    if not np.isfinite(pulls).all():
        return test._replace(p_value=0.0, chi2=np.inf)
    reach = allowed.copy()
    if len(noisy):
        shares = [float(np.sum(one.deviations**2)) for one in (a, b)]
        # a million is as good as infinite, and every function of it is finite
        degrees = float(np.clip(combined_degrees(shares, [a.degrees, b.degrees]), 1.0, 1e6))
        # the pull that is noticed nine times out of ten
        reach[noisy] += (stdtrit(degrees, 1.0 - level / (4 * len(noisy))) + 1.28) * stderr[noisy]
        sides = a.of(noisy), b.of(noisy)
        t_squared, modes, p_collective = _collective(*sides, allowed[noisy])
        p_value = min(1.0, 2.0 * min(_largest(pulls[noisy], sides, degrees), p_collective))
        test = test._replace(p_value=p_value, chi2=t_squared / modes, modes=modes)
    return test._replace(detectable=_rms(reach) / (size or max(own, ZERO * scale)))


def _rms(values: FloatArray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def spread(a: Elements, b: Elements, scale: float) -> tuple[float, float]:
    """Return the spread of the raw difference over the stated errors, and the chance of less.

    Raw: what systematic errors allow is no statistics.

    Parameters
    ----------
    a, b : Elements
        With the same labels.
    scale : float
        Natural size of the observable. Statistical errors that are rounding on this scale are none:
        NaN without others.
    """
    noisy = np.flatnonzero(np.hypot(a.stderr, b.stderr) > RESOLUTION * scale)
    if not len(noisy):
        return np.nan, np.nan
    t_squared, modes, p_value = _collective(a.of(noisy), b.of(noisy))
    degrees, expected = min(a.degrees, b.degrees), float(modes)
    if np.isfinite(degrees):
        expected *= degrees / max(degrees - modes - 1, 1.0)
    return float(np.sqrt(t_squared / expected)), 1.0 - p_value


def _largest(pulls: FloatArray, sides: tuple[Elements, Elements], degrees: float) -> float:
    """P-value of the largest pull, by simulating block means and their estimated errors.

    Sequentially: the simulation ends once ENOUGH draws were larger, with p = ENOUGH / draws, which
    is as valid as a p-value from all draws (J. Besag and P. Clifford, Biometrika 78, 301 (1991)).

    Parameters
    ----------
    pulls : array, shape (p,)
        Of the elements of both ``sides``.
    sides : tuple of Elements
        Both results.
    degrees : float
        Degrees of freedom of the combined variance.
    """
    rng = np.random.default_rng(0)  # the same verdict every time
    observed = float(np.abs(pulls).max())
    bound = min(1.0, 2.0 * float(stdtr(degrees, -observed)) * len(pulls))
    if bound <= 1 / (DRAWS + 1):  # no simulation could say less
        return bound
    above = 0
    for drawn in range(1, DRAWS + 1):
        mean, variance = np.zeros(len(pulls)), np.zeros(len(pulls))
        for one in sides:
            if not np.isfinite(one.degrees):  # errors are known, not estimated
                mean += rng.standard_normal(len(one.deviations)) @ one.deviations
                variance += np.sum(one.deviations**2, axis=0)
                continue
            n = max(2, round(one.degrees) + 1)
            # n blocks of a Gaussian with this covariance: their mean, and its estimated variance
            blocks = rng.standard_normal((n, len(one.deviations))) @ one.deviations
            mean += blocks.sum(axis=0) / np.sqrt(n)
            variance += np.var(blocks, axis=0, ddof=1)
        above += float(np.max(np.abs(mean) / np.sqrt(variance))) >= observed
        if above == ENOUGH:
            return above / drawn
    return min(bound, (above + 1) / (DRAWS + 1))


def _collective(
    a: Elements, b: Elements, allowance: FloatArray | None = None
) -> tuple[float, int, float]:
    """Return (T^2, modes, p-value) of Hotelling's test in the leading modes.

    With an ``allowance``, shape (p,), T^2 is the smallest that a shift of every element by at most
    its allowance can make.
    """
    deviations, degrees = np.concatenate([a.deviations, b.deviations]), min(a.degrees, b.degrees)
    stderr = np.hypot(a.stderr, b.stderr)
    _, singular, modes = np.linalg.svd(deviations / stderr, full_matrices=False)
    rank = int((singular > 1e-3 * singular[0]).sum())
    count = max(1, min(int(MODES * min(degrees, 1e9)), rank))
    to_modes = modes[:count] / singular[:count, None] / stderr
    projected = to_modes @ (a.values - b.values)
    if allowance is not None and (shifting := allowance > 1e-3 * stderr).any():
        shifts = to_modes[:, shifting] * allowance[shifting]
        projected = lsq_linear(shifts, projected, bounds=(-1.0, 1.0)).fun
    t_squared = float(np.sum(projected**2))
    if not np.isfinite(degrees):
        return t_squared, count, float(chdtrc(count, t_squared))
    second = degrees - count + 1
    return t_squared, count, float(fdtrc(count, second, t_squared * second / (count * degrees)))
