"""Tuning at T > 0: both chemical potentials together, with or without statistical noise.

Every run gives the densities n(mu) and, from the fluctuations of the layers' particle numbers, most
of their response. K = dn/dmu is symmetric, and since the total number commutes with H,

    K (1, 1) = (beta / L) <dN_l dN>    exactly,

so that K = S - r D with S_ll' = (beta / L) <dN_l dN_l'> and D = ((1, -1), (-1, 1)): one unknown
r >= 0, the part of the relative fluctuations that is quantum mechanical. It follows from pairs of
runs. Every run k then predicts where the target is,

    mu*_k = mu_k + K^-1 (n_target - n_k),

and all predictions are averaged with their covariances: statistical error of n_k, and the curvature
of n(mu) over the distance. Runs far away therefore count less and less, those near the target add
up as one long run. This is the feedback with compressibility and memory of C. Miles et al., PRE
105, 045311 (2022), for two densities, with error bars in place of a fixed memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bilayer_orchestra.terms import FloatArray

#: Direction of relative changes, which do not conserve each layer's number.
RELATIVE = np.array([1.0, -1.0])
D = np.outer(RELATIVE, RELATIVE)
#: Change of the response over a change of mu by the energy scale: what a prediction may be off by.
CURVATURE = 0.5


@dataclass(frozen=True)
class Measurement:
    """One run: mu (2,), density (2,), its covariance (2, 2), and S (2, 2)."""

    mu: FloatArray
    density: FloatArray
    covariance: FloatArray
    fluctuations: FloatArray


@dataclass(frozen=True)
class Prediction:
    """Where the target is: mu (2,), covariance (2, 2), and K (2, 2) there."""

    mu: FloatArray
    covariance: FloatArray
    response: FloatArray

    @property
    def density_error(self) -> FloatArray:
        """Standard errors of the densities at ``mu``, shape (2,)."""
        spread = self.response @ self.covariance @ self.response.T
        return np.sqrt(np.maximum(np.diagonal(spread), 0.0))


def predict(runs: list[Measurement], target: FloatArray, scale: float, ratio: float) -> Prediction:
    """Combine all runs.

    Parameters
    ----------
    runs : list of Measurement
    target : array, shape (2,)
    scale : float
        Energy over which responses change.
    ratio : float
        First estimate of (relative response) / (relative fluctuations), before two runs tell it.
    """
    quantum = _quantum_part(runs, scale, ratio)
    guess = runs[int(np.argmin([np.abs(run.density - target).max() for run in runs]))].mu
    for _ in range(20):
        shifts, covariances, responses = [], [], []
        for run in runs:
            response = _positive(run.fluctuations - quantum(run) * D)
            inverse = np.linalg.inv(response)
            step = inverse @ (target - run.density)
            distance = float(np.linalg.norm(guess - run.mu)) / scale
            error = (CURVATURE * distance * max(float(np.linalg.norm(step)), 1e-12)) ** 2
            shifts.append(run.mu + step)
            covariances.append(inverse @ run.covariance @ inverse.T + error * np.eye(2))
            responses.append(response)
        weights = [np.linalg.inv(c + 1e-30 * np.eye(2)) for c in covariances]
        covariance = np.linalg.inv(sum(weights))
        mu = covariance @ sum(w @ s for w, s in zip(weights, shifts, strict=True))
        if np.abs(mu - guess).max() < 1e-12 * max(1.0, float(np.abs(mu).max())):
            break
        guess = mu
    nearest = int(np.argmax([np.trace(w) for w in weights]))
    return Prediction(mu, covariance, responses[nearest])


def response_at(
    run: Measurement, runs: list[Measurement], scale: float, ratio: float
) -> FloatArray:
    """Return K at one run, shape (2, 2); its eigenvalues are positive."""
    return _positive(run.fluctuations - _quantum_part(runs, scale, ratio)(run) * D)


def _quantum_part(
    runs: list[Measurement], scale: float, ratio: float
) -> Callable[[Measurement], float]:
    """Return r as a function of the run."""
    prior = ratio
    numbers, weights = [], []
    for k, run in enumerate(runs):
        for other in runs[:k]:
            shift = run.mu - other.mu
            lever = float(RELATIVE @ shift)
            if lever == 0:
                continue
            mean = 0.5 * (run.fluctuations + other.fluctuations)
            change = float(RELATIVE @ (run.density - other.density))
            total = float(RELATIVE @ (mean @ shift))
            # fraction f of the relative response along the way that fluctuations suggest
            relative = float(RELATIVE @ mean @ RELATIVE)
            value = (total - change) / (2 * lever) / (relative / 4)
            noise = float(RELATIVE @ (run.covariance + other.covariance) @ RELATIVE)
            variance = noise / (2 * lever) ** 2 / (relative / 4) ** 2
            curved = CURVATURE * float(shift @ shift) / scale**2
            numbers.append(value)
            weights.append(1 / (variance + curved**2 + 1e-24))
    # the prior is worth little, and stops a first noisy pair from being believed blindly
    numbers.append(1 - prior)
    weights.append(1 / 0.3**2)
    share = float(np.average(numbers, weights=weights))
    share = min(max(share, 0.0), 1 - 1e-3)

    def part(run: Measurement) -> float:
        return share * float(RELATIVE @ run.fluctuations @ RELATIVE) / 4

    return part


def _positive(matrix: FloatArray) -> FloatArray:
    """Return the nearest matrix whose eigenvalues are not too small to be inverted."""
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    floor = max(1e-3 * float(values.max()), 1e-6)
    return np.asarray((vectors * np.maximum(values, floor)) @ vectors.T)
