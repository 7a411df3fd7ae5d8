"""How far the projected state is from the ground state, computed where the sector is small.

exp(-theta H) |trial> and the ground state are both vectors there: what the projection leaves is
known element by element, whatever the gap. Nothing else sees a gap far below 1/theta for certain.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal

from bilayer_orchestra.averages import observables_from_raw
from bilayer_orchestra.backends.alf.trial import trial_orbitals
from bilayer_orchestra.backends.exact.backend import canonical_dimension, out_of_reach
from bilayer_orchestra.backends.exact.fock import Sector, SpinSpace
from bilayer_orchestra.backends.exact.ground import ground_level
from bilayer_orchestra.backends.exact.measure import measure_states
from bilayer_orchestra.terms import Canonical, FloatArray, Terms

#: Sectors up to this size are checked: half a minute on one core at most.
MAX_DIMENSION = 70_000
#: Lanczos vectors of one piece of the projection, and its length in units of 1 / |E|.
KRYLOV, PIECE = 40, 60.0
#: The projection has ended when the energy changes by less in one piece.
SETTLED = 1e-13


class ProjectionError(NamedTuple):
    """Projected minus ground state, per observable; the gap of the sector; its dimension."""

    error: dict[str, FloatArray]
    gap: float
    dimension: int


def in_reach(terms: Terms) -> bool:
    """Whether the sector is small enough."""
    return out_of_reach(terms) is None and canonical_dimension(terms) <= MAX_DIMENSION


def projection_error(terms: Terms, theta: float) -> ProjectionError:
    """Return what ``theta`` leaves of the trial state in every observable.

    The measurement window lies between theta and more; its edge, where this is evaluated, is worst.
    """
    state = terms.state
    assert isinstance(state, Canonical)
    sector = Sector(terms, state.n_up, state.n_down)
    orbitals = trial_orbitals(terms, state.n_up)
    amplitudes = determinant(sector.up, orbitals)
    level = ground_level(sector, 1)
    projected = project(sector, np.outer(amplitudes, amplitudes).ravel(), theta)
    # a degenerate level: the trial state picks one of its states, however long the projection
    basis = level.states.reshape(len(level.states), -1)
    limit = basis.T @ (basis @ projected)
    limit /= np.linalg.norm(limit)
    found, wanted = (_observables(terms, sector, psi) for psi in (projected, limit))
    error = {name: found[name] - wanted[name] for name in found}
    return ProjectionError(error, level.gap, len(projected))


def determinant(space: SpinSpace, orbitals: FloatArray) -> FloatArray:
    """Return the amplitudes of a Slater determinant, shape (D,)."""
    occupied: NDArray[np.int64] = np.array([np.flatnonzero(row) for row in space.occupation])
    return np.asarray(np.linalg.det(orbitals[occupied]))


def project(sector: Sector, vector: FloatArray, theta: float) -> FloatArray:
    """Return exp(-theta H) applied to ``vector``, normalized: Lanczos, piece by piece.

    T. J. Park and J. C. Light, J. Chem. Phys. 85, 5870 (1986).
    """
    vector = vector / np.linalg.norm(vector)
    left, energy = theta, np.inf
    while left > 0:
        basis, diagonal, off = _lanczos(sector, vector)
        values, rotations = eigh_tridiagonal(diagonal, off)
        piece = min(left, PIECE / max(float(values[-1] - values[0]), 1e-300))
        weights = rotations @ (np.exp(-piece * (values - values[0])) * rotations[0])
        vector = basis.T @ weights
        vector /= np.linalg.norm(vector)
        left -= piece
        if len(diagonal) == 1 or abs(diagonal[0] - energy) < SETTLED * max(1.0, abs(energy)):
            break
        energy = float(diagonal[0])
    return vector


def _lanczos(sector: Sector, start: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return an orthonormal Krylov basis (m, D) and the tridiagonal matrix in it."""
    basis = [start]
    diagonal: list[float] = []
    off: list[float] = []
    while True:
        new = sector.apply(basis[-1])
        diagonal.append(float(basis[-1] @ new))
        for _ in range(2):
            new -= np.stack(basis).T @ (np.stack(basis) @ new)
        norm = float(np.linalg.norm(new))
        if len(basis) == KRYLOV or norm < 1e-10:
            return np.stack(basis), np.array(diagonal), np.array(off)
        off.append(norm)
        basis.append(new / norm)


def _observables(terms: Terms, sector: Sector, psi: FloatArray) -> dict[str, FloatArray]:
    raw = measure_states(sector, psi.reshape(1, *sector.shape))
    raw["double_occupancy"] = raw["pair"].diagonal().copy()
    return observables_from_raw(raw, terms)
