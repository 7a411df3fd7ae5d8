"""Exact diagonalization that shares no code with any engine: Kronecker products, dense matrices.

Modes are ordered up_0 dn_0 up_1 dn_1 ...; signs are those of Jordan and Wigner.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np
from scipy import sparse

from bilayer_orchestra.terms import Canonical, FloatArray, Terms

#: 4096 states; operators of more do not pay.
MAX_SITES = 6
#: 256 states, all of which are needed at T > 0.
MAX_THERMAL_SITES = 4
#: Levels closer than this are one; dense diagonalization rounds to less than 1e-12.
SAME_LEVEL = 1e-9


@dataclass(frozen=True)
class Exact:
    """What exact diagonalization says.

    Parameters
    ----------
    values : dict
        Observable name -> array in site order, as in :class:`bilayer_orchestra.averages.Averages`;
        of a degenerate ground level averaged with equal weights.
    degeneracy : int
        Number of states of the ground level; 1 at T > 0.
    gap : float
        From the ground level to the next one of the sector; infinite if there is none, and at
        T > 0.
    """

    values: dict[str, FloatArray]
    degeneracy: int
    gap: float


def diagonalized(terms: Terms) -> Exact:
    """Return every observable of ``terms``.

    Parameters
    ----------
    terms : Terms
        At most :data:`MAX_SITES` sites, :data:`MAX_THERMAL_SITES` at T > 0.
    """
    number = terms.n_sites
    limit = MAX_SITES if isinstance(terms.state, Canonical) else MAX_THERMAL_SITES
    if number > limit:
        raise ValueError(f"{number} sites are too many for this; {limit} are possible")
    c = _annihilators(number)
    n = [[one.T @ one for one in pair] for pair in c]
    sites = range(number)
    hopping: Any = sum(
        terms.one_body[i, j] * (c[i][s].T @ c[j][s]) for i in sites for j in sites for s in (0, 1)
    )
    interaction: Any = sum(terms.interaction[i] * (n[i][0] @ n[i][1]) for i in sites)
    potential: Any = sum(terms.chemical_potential[i] * (n[i][0] + n[i][1]) for i in sites)
    full = (hopping + interaction - potential).tocsr()
    states, weights, gap = _states(terms, full, n)

    def mean(operator: Any) -> float:
        return float(weights @ np.sum(states * (operator @ states), axis=0))

    def matrix(left: list[Any], right: list[Any]) -> FloatArray:
        return np.array([[mean(a @ b) for b in right] for a in left])

    pairs = [c[i][1] @ c[i][0] for i in sites]
    charge, spin = [up + down for up, down in n], [0.5 * (up - down) for up, down in n]
    density = np.array([[mean(n[i][s]) for i in sites] for s in (0, 1)])
    total = density.sum(axis=0)
    values = {
        "energy": np.array(mean(hopping) + mean(interaction)),
        "kinetic_energy": np.array(mean(hopping)),
        "interaction_energy": np.array(mean(interaction)),
        "density": density,
        "double_occupancy": np.array([mean(up @ down) for up, down in n]),
        "pair": matrix([pair.T for pair in pairs], pairs),
        "green": np.array(
            [matrix([c[i][s].T for i in sites], [c[j][s] for j in sites]) for s in (0, 1)]
        ),
        "density_density": matrix(charge, charge) - np.outer(total, total),
        "spin_spin": matrix(spin, spin),
    }
    if isinstance(terms.state, Canonical) and len(weights) == 1:
        values["entanglement_entropy"] = np.array(
            [_entropy(states[:, 0].reshape(4**cut, -1)) for cut in range(1, number)]
        )
    ground = isinstance(terms.state, Canonical)
    return Exact(values, len(weights) if ground else 1, gap)


def _annihilators(number: int) -> list[list[Any]]:
    """Return c[i][s] of ``number`` sites, s = 0 (up), 1 (down)."""
    lower: Any = sparse.csr_array([[0.0, 1.0], [0.0, 0.0]])
    parity: Any = sparse.diags_array([1.0, -1.0])
    one: Any = sparse.eye_array(2)
    product: Any = partial(sparse.kron, format="csr")
    modes = 2 * number
    flat = [reduce(product, [*[parity] * k, lower, *[one] * (modes - k - 1)]) for k in range(modes)]
    return [flat[2 * i : 2 * i + 2] for i in range(number)]


def _states(terms: Terms, full: Any, n: list[list[Any]]) -> tuple[FloatArray, FloatArray, float]:
    """Return states as columns, their weights, and the gap above the ground level."""
    if not isinstance(terms.state, Canonical):
        levels, states = np.linalg.eigh(full.toarray())
        weights = np.exp(-terms.state.beta * (levels - levels[0]))
        return states, weights / weights.sum(), np.inf
    inside = np.ones(full.shape[0], dtype=bool)
    for s, wanted in enumerate(terms.state):
        inside &= sum(one[s].diagonal() for one in n) == wanted
    places = np.flatnonzero(inside)
    levels, vectors = np.linalg.eigh(full[places][:, places].toarray())
    count = int(np.sum(levels - levels[0] < SAME_LEVEL))
    states = np.zeros((full.shape[0], count))
    states[places] = vectors[:, :count]
    gap = float(levels[count] - levels[0]) if count < len(levels) else np.inf
    return states, np.full(count, 1.0 / count), gap


def _entropy(amplitudes: FloatArray) -> float:
    weights = np.linalg.svd(amplitudes, compute_uv=False) ** 2
    weights = weights[weights > 1e-16]
    return -float(np.sum(weights * np.log(weights)))
