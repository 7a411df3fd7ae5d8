"""Exact averages of the discretized weight on two rungs.

ALF samples exp(-dtau T/2) exp(-dtau V) exp(-dtau T/2) with T the one-body part, U/2 n included, and
V = -|U|/2 (n_up - n_dn)^2. For four sites these are matrices of 256 x 256.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from bilayer_orchestra.terms import Terms
from tests.support.brute_force import FockSpace

SPACE = FockSpace(4)
C = [[c.toarray() for c in pair] for pair in SPACE.c]
N = [[n.toarray() for n in pair] for pair in SPACE.n]
SITES = range(4)


@lru_cache
def operators() -> np.ndarray:
    """Pair, green, <n n> and spin matrices, upper triangles."""
    total = [up + down for up, down in N]
    spin = [(up - down) / 2 for up, down in N]
    pair = [C[i][1] @ C[i][0] for i in SITES]
    found = []
    for i in SITES:
        for j in range(i, 4):
            found += [pair[i].T @ pair[j], C[i][0].T @ C[j][0], total[i] @ total[j]]
            found.append(spin[i] @ spin[j])
    return np.array([(one + one.T) / 2 for one in found])


@lru_cache
def hops() -> dict[tuple[int, int], np.ndarray]:
    """c+_i c_j, summed over spins."""
    return {(i, j): sum(C[i][s].T @ C[j][s] for s in (0, 1)) for i in SITES for j in SITES}


@lru_cache
def sectors() -> list[np.ndarray]:
    """Basis states of every (n_up, n_down), which nothing here connects."""
    numbers = np.array([sum(N[i][s].diagonal() for i in SITES) for s in (0, 1)]).round()
    return [np.flatnonzero((key == numbers.T).all(axis=1)) for key in np.unique(numbers.T, axis=0)]


def exponential(matrix: np.ndarray, factor: float) -> np.ndarray:
    energies, states = np.linalg.eigh(matrix)
    return (states * np.exp(factor * energies)) @ states.T


def averages(terms: Terms, dtau: float) -> np.ndarray:
    """Averages of all operators; dtau = 0 is the exact thermal state."""
    one_body = sum(
        (terms.one_body[i, j] - (i == j) * (terms.chemical_potential[i] - terms.interaction[i] / 2))
        * hop
        for (i, j), hop in hops().items()
    )
    vertex = sum(
        terms.interaction[i] * (N[i][0] @ N[i][1] - (N[i][0] + N[i][1]) / 2) for i in SITES
    )
    beta = terms.state.beta
    parts = []  # logarithms of the weights, states
    for sector in sectors():
        block = np.ix_(sector, sector)
        if dtau == 0:
            energies, states = np.linalg.eigh((one_body + vertex)[block])
            parts.append((-beta * energies, states))
        else:
            half = exponential(one_body[block], -dtau / 2)
            levels, states = np.linalg.eigh(half @ exponential(vertex[block], -dtau) @ half)
            levels = np.maximum(levels, 1e-300)  # rounding, where a step is far too large
            parts.append((round(beta / dtau) * np.log(levels), states))
    largest = max(logs.max() for logs, _ in parts)
    total, summed = 0.0, np.zeros(len(operators()))
    for sector, (logs, states) in zip(sectors(), parts, strict=True):
        weights = np.exp(logs - largest)
        total += weights.sum()
        density_matrix = (states * weights) @ states.T
        summed += np.einsum(
            "aij,ij->a", operators()[(slice(None), *np.ix_(sector, sector))], density_matrix
        )
    return summed / total
