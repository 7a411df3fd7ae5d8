"""Many-body quantum mechanics in the full Fock space: an oracle that shares no code with anything.

Fermion operators are Kronecker products (Jordan-Wigner), modes ordered up_0 dn_0 up_1 dn_1 ...;
the state is found by dense diagonalization: of all 4^N states up to N = 5 sites, of one sector up
to N = 8.
"""

from __future__ import annotations

from functools import partial, reduce

import numpy as np
from scipy import sparse

from bilayer_orchestra.terms import Canonical, Terms


class FockSpace:
    """Annihilation operators c[i][s] for N sites, s = 0 (up), 1 (down)."""

    def __init__(self, n_sites: int) -> None:
        lower = sparse.csr_array([[0.0, 1.0], [0.0, 0.0]])
        parity, one = sparse.diags_array([1.0, -1.0]), sparse.eye_array(2)
        modes = 2 * n_sites
        # without a format, scipy stores the zeros of these small blocks as well
        product = partial(sparse.kron, format="csr")
        flat = [
            reduce(product, [parity] * k + [lower] + [one] * (modes - k - 1)) for k in range(modes)
        ]
        self.c = [[flat[2 * i], flat[2 * i + 1]] for i in range(n_sites)]
        self.n = [[a.T @ a for a in pair] for pair in self.c]


def _operators(terms: Terms) -> tuple[FockSpace, sparse.csr_array, sparse.csr_array]:
    """Return the space, the energy operator, and the one with -mu N."""
    space, n_sites = FockSpace(terms.n_sites), terms.n_sites
    c, n = space.c, space.n
    energy = sum(
        terms.one_body[i, j] * (c[i][s].T @ c[j][s])
        for i in range(n_sites)
        for j in range(n_sites)
        for s in (0, 1)
    ) + sum(terms.interaction[i] * (n[i][0] @ n[i][1]) for i in range(n_sites))
    full = energy - sum(terms.chemical_potential[i] * (n[i][0] + n[i][1]) for i in range(n_sites))
    return space, energy, full


def _ground_state(terms: Terms, space: FockSpace, full: sparse.csr_array) -> np.ndarray:
    """Return the ground state of the sector as a vector of the whole space."""
    counts = [sum(n[s] for n in space.n).diagonal() for s in (0, 1)]
    assert isinstance(terms.state, Canonical)
    sector = np.flatnonzero((counts[0] == terms.state.n_up) & (counts[1] == terms.state.n_down))
    values, vectors = np.linalg.eigh(full.tocsr()[sector][:, sector].toarray())
    assert len(values) == 1 or values[1] - values[0] > 1e-8, "degenerate: no oracle"
    state = np.zeros(full.shape[0])
    state[sector] = vectors[:, 0]
    return state


def reflected_states(terms: Terms) -> list[tuple[float, np.ndarray]]:
    """Return (energy with -mu N, pair matrix) of the lowest even and odd state, the lower first.

    Even and odd under x -> L - 1 - x: states that nearly have the same energy, the odd and the even
    superposition of two charge patterns, are told apart by symmetry, however small their distance.
    """
    space, _, full = _operators(terms)
    assert isinstance(terms.state, Canonical)
    counts = [sum(n[s] for n in space.n).diagonal() for s in (0, 1)]
    sector = np.flatnonzero((counts[0] == terms.state.n_up) & (counts[1] == terms.state.n_down))
    one = sparse.eye_array(full.shape[0], format="csr")
    reflection = one
    for i, site in enumerate(terms.sites):
        j = terms.sites.index(site._replace(x=terms.length - 1 - site.x))
        for s in (0, 1) if i < j else ():  # the exchange of two modes
            difference = space.c[i][s] - space.c[j][s]
            reflection = reflection @ (one - difference.T @ difference)
    found = []
    for parity in (1, -1):
        lifted = full + 50.0 * (one - parity * reflection)  # the others, out of the way
        value, vector = sparse.linalg.eigsh(lifted.tocsr()[sector][:, sector], 1, which="SA")
        state = np.zeros(full.shape[0])
        state[sector] = vector[:, 0]
        removed = [c[1] @ c[0] @ state for c in space.c]
        found.append((float(value[0]), np.array([[a @ b for b in removed] for a in removed])))
    return sorted(found, key=lambda one: one[0])


def entropies(terms: Terms, order: list[int]) -> np.ndarray:
    """Return -Tr rho ln rho of the first 1, 2, ... N - 1 sites in this order, shape (N - 1,).

    The sites are renamed first, so that every cut separates modes that follow each other: the
    reduced states of fermions are then those of the Kronecker factors.
    """
    renamed = terms.permuted(order)
    space, _, full = _operators(renamed)
    state = _ground_state(renamed, space, full)
    found = []
    for cut in range(1, terms.n_sites):
        weights = np.linalg.svd(state.reshape(4**cut, -1), compute_uv=False) ** 2
        weights = weights[weights > 1e-16]
        found.append(-float(np.sum(weights * np.log(weights))))
    return np.array(found)


def oracle(terms: Terms) -> dict[str, np.ndarray]:
    """Return all observables of ``terms`` (ground states must not be degenerate)."""
    space, energy_operator, full = _operators(terms)
    c, n, n_sites = space.c, space.n, terms.n_sites
    if isinstance(terms.state, Canonical):
        state = _ground_state(terms, space, full)

        def mean(operator: sparse.csr_array) -> float:
            return float(state @ (operator @ state))
    else:
        values, vectors = np.linalg.eigh(full.toarray())
        weights = np.exp(-terms.state.beta * (values - values[0]))
        weights /= weights.sum()

        def mean(operator: sparse.csr_array) -> float:
            return float(np.sum(weights * np.sum(vectors * (operator @ vectors), axis=0)))

    pairs = [c[i][1] @ c[i][0] for i in range(n_sites)]
    total = [a + b for a, b in n]
    spin = [0.5 * (a - b) for a, b in n]

    def matrix(left: list, right: list) -> np.ndarray:
        return np.array([[mean(a @ b) for b in right] for a in left])

    density = np.array([[mean(n[i][s]) for i in range(n_sites)] for s in (0, 1)])
    sums = density.sum(axis=0)
    return {
        "energy": np.array(mean(energy_operator)),
        "density": density,
        "double_occupancy": np.array([mean(a @ b) for a, b in n]),
        "pair": matrix([a.T for a in pairs], pairs),
        "green": np.array(
            [
                matrix([c[i][s].T for i in range(n_sites)], [c[j][s] for j in range(n_sites)])
                for s in (0, 1)
            ]
        ),
        "density_density": matrix(total, total) - np.outer(sums, sums),
        "spin_spin": matrix(spin, spin),
    }


def assert_entropies(found, model) -> None:
    """Compare the dataset's ``entanglement_entropy`` with the exact state's Schmidt values."""
    terms = model.terms()
    rung_by_rung = sorted(range(terms.n_sites), key=lambda i: (terms.sites[i].x, i))
    np.testing.assert_allclose(
        found.entanglement_entropy, entropies(terms, rung_by_rung), atol=1e-6
    )
