"""Canonical ground state by Lanczos (ARPACK, through scipy).

A degenerate ground level is averaged over with equal weights: that is the T -> 0 limit of the
canonical ensemble and does not depend on the basis that the solver happens to return.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from bilayer_orchestra.backends.exact.fock import Sector
from bilayer_orchestra.errors import EngineError
from bilayer_orchestra.terms import FloatArray

#: Below this dimension a dense diagonalization is faster and finds every degeneracy.
DENSE_DIMENSION = 1600
#: Levels closer than this (relative to the band width scale) count as one degenerate level.
DEGENERACY_TOLERANCE = 1e-10
#: Largest multiplet that is resolved by Lanczos.
MAX_MULTIPLET = 24


class GroundLevel(NamedTuple):
    """The lowest level of a sector.

    ``states`` has shape (g, D_up, D_down), orthonormal; ``gap`` is the distance to the next level
    (infinite in a one-level sector); ``residual`` is the largest ||H psi - E psi||.
    """

    energy: float
    states: FloatArray
    gap: float
    residual: float


def ground_level(sector: Sector, seed: int) -> GroundLevel:
    """Return the lowest level of ``sector`` with all its states.

    Raises
    ------
    EngineError
        If the multiplet is larger than `MAX_MULTIPLET` or Lanczos does not converge.
    """
    size = int(np.prod(sector.shape))
    wanted = 2
    while True:
        if size <= DENSE_DIMENSION:
            values, vectors = eigh(sector.matrix().toarray())
        else:
            values, vectors = _lanczos(sector, size, wanted, seed)
        scale = max(1.0, float(np.abs(values).max()))
        in_level = values - values[0] < DEGENERACY_TOLERANCE * scale
        if not in_level.all() or size <= DENSE_DIMENSION:
            break
        if wanted >= MAX_MULTIPLET:
            raise EngineError(
                f"the ground level of this sector has more than {MAX_MULTIPLET} states; "
                "its correlators are not determined by energy alone (is t_perp zero?)"
            )
        wanted *= 2
    level = vectors[:, in_level]
    above = values[~in_level]
    energy = float(values[0])
    residual = max(float(np.linalg.norm(sector.apply(v) - energy * v)) for v in level.T)
    return GroundLevel(
        energy=energy,
        states=np.ascontiguousarray(level.T).reshape(-1, *sector.shape),
        gap=float(above[0] - energy) if len(above) else np.inf,
        residual=residual,
    )


def _lanczos(sector: Sector, size: int, wanted: int, seed: int) -> tuple[FloatArray, FloatArray]:
    operator = LinearOperator((size, size), matvec=sector.apply, dtype=float)
    start = np.random.default_rng(seed).standard_normal(size)
    try:
        # tol bounds the residual relative to |E|; small gaps divide it, hence close to rounding.
        values, vectors = eigsh(
            operator, k=wanted, which="SA", v0=start, tol=1e-13, ncv=max(24, 2 * wanted + 8)
        )
    except ArpackNoConvergence as error:
        raise EngineError(f"Lanczos did not converge: {error}") from error
    order = np.argsort(values)
    return values[order], vectors[:, order]
