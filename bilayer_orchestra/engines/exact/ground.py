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

from bilayer_orchestra.engines.exact.fock import Sector
from bilayer_orchestra.engines.exact.lanczos import assemble, lowest
from bilayer_orchestra.errors import EngineError
from bilayer_orchestra.terms import FloatArray

#: Below this dimension a dense diagonalization is faster and finds every degeneracy.
DENSE_DIMENSION = 1600
#: All of these in units of the sector's `scale`, the size of H. Levels as close as rounding makes
#: them are degenerate (measured: 5e-16 at most in exact multiplets).
ROUNDING = 1e-14
#: Levels closer than this are not told apart: rounding mixes their states by up to 1e-3.
RESOLUTION = 1e-12
#: States of Lanczos this close to the lowest are rotated into eigenstates together.
GATHERED = 1e-8
#: Residual of Lanczos states.
RESIDUAL = 1e-13
#: Largest multiplet that is resolved by Lanczos.
MAX_MULTIPLET = 24


class GroundLevel(NamedTuple):
    """The lowest level of a sector.

    ``states`` has shape (g, D_up, D_down), orthonormal: all within ``resolution`` of the lowest.
    ``splitting`` is the largest of their distances, zero if it is rounding. ``gap`` is the distance
    to the next level (infinite in a one-level sector); ``residual`` the largest ||H psi - E psi||.
    """

    energy: float
    states: FloatArray
    gap: float
    residual: float
    splitting: float
    resolution: float


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
        states, above = list(vectors.T), np.inf
    else:
        values, states, above = _lanczos(sector, seed, on_step)
    resolution = RESOLUTION * sector.scale
    distances = values - values[0]
    count = int(np.count_nonzero(distances <= resolution))
    states, splitting = states[:count], float(distances[count - 1])
    return GroundLevel(
        energy=float(values[0]),
        states=np.stack(states).reshape(-1, *sector.shape),
        gap=float(distances[count]) if count < len(values) else above - float(values[0]),
        residual=max(
            float(np.linalg.norm(sector.apply(v) - value * v))
            for v, value in zip(states, values, strict=False)
        ),
        splitting=splitting if splitting > ROUNDING * sector.scale else 0.0,
        resolution=resolution,
    )


def _lanczos(
    sector: Sector, seed: int, on_step: OnStep
) -> tuple[FloatArray, list[FloatArray], float]:
    """Return (levels, states, the next level): the lowest and all close to it, one by one."""
    rng = np.random.default_rng(seed)
    ground = np.inf
    states: list[FloatArray] = []
    while len(states) <= MAX_MULTIPLET:
        start = rng.standard_normal(int(np.prod(sector.shape)))
        residual = RESIDUAL * sector.scale
        found = lowest(sector.apply, start, residual, states, partial(on_step, "level"))
        if found.value - ground > GATHERED * sector.scale:
            # what each has of the others is what their residuals leave undetermined; the energy is
            # taken off first, since its rounding would mix them
            images = np.stack([sector.apply(state) - ground * state for state in states])
            values, rotation = eigh(images @ np.stack(states).T)
            return ground + values, list(rotation.T @ np.stack(states)), found.value
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
