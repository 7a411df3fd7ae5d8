"""Fock space of one spin species, and the two-spin Hamiltonian as a matrix-free product.

A state of n particles on N sites is a bit mask (bit i = site i). A two-spin state is the matrix
psi[u, d]; with all up operators ordered before all down operators, c+_{i,s} c_{j,s} acts on one
index only, without a sign from the other spin.
"""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from bilayer_orchestra.terms import FloatArray, Terms

#: Rows that are transposed together: so few that they stay in the processor's cache.
ROWS = 16


def act_on_down(operator: sparse.csr_array, psi: FloatArray) -> FloatArray:
    """Return sum_d' operator_{d d'} psi[u, d'], shape (D_up, D_down).

    Row block by row block: transposing all of a large ``psi`` takes ten times longer than the
    product.
    """
    result = np.empty_like(psi)
    for k in range(0, len(psi), ROWS):
        result[k : k + ROWS] = (operator @ psi[k : k + ROWS].T).T
    return result


class SpinSpace:
    """All states of ``n_particles`` identical-spin fermions on ``n_sites`` sites.

    Attributes
    ----------
    states : int array, shape (D,)
        Bit masks in ascending order.
    occupation : array, shape (D, N)
        Occupation numbers 0 or 1.
    """

    def __init__(self, n_sites: int, n_particles: int) -> None:
        self.n_sites = n_sites
        chosen = combinations(range(n_sites), n_particles)
        masks = np.array([sum(1 << i for i in sites) for sites in chosen], dtype=np.int64)
        self.states: NDArray[np.int64] = np.sort(masks)
        occupied = self.states[:, None] >> np.arange(n_sites) & 1
        self.occupation: FloatArray = occupied.astype(float)

    def transfer(self, i: int, j: int) -> sparse.csr_array:
        """Return c+_i c_j, shape (D, D), with the Jordan-Wigner sign of the sites in between."""
        without = self.states ^ (1 << j)  # where there is one at j
        source = np.flatnonzero((self.states >> j) & ~(without >> i) & 1)
        target = np.searchsorted(self.states, without[source] ^ (1 << i))
        low, high = sorted((i, j))
        between = self.occupation[source, low + 1 : high].sum(axis=1)
        elements = (1.0 - 2.0 * (between % 2), (target, source))
        return sparse.csr_array(elements, shape=(len(self.states),) * 2)

    def one_body(self, matrix: FloatArray) -> sparse.csr_array:
        """Return sum_ij matrix_ij c+_i c_j, shape (D, D)."""
        total = sparse.csr_array((len(self.states),) * 2)
        for i, j in np.argwhere(matrix).tolist():
            total = total + matrix[i, j] * self.transfer(i, j)
        return sparse.csr_array(total)


class Sector:
    """The Hamiltonian, including -mu N, in the sector of n_up and n_down particles.

    Parameters
    ----------
    terms : Terms
        The model; its own state is not looked at.
    n_up, n_down : int
        Numbers of particles.

    Attributes
    ----------
    scale : float
        Bound of every |level|: what rounding and tolerances are measured with.
    """

    def __init__(self, terms: Terms, n_up: int, n_down: int) -> None:
        self.up = SpinSpace(terms.n_sites, n_up)
        self.down = self.up if n_up == n_down else SpinSpace(terms.n_sites, n_down)
        one_body = terms.one_body - np.diag(terms.chemical_potential)
        self.kinetic_up = self.up.one_body(one_body)
        self.kinetic_down = self.down.one_body(one_body)
        self.potential: FloatArray = (
            self.up.occupation * terms.interaction
        ) @ self.down.occupation.T
        largest = float(np.abs(np.linalg.eigvalsh(one_body)).max())
        self.scale = (n_up + n_down) * largest + float(np.abs(self.potential).max())

    @property
    def shape(self) -> tuple[int, int]:
        """(D_up, D_down)."""
        return self.potential.shape

    def apply(self, vector: FloatArray) -> FloatArray:
        """Return H applied to a flattened psi[u, d]."""
        psi = vector.reshape(self.shape)
        result = self.kinetic_up @ psi
        result += act_on_down(self.kinetic_down, psi)
        result += self.potential * psi
        return np.asarray(result).ravel()

    def matrix(self) -> sparse.csr_array:
        """Return H as a sparse matrix, shape (D, D) with D = D_up * D_down."""
        return sparse.csr_array(
            sparse.kron(self.kinetic_up, sparse.eye_array(self.shape[1]))
            + sparse.kron(sparse.eye_array(self.shape[0]), self.kinetic_down)
            + sparse.diags_array(self.potential.ravel())
        )

    def exchange_bases(self) -> list[sparse.csc_array]:
        """Return orthonormal bases, shape (D, D_k), between which H has no elements.

        H does not distinguish the spins, so with n_up = n_dn it commutes with psi[u, d] ->
        psi[d, u]: even and odd states. Otherwise there is one basis, the identity.
        """
        states = sparse.eye_array(self.potential.size, format="csc")
        if self.up is not self.down:
            return [states]
        size, bases = self.shape[0], []
        for sign, first_above in ((1, 0), (-1, 1)):
            u, d = np.triu_indices(size, first_above)
            both = states[:, u * size + d] + sign * states[:, d * size + u]
            bases.append(both @ sparse.diags_array(np.where(u == d, 0.5, np.sqrt(0.5))))
        return [basis for basis in bases if basis.shape[1]]  # one state is even
