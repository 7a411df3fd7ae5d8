"""Free fermions: all averages follow from the one-body density matrix."""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh

from bilayer_orchestra.terms import Terms


def wick(terms: Terms, occupations) -> dict:
    """Free fermions: everything follows from the one-body density matrix (Wick's theorem)."""
    greens = []
    for spin in (0, 1):
        levels, orbitals = eigh(terms.one_body - np.diag(terms.chemical_potential))
        greens.append(orbitals @ np.diag(occupations(levels, spin)) @ orbitals.T)
    green = np.stack(greens)
    density = np.diagonal(green, axis1=1, axis2=2)
    identity = np.eye(terms.n_sites)
    exchange = [green[s] * (identity - green[s]).T for s in (0, 1)]
    sz = 0.5 * (density[0] - density[1])
    return {
        "energy": np.sum(terms.one_body * green.sum(axis=0)),
        "density": density,
        "double_occupancy": density[0] * density[1],
        "pair": green[0] * green[1],
        "green": green,
        "density_density": exchange[0] + exchange[1],
        "spin_spin": 0.25 * (exchange[0] + exchange[1]) + np.outer(sz, sz),
    }


def free_entropies(green: np.ndarray) -> np.ndarray:
    """Free fermions: entropy of the first 1, 2, ... N - 1 sites, shape (N - 1,).

    From the eigenvalues of that block of the one-body density matrix (2, N, N), I. Peschel,
    J. Phys. A 36, L205 (2003).
    """
    found = []
    for cut in range(1, green.shape[1]):
        filled = np.clip(np.linalg.eigvalsh(green[:, :cut, :cut]), 1e-15, 1 - 1e-15)
        found.append(-np.sum(filled * np.log(filled) + (1 - filled) * np.log1p(-filled)))
    return np.array(found)
