"""Canonical ground state, by Lanczos in the memory of five vectors.

A degenerate ground level is averaged over with equal weights: that is the T -> 0 limit of the
canonical ensemble and does not depend on the basis that the solver happens to return.

C. Lanczos, J. Res. Natl. Bur. Stand. 45, 255 (1950), without reorthogonalization, in two passes:
the first finds the lowest eigenvalue of the tridiagonal matrix, the second repeats the same steps
to add up the eigenvector. Rounding brings copies of converged states into the matrix, but only
after the lowest one has converged, which is where this stops. Restarted solvers with their window
of stored vectors (ARPACK) take ten times longer here: docs/decisions/0008.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh, eigh_tridiagonal

from bilayer_orchestra.engines.exact.fock import Sector
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
#: Residual of Lanczos states; some 500 roundings of the largest eigenvalue can be reached.
RESIDUAL = 1e-13
#: Largest multiplet that is resolved by Lanczos.
MAX_MULTIPLET = 24
#: Steps of Lanczos at most, and between two looks at the tridiagonal matrix.
MAX_STEPS = 20_000
LOOK = 20

#: Receives the ``step``, "level" or "vector" (second pass), how many ``steps`` of Lanczos were made
#: for it, and the lowest ``energy`` so far.
Report = Callable[..., None]


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


def ground_level(sector: Sector, seed: int, report: Report = lambda **event: None) -> GroundLevel:
    """Return the lowest level of ``sector`` with all its states.

    Parameters
    ----------
    sector : Sector
        The Hamiltonian.
    seed : int
        Of the random start vectors.
    report : callable
        Hears how far Lanczos is; see :data:`Report`.

    Raises
    ------
    EngineError
        If the multiplet is larger than `MAX_MULTIPLET` or Lanczos does not converge.
    """
    if sector.potential.size <= DENSE_DIMENSION:
        values, vectors = eigh(sector.matrix().toarray())
        states, above = list(vectors.T), np.inf
    else:
        values, states, above = _lowest_states(sector, seed, report)
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


def _lowest_states(
    sector: Sector, seed: int, report: Report
) -> tuple[FloatArray, list[FloatArray], float]:
    """Return (levels, states, the next level): the lowest and all close to it, one by one."""
    rng = np.random.default_rng(seed)
    ground = np.inf
    states: list[FloatArray] = []
    while len(states) <= MAX_MULTIPLET:
        start = rng.standard_normal(sector.potential.size)  # overlaps with every state
        search = _Lanczos(sector, start, states, report)
        value, coefficients = search.level()
        if value - ground > GATHERED * sector.scale:
            # what each has of the others is what their residuals leave undetermined; the energy is
            # taken off first, since its rounding would mix them
            images = np.stack([sector.apply(state) - ground * state for state in states])
            values, rotation = eigh(images @ np.stack(states).T)
            return ground + values, list(rotation.T @ np.stack(states)), value
        ground = min(ground, value)
        states.append(search.vector(coefficients, ground))
    raise EngineError(
        f"the ground level of this sector has more than {MAX_MULTIPLET} states; "
        "its correlators are not determined by energy alone (is t_perp zero?)"
    )


@dataclass(frozen=True)
class _Lanczos:
    """The lowest state orthogonal to the normalized ones in ``lower``, each of shape (D,)."""

    sector: Sector
    start: FloatArray
    lower: list[FloatArray]
    report: Report

    def level(self) -> tuple[float, FloatArray]:
        """Return its energy, and its coefficients in the Lanczos vectors, shape (steps,)."""
        tolerance = RESIDUAL * self.sector.scale
        alpha: list[float] = []
        beta: list[float] = []
        for _, a, b in self._steps():
            alpha.append(a)
            beta.append(b)
            ended = b <= 0.1 * tolerance  # the start lies in an invariant subspace
            if len(alpha) % LOOK == 0 or ended:
                values, vectors = eigh_tridiagonal(
                    alpha, beta[:-1], select="i", select_range=(0, 0)
                )
                self.report(step="level", steps=len(alpha), energy=float(values[0]))
                if ended or b * abs(vectors[-1, 0]) < tolerance:
                    return float(values[0]), np.asarray(vectors[:, 0], dtype=float)
            if len(alpha) >= MAX_STEPS:
                break
        raise EngineError(f"Lanczos did not converge within {MAX_STEPS} steps")

    def vector(self, coefficients: FloatArray, energy: float) -> FloatArray:
        """Return it normalized: the second pass; ``energy`` is for the report."""
        vector = np.zeros_like(self.start)
        steps = zip(coefficients, self._steps(), strict=False)
        for number, (coefficient, (basis, _, _)) in enumerate(steps, 1):
            vector += coefficient * basis
            if number % LOOK == 0:
                self.report(step="vector", steps=number, energy=energy)
        self._project_out(vector)
        return np.asarray(vector / np.linalg.norm(vector))

    def _steps(self) -> Iterator[tuple[FloatArray, float, float]]:
        """Yield (Lanczos vector, alpha, beta to the next), the same numbers at every call."""
        following = self.start.copy()
        self._project_out(following)
        current, beta = np.zeros_like(following), float(np.linalg.norm(following))
        while True:
            following /= max(beta, 1e-300)
            previous, current = current, following
            following = self.sector.apply(current)
            following -= beta * previous
            alpha = float(current @ following)
            following -= alpha * current
            self._project_out(following)
            beta = float(np.linalg.norm(following))
            yield current, alpha, beta

    def _project_out(self, vector: FloatArray) -> None:
        for state in self.lower:
            vector -= (state @ vector) * state
