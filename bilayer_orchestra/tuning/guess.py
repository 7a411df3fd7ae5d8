"""Where the search for chemical potentials starts: layers taken apart, interactions in mean field.

Only a start: what is found does not depend on it.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq

from bilayer_orchestra.terms import FloatArray, Terms

#: Smallest energy, in the unit of the model file, that a search takes for a coupling.
SMALLEST = 1e-3
#: Temperature that rounds the levels of a cold chain off, over its hopping.
SMEARING = 0.02


def layer_guesses(terms: Terms, densities: dict[str, float]) -> FloatArray:
    """Return mu of each layer, as if isolated, for these electrons per site (both spins)."""
    guesses = []
    for layer, density in densities.items():
        sites = [k for k, site in enumerate(terms.sites) if site.layer == layer]
        hopping = float(np.abs(terms.hopping[np.ix_(sites, sites)]).max())
        interaction = float(terms.interaction[sites[0]])
        beta = getattr(terms.state, "beta", math.inf)
        guesses.append(_layer_guess(hopping, interaction, density, beta))
    return np.array(guesses)


def _layer_guess(hopping: float, interaction: float, density: float, beta: float) -> float:
    """Return mu of one isolated chain.

    An attractive site binds pairs: each electron gains U/2. A repulsive one feels U n / 2. The free
    chain has levels -2 t cos k; a chain without hopping follows the Fermi function.
    """
    shift = interaction / 2 * (1.0 if interaction < 0 else density)
    levels = -2 * hopping * np.cos(np.pi * (np.arange(200) + 0.5) / 200)
    temperature = max(1 / beta, SMEARING * max(hopping, SMALLEST))
    edge = 2 * hopping + 50 * temperature

    def excess(mu: float) -> float:
        return float(np.mean(2 / (1 + np.exp((levels - mu) / temperature)))) - density

    return float(brentq(excess, -edge, edge)) + shift


def largest_coupling(terms: Terms) -> float:
    """Return the largest hopping or interaction, which sets how far mu can matter."""
    return max(float(max(np.abs(terms.hopping).max(), np.abs(terms.interaction).max())), SMALLEST)
