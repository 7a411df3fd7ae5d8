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
from bilayer_orchestra.engines.alf.input.trial import trial_orbitals
from bilayer_orchestra.engines.exact.engine import canonical_dimension, out_of_reach
from bilayer_orchestra.engines.exact.fock import Sector, SpinSpace
from bilayer_orchestra.engines.exact.ground import ground_level
from bilayer_orchestra.engines.exact.measure import measure_states
from bilayer_orchestra.terms import Canonical, FloatArray, Terms

#: Sectors up to this size are checked: half a minute on one core at most.
MAX_DIMENSION = 70_000
#: Lanczos vectors of one piece of the projection, and its length in units of 1 / |E|.
KRYLOV, PIECE = 40, 60.0
#: The projection has ended when the energy changes by less in one piece.
SETTLED = 1e-13


class ProjectionError(NamedTuple):
    """Projected minus ground state, per observable; the gap of the sector; its dimension.

    ``problem`` says why no projection, however long, ends in a state that is determined, or is
    None. The ground state of a degenerate level is the average over it.
    """

    error: dict[str, FloatArray]
    gap: float
    dimension: int
    problem: str | None


def in_reach(terms: Terms) -> bool:
    """Whether the sector is small enough."""
    return out_of_reach(terms) is None and canonical_dimension(terms) <= MAX_DIMENSION


def projection_error(terms: Terms, theta: float) -> ProjectionError:
    """Return what ``theta`` leaves of the trial state in every observable.

    The measurement window lies between theta and more; its edge, where this is evaluated, is worst.

    Raises
    ------
    EngineError
        If the ground level has more states than can be resolved.
    """
    state = terms.state
    assert isinstance(state, Canonical)
    sector = Sector(terms, state.n_up, state.n_down)
    orbitals = trial_orbitals(terms, state.n_up)
    amplitudes = determinant(sector.up, orbitals)
    level = ground_level(sector, 1)
    projected = project(sector, np.outer(amplitudes, amplitudes).ravel(), theta)
    found, wanted = (
        _observables(terms, sector, states)
        for states in (projected.reshape(1, *sector.shape), level.states)
    )
    error = {name: found[name] - wanted[name] for name in found}
    problem = None
    if len(level.states) > 1:
        problem = (
            f"the lowest {len(level.states)} levels are one within {level.resolution:.1e}, and the "
            "projection stays in what the trial state has of them: correlators are not determined"
        )
    return ProjectionError(error, level.gap, len(projected), problem)


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


def _observables(terms: Terms, sector: Sector, states: FloatArray) -> dict[str, FloatArray]:
    raw = measure_states(sector, states)
    raw["double_occupancy"] = raw["pair"].diagonal().copy()
    return observables_from_raw(raw, terms)
