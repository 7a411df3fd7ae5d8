"""What the curvature of the band does to correlations at finite temperature.

The thermal forms hold for a linear spectrum. A lattice band, -2 t cos k, has

    e(k_F + q) = v (q + cot(k_F) q^2 / 2 - q^3 / 6 + ...)

and a temperature samples q of order pi T / v = pi / xi. The cubic term changes what is read off a
correlation by (pi/xi)^2 / 6 relative to it, the quadratic one, which cancels in first order between
both Fermi points, by (cot(k_F) / 2)^2 (pi/xi)^2. No window of the same data can show this: the
correlation at one temperature looks like the form with another exponent. For hard-core bosons
(beta t = 4 to 12, filling 1/10 to 1/2) the true shift of eta is below this estimate.

The quadratic term also turns the oscillation: the pole of the Fermi function that carries the
correlation lies at k_F + i kappa + cot(k_F) kappa^2 / 2 with kappa = pi / xi.
"""

from __future__ import annotations

import numpy as np

#: Above this relative size a temperature is not low.
NOT_LOW = 0.1


def curvature(filling: float, xi: float) -> float:
    """Return the relative size of the first correction to a thermal form.

    Parameters
    ----------
    filling : float
        Particles of one kind per site, k_F = pi filling; NaN: unknown, taken as 1/2.
    xi : float
        Thermal length v beta in sites.
    """
    return float((1 / 6 + _cotangent(filling) ** 2 / 4) * (np.pi / xi) ** 2)


def wave_vector_shift(filling: float, xi: float) -> float:
    """Return how far the temperature moves 2 k_F of a density correlation, 1 / site.

    Parameters are those of :func:`curvature`.
    """
    return float(abs(_cotangent(filling)) * (np.pi / xi) ** 2)


def _cotangent(filling: float) -> float:
    if not np.isfinite(filling):
        return 0.0
    return float(1 / np.tan(np.pi * np.clip(filling, 1e-3, 1 - 1e-3)))
