"""Grand-canonical thermal state: every (n_up, n_down) block diagonalized in full."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import eigh

from bilayer_orchestra.engines.exact.fock import Sector
from bilayer_orchestra.engines.exact.measure import measure_density_matrix
from bilayer_orchestra.terms import FloatArray, GrandCanonical, Terms


def thermal_averages(
    terms: Terms, on_block: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, FloatArray]:
    """Return all raw averages of :mod:`measure` in the state exp(-beta (H - mu N)) / Z.

    H does not distinguish the spins and there is no field, so the blocks (a, b) and (b, a) are
    mirror images: one is diagonalized, and the spin-resolved averages are symmetrized.

    Returns
    -------
    dict
        The averages, and ``log_partition`` = log Z, ``sector_weight`` of shape (N+1, N+1): the
        probability of (n_up, n_down).
    """
    assert isinstance(terms.state, GrandCanonical)
    beta, n = terms.state.beta, terms.n_sites
    blocks = [(a, b) for a in range(n + 1) for b in range(a + 1)]
    log_weights = np.full((n + 1, n + 1), -np.inf)
    measured: dict[tuple[int, int], dict[str, FloatArray]] = {}
    for done, (n_up, n_down) in enumerate(blocks):
        sector = Sector(terms, n_up, n_down)
        values, vectors = _spectrum(sector)
        boltzmann = np.exp(-beta * (values - values.min()))
        partition = boltzmann.sum()
        log_weights[n_up, n_down] = np.log(partition) - beta * values.min()
        log_weights[n_down, n_up] = log_weights[n_up, n_down]
        # States that cannot contribute in double precision are left out of the product.
        kept = boltzmann > 1e-18 * partition
        weighted = vectors[:, kept] * np.sqrt(boltzmann[kept] / partition)
        measured[n_up, n_down] = measure_density_matrix(sector, weighted @ weighted.T)
        on_block(done + 1, len(blocks))
    largest = log_weights.max()
    weights = np.exp(log_weights - largest)
    log_partition = float(np.log(weights.sum()) + largest)
    weights /= weights.sum()
    averages: dict[str, FloatArray] = {}
    for (n_up, n_down), block in measured.items():
        multiplicity = 1 if n_up == n_down else 2
        for name, value in block.items():
            symmetric = 0.5 * (value + value[::-1]) if name in ("density", "green") else value
            term = multiplicity * weights[n_up, n_down] * symmetric
            averages[name] = averages[name] + term if name in averages else term
    return averages | {
        "log_partition": np.array(log_partition),
        "sector_weight": weights,
    }


def _spectrum(sector: Sector) -> tuple[FloatArray, FloatArray]:
    """Return all levels, shape (D,), and states, shape (D, D), of one sector."""
    matrix = sector.matrix()
    levels, states = [], []
    for basis in sector.exchange_bases():
        if basis.shape[1] == 0:
            continue
        block = (basis.T @ matrix @ basis).toarray()
        values, vectors = eigh(block, overwrite_a=True, check_finite=False)
        levels.append(values)
        states.append(basis @ vectors)
    return np.concatenate(levels), np.hstack(states)
