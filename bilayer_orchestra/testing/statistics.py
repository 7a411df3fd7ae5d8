"""What tests of numbers with correlated noise need."""

from __future__ import annotations

import numpy as np

from bilayer_orchestra.analysis.estimates import student_factor
from bilayer_orchestra.terms import FloatArray

#: A combination with a smaller error than this, relative to the largest, is constant.
CONSTANT = 1e-6


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
        See :class:`bilayer_orchestra.analysis.estimates.Estimate`.
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
