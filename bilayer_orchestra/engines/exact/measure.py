"""Raw averages in a pure state (or equal mixture) and in a density matrix.

Both functions return the same dictionary; with N sites and spins ordered (up, down):

========================  ==============  ==================================
``density``               (2, N)          <n_{i,s}>
``green``                 (2, N, N)       <c+_{i,s} c_{j,s}>
``pair``                  (N, N)          <c+_{i,up} c_{j,up} c+_{i,dn} c_{j,dn}>
``density_product``       (N, N)          <n_i n_j>, not connected
``spin_spin``             (N, N)          <S^z_i S^z_j>
========================  ==============  ==================================

The pair element is <Delta+_i Delta_j> with Delta_i = c_{i,dn} c_{i,up}: moving the down pair
c+_{i,dn} c_{j,dn} through c_{j,up} costs no sign.
"""

from itertools import combinations_with_replacement

import numpy as np

from bilayer_orchestra.engines.exact.fock import Sector, act_on_down
from bilayer_orchestra.terms import FloatArray


def measure_states(sector: Sector, states: FloatArray) -> dict[str, FloatArray]:
    """Average over orthonormal ``states`` of shape (g, D_up, D_down) with equal weights."""
    up, down = sector.up, sector.down
    n = up.n_sites
    moved = np.zeros((3, n, n))  # of up, of down, of pairs
    for psi in states:
        for i, j in combinations_with_replacement(range(n), 2):
            up_moved = up.transfer(i, j) @ psi
            down_moved = act_on_down(down.transfer(j, i), psi)
            moved[0, i, j] += np.vdot(psi, up_moved)
            moved[1, i, j] += np.vdot(psi, down_moved)
            # <psi| A_up B_dn |psi> with A = (ij) on up, B = (ij) on down = (ji) to the left
            moved[2, i, j] += np.vdot(down_moved, up_moved)
    # averages in real states are symmetric
    moved = (moved + np.swapaxes(np.triu(moved, 1), 1, 2)) / len(states)
    probability = np.mean(states**2, axis=0)
    return _diagonal(sector, probability) | {"green": moved[:2], "pair": moved[2]}


def measure_density_matrix(sector: Sector, rho: FloatArray) -> dict[str, FloatArray]:
    """Average in ``rho``, shape (D, D) with D = D_up * D_down and unit trace."""
    up, down = sector.up, sector.down
    n = up.n_sites
    rho4 = rho.reshape(*sector.shape, *sector.shape)
    rho_up = np.einsum("udvd->uv", rho4)
    rho_down = np.einsum("uduw->dw", rho4)
    green, pair = np.zeros((2, n, n)), np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            a, b = up.transfer(i, j).tocoo(), down.transfer(i, j).tocoo()
            green[0, i, j] = np.sum(a.data * rho_up[a.col, a.row])
            green[1, i, j] = np.sum(b.data * rho_down[b.col, b.row])
            moved = rho4[a.col[:, None], b.col[None, :], a.row[:, None], b.row[None, :]]
            pair[i, j] = a.data @ moved @ b.data
    probability = np.diagonal(rho).reshape(sector.shape)
    return _diagonal(sector, probability) | {"green": green, "pair": pair}


def _diagonal(sector: Sector, probability: FloatArray) -> dict[str, FloatArray]:
    """Averages that need only the probability of each configuration, shape (D_up, D_down)."""
    n_up, n_down = sector.up.occupation, sector.down.occupation
    of_up, of_down = probability.sum(axis=1), probability.sum(axis=0)
    same = n_up.T @ (of_up[:, None] * n_up) + n_down.T @ (of_down[:, None] * n_down)
    cross = n_up.T @ probability @ n_down
    return {
        "density": np.stack([of_up @ n_up, of_down @ n_down]),
        "density_product": same + cross + cross.T,
        "spin_spin": 0.25 * (same - cross - cross.T),
    }
