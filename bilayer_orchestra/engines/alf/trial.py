"""The trial Slater determinants of the projector method.

Projection from a trial state needs a good overlap with the ground state and a determinant that is
unique: no degenerate levels at its Fermi surface, or two machines would pick different ones.
"""

import numpy as np

from bilayer_orchestra.engines.exact.engine import canonical_dimension, out_of_reach
from bilayer_orchestra.terms import Canonical, FloatArray, Terms

#: In sectors up to this size what is left of the trial state is computed: half a minute on one core
#: at most.
MAX_DIMENSION = 70_000
#: Shifts of the attractive sites that are tried, in units of U_i per electron.
SHIFTS = np.linspace(0.0, 1.0, 41)
#: Splitting of levels, in units of the largest matrix element, that counts as degenerate.
DEGENERATE = 1e-6
#: Size of the potential that is added then, in the same units: small, and far above DEGENERATE.
SPLITTING = 1e-3


def needs_probe(terms: Terms) -> bool:
    """Whether a second trial state has to show that the projection is long enough.

    Where the sector is small, that is computed exactly instead.
    """
    if not isinstance(terms.state, Canonical):
        return False
    return out_of_reach(terms) is not None or canonical_dimension(terms) > MAX_DIMENSION


def trial_orbitals(terms: Terms, particles: int) -> FloatArray:
    """Return orthonormal orbitals, shape (N, particles), the same for both spins.

    They are the lowest of ``h - mu + s U``; of all shifts s in [0, 1] the one with the lowest
    energy <H> of the determinant is taken. That puts about as many electrons on the attractive
    sites as the ground state does. Degenerate levels at the Fermi surface (open shells of a ring,
    decoupled sites) are split by a small fixed potential.
    """
    one_body = terms.one_body - np.diag(terms.chemical_potential)
    candidates = [
        _lowest(one_body + np.diag(shift * terms.interaction), particles) for shift in SHIFTS
    ]
    energies = [_energy(terms, orbitals) for orbitals in candidates]
    return candidates[int(np.argmin(np.round(energies, 10)))]


def probe_orbitals(terms: Terms, particles: int) -> FloatArray:
    """Return another trial state, which puts the pairs to one end of the system.

    Trial states that differ by a uniform shift contain low-lying states alike (on four to six rungs
    the projected pair matrices differed by 0.004 where both were off by 0.3); a charge pattern does
    not. The attraction is taken to fall linearly over the attractive sites. Levels that are
    degenerate at the Fermi surface are filled the other way round: what the trial state left open.
    """
    attractive = np.flatnonzero(terms.interaction < 0)
    potential = np.zeros(terms.n_sites)
    potential[attractive] = np.linspace(1, 0, len(attractive)) * terms.interaction[attractive]
    one_body = terms.one_body - np.diag(terms.chemical_potential)
    return _lowest(one_body + np.diag(potential), particles, -SPLITTING)


def _lowest(matrix: FloatArray, particles: int, splitting: float = SPLITTING) -> FloatArray:
    n_sites = len(matrix)
    levels, orbitals = np.linalg.eigh(matrix)
    scale = float(np.abs(matrix).max()) or 1.0
    if particles < n_sites and levels[particles] - levels[particles - 1] < DEGENERATE * scale:
        # irrational wave length: no symmetry of any lattice survives
        potential = np.cos(2 * np.pi * (np.sqrt(5) - 1) / 2 * np.arange(n_sites))
        orbitals = np.linalg.eigh(matrix + splitting * scale * np.diag(potential))[1]
    chosen = orbitals[:, :particles]
    # the sign of an eigenvector is the library's choice; the determinant does not depend on it
    largest = chosen[np.abs(chosen).argmax(axis=0), np.arange(particles)]
    return np.asarray(chosen * np.where(largest < 0, -1.0, 1.0))


def _energy(terms: Terms, orbitals: FloatArray) -> float:
    """Energy of the determinant with both spins in ``orbitals``, without mu."""
    density_matrix = orbitals @ orbitals.T
    density = np.diagonal(density_matrix)
    return float(
        2 * np.sum(terms.one_body * density_matrix) + np.sum(terms.interaction * density**2)
    )
