"""Canonical ground state by Lanczos.

A degenerate ground level is averaged over with equal weights: that is the T -> 0 limit of the
canonical ensemble and does not depend on the basis that the solver happens to return.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh

from bilayer_orchestra.backends.exact.fock import Sector
from bilayer_orchestra.backends.exact.lanczos import assemble, lowest
from bilayer_orchestra.errors import EngineError
from bilayer_orchestra.terms import FloatArray

#: Below this dimension a dense diagonalization is faster and finds every degeneracy.
DENSE_DIMENSION = 1600
#: Levels closer than this (relative to the band width scale) count as one degenerate level.
DEGENERACY_TOLERANCE = 1e-10
#: Residual of Lanczos states relative to |E|; small gaps divide it, hence close to rounding.
RESIDUAL = 1e-13
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


#: Receives the part of the work ("level" or "vector"), its step, and the lowest level so far.
OnStep = Callable[[str, int, float], None]


def ground_level(
    sector: Sector, seed: int, on_step: OnStep = lambda part, step, value: None
) -> GroundLevel:
    """Return the lowest level of ``sector`` with all its states.

    Raises
    ------
    EngineError
        If the multiplet is larger than `MAX_MULTIPLET` or Lanczos does not converge.
    """
    if int(np.prod(sector.shape)) <= DENSE_DIMENSION:
        values, vectors = eigh(sector.matrix().toarray())
        in_level = values - values[0] < _tolerance(values[0])
        states, above = list(vectors[:, in_level].T), values[~in_level]
    else:
        values, states, above = _lanczos(sector, seed, on_step)
    energy = float(values[0])
    residual = max(float(np.linalg.norm(sector.apply(v) - energy * v)) for v in states)
    return GroundLevel(
        energy=energy,
        states=np.stack(states).reshape(-1, *sector.shape),
        gap=float(above[0] - energy) if len(above) else np.inf,
        residual=residual,
    )


def _tolerance(energy: float) -> float:
    return DEGENERACY_TOLERANCE * max(1.0, abs(energy))


def _lanczos(
    sector: Sector, seed: int, on_step: OnStep
) -> tuple[FloatArray, list[FloatArray], FloatArray]:
    """Return (level, its states, the next level): one state after the other, from below."""
    rng = np.random.default_rng(seed)
    ground = np.inf
    states: list[FloatArray] = []
    while len(states) <= MAX_MULTIPLET:
        start = rng.standard_normal(int(np.prod(sector.shape)))
        found = lowest(sector.apply, start, RESIDUAL, states, partial(on_step, "level"))
        if found.value - ground > _tolerance(ground):
            return np.array([ground]), states, np.array([found.value])
        ground = min(ground, found.value)
        states.append(
            assemble(
                sector.apply,
                start,
                states,
                found.coefficients,
                lambda step: on_step("vector", step, ground),  # noqa: B023 (called at once)
            )
        )
    raise EngineError(
        f"the ground level of this sector has more than {MAX_MULTIPLET} states; "
        "its correlators are not determined by energy alone (is t_perp zero?)"
    )
