"""Lanczos for the lowest state of a large real symmetric operator, in the memory of five vectors.

C. Lanczos, J. Res. Natl. Bur. Stand. 45, 255 (1950), without reorthogonalization, in two passes:
the first finds the lowest eigenvalue of the tridiagonal matrix, the second repeats the same steps
to add up the eigenvector. Rounding brings copies of converged states into the matrix, but only
after the lowest one has converged, which is where this stops. Restarted solvers with their window
of stored vectors (ARPACK) take ten times longer here: docs/decisions/0008.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh_tridiagonal

from bilayer_orchestra.errors import EngineError
from bilayer_orchestra.terms import FloatArray

MAX_STEPS = 20_000
#: Steps between two looks at the tridiagonal matrix.
LOOK = 20

Apply = Callable[[FloatArray], FloatArray]


class Lowest(NamedTuple):
    """The lowest eigenvalue, and its vector in the basis of the Lanczos vectors, shape (steps,)."""

    value: float
    coefficients: FloatArray


def lowest(
    apply: Apply,
    start: FloatArray,
    tolerance: float,
    lower: list[FloatArray],
    on_step: Callable[[int, float], None] = lambda step, value: None,
) -> Lowest:
    """Return the lowest level among states orthogonal to the normalized ones in ``lower``.

    Parameters
    ----------
    apply : callable
        The operator.
    start : array, shape (D,)
        Must overlap with the state sought: a random vector does.
    tolerance : float
        Wanted ||A v - value v||; some 500 roundings of the largest eigenvalue can be reached.

    Raises
    ------
    EngineError
        If it is not reached.
    """
    alpha: list[float] = []
    beta: list[float] = []
    for _, a, b in _steps(apply, start, lower):
        alpha.append(a)
        beta.append(b)
        ended = b <= 0.1 * tolerance  # the start lies in an invariant subspace
        if len(alpha) % LOOK == 0 or ended:
            values, vectors = eigh_tridiagonal(
                np.array(alpha), np.array(beta[:-1]), select="i", select_range=(0, 0)
            )
            value = float(values[0])
            on_step(len(alpha), value)
            if ended or b * abs(vectors[-1, 0]) < tolerance:
                break
        if len(alpha) >= MAX_STEPS:
            raise EngineError(f"Lanczos did not converge within {MAX_STEPS} steps")
    return Lowest(value, np.asarray(vectors[:, 0], dtype=float))


def assemble(
    apply: Apply,
    start: FloatArray,
    lower: list[FloatArray],
    coefficients: FloatArray,
    on_step: Callable[[int], None] = lambda step: None,
) -> FloatArray:
    """Return the normalized vector with these ``coefficients``, shape (D,): the second pass."""
    vector = np.zeros_like(start)
    steps = zip(coefficients, _steps(apply, start, lower), strict=False)
    for number, (coefficient, (basis, _, _)) in enumerate(steps, 1):
        vector += coefficient * basis
        if number % LOOK == 0:
            on_step(number)
    _project_out(vector, lower)
    return np.asarray(vector / np.linalg.norm(vector))


def _steps(
    apply: Apply, start: FloatArray, lower: list[FloatArray]
) -> Iterator[tuple[FloatArray, float, float]]:
    """Yield (Lanczos vector, alpha, beta to the next), the same numbers at every call."""
    current = np.array(start)
    _project_out(current, lower)
    current /= np.linalg.norm(current)
    previous, beta = np.zeros_like(current), 0.0
    while True:
        following = apply(current)
        following -= beta * previous
        alpha = float(current @ following)
        following -= alpha * current
        _project_out(following, lower)
        beta = float(np.linalg.norm(following))
        yield current, alpha, beta
        following /= max(beta, 1e-300)
        previous, current = current, following


def _project_out(vector: FloatArray, lower: list[FloatArray]) -> None:
    for state in lower:
        vector -= (state @ vector) * state
