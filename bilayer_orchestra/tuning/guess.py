"""Where the search for chemical potentials starts: layers taken apart, interactions in mean field.

Only a start: what is found does not depend on it.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq


def layer_guess(hopping: float, interaction: float, filling: float, beta: float) -> float:
    """Return mu of one isolated chain with ``filling`` electrons per site (both spins).

    An attractive site binds pairs: each electron gains U/2. A repulsive one feels U n / 2. The free
    chain has levels -2 t cos k; a chain without hopping follows the Fermi function.
    """
    shift = interaction / 2 * (1.0 if interaction < 0 else filling)
    levels = -2 * abs(hopping) * np.cos(np.pi * (np.arange(200) + 0.5) / 200)
    temperature = max(1 / beta, 0.02 * max(abs(hopping), 1e-3))
    edge = 2 * abs(hopping) + 50 * temperature

    def excess(mu: float) -> float:
        return float(np.mean(2 / (1 + np.exp((levels - mu) / temperature)))) - filling

    return float(brentq(excess, -edge, edge)) + shift


def energy_scale(hoppings: tuple[float, ...], interactions: tuple[float, ...]) -> float:
    """Return the largest coupling, which sets how far mu can matter."""
    return max(*(abs(t) for t in hoppings), *(abs(u) for u in interactions), 1e-3)


def limits(guess: float, scale: float, beta: float) -> tuple[float, float]:
    """Return chemical potentials beyond which a layer is empty or full."""
    reach = 20 * scale + (0.0 if math.isinf(beta) else 20 / beta)
    return guess - reach, guess + reach
