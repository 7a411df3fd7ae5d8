"""Tuning at T > 0: all chemical potentials together, with or without statistical noise.

Every run gives the densities n(mu) and, from the fluctuations of the layers' particle numbers, most
of their response. K = dn/dmu is symmetric, and since the total number commutes with H,

    K (1, ..., 1) = (beta / L) <dN_l dN>    exactly,

so that K = S - Q with S_ll' = (beta / L) <dN_l dN_l'> and Q (1, ..., 1) = 0: the part of the
relative fluctuations that is quantum mechanical. It is taken as Q = f R S R, R the projector onto
changes that keep the total number: of two layers exactly so, with one unknown share f, of more on
the average. f follows from pairs of runs. Every run k then predicts where the target is,

    mu*_k = mu_k + K^-1 (n_target - n_k),

and all predictions are averaged with their covariances: statistical error of n_k, and the curvature
of n(mu) over the distance. Runs far away therefore count less and less, those near the target add
up as one long run. This is the feedback with compressibility and memory of C. Miles et al., PRE
105, 045311 (2022), for several densities, with error bars in place of a fixed memory.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from bilayer_orchestra.terms import FloatArray

#: Change of the response over a change of mu by the energy scale: what a prediction may be off by.
CURVATURE = 0.5
#: Error of the first estimate of the share. It is worth little, and stops a first noisy pair of
#: runs from being believed blindly.
PRIOR_ERROR = 0.3


@dataclass(frozen=True)
class Measurement:
    """One run of n layers: mu (n,), density (n,), its covariance (n, n), and S (n, n)."""

    mu: FloatArray
    density: FloatArray
    covariance: FloatArray
    fluctuations: FloatArray

    def response(self, share: float) -> FloatArray:
        """Return K, shape (n, n), for a quantum mechanical share; its eigenvalues are positive."""
        return _positive(self.fluctuations - share * _relative(_relative(self.fluctuations).T))


@dataclass(frozen=True)
class Prediction:
    """Where the target is: mu (n,), covariance (n, n), and K (n, n) there."""

    mu: FloatArray
    covariance: FloatArray
    response: FloatArray

    @property
    def density_error(self) -> FloatArray:
        """Standard errors of the densities at ``mu``, shape (n,)."""
        spread = self.response @ self.covariance @ self.response.T
        return np.sqrt(np.maximum(np.diagonal(spread), 0.0))


def predict(runs: list[Measurement], target: FloatArray, scale: float, share: float) -> Prediction:
    """Combine all runs.

    Parameters
    ----------
    runs : list of Measurement
        All of the search.
    target : array, shape (n,)
        Wished densities.
    scale : float
        Energy over which responses change.
    share : float
        What part of the relative fluctuations is quantum mechanical, see :func:`quantum_share`.
    """
    unit = np.eye(len(target))
    guess = runs[int(np.argmin([np.abs(run.density - target).max() for run in runs]))].mu
    for _ in range(20):
        shifts, covariances, responses = [], [], []
        for run in runs:
            response = run.response(share)
            inverse = np.linalg.inv(response)
            step = inverse @ (target - run.density)
            distance = float(np.linalg.norm(guess - run.mu)) / scale
            error = (CURVATURE * distance * max(float(np.linalg.norm(step)), 1e-12)) ** 2
            shifts.append(run.mu + step)
            covariances.append(inverse @ run.covariance @ inverse.T + error * unit)
            responses.append(response)
        weights = [np.linalg.inv(c + 1e-30 * unit) for c in covariances]
        covariance = np.linalg.inv(sum(weights))
        mu = covariance @ sum(w @ s for w, s in zip(weights, shifts, strict=True))
        if np.abs(mu - guess).max() < 1e-12 * max(1.0, float(np.abs(mu).max())):
            break
        guess = mu
    nearest = int(np.argmax([np.trace(w) for w in weights]))
    return Prediction(mu, covariance, responses[nearest])


def quantum_share(runs: list[Measurement], scale: float, first: float) -> float:
    """Return the part f of the relative fluctuations that is quantum mechanical.

    Parameters
    ----------
    runs : list of Measurement
        All of the search.
    scale : float
        Energy over which responses change.
    first : float
        Estimate before two runs tell.
    """
    shares, weights = [first], [1 / PRIOR_ERROR**2]
    for one, other in itertools.combinations(runs, 2):
        shift = one.mu - other.mu
        relative = _relative(shift)
        mean = 0.5 * (one.fluctuations + other.fluctuations)
        fluctuations = float(relative @ mean @ relative)
        if fluctuations == 0:
            continue
        # what the densities changed by less than fluctuations suggest, along the relative shift
        less = float(relative @ (mean @ shift - (one.density - other.density)))
        noise = float(relative @ (one.covariance + other.covariance) @ relative)
        curved = CURVATURE * float(shift @ shift) / scale**2
        shares.append(less / fluctuations)
        weights.append(1 / (noise / fluctuations**2 + curved**2 + 1e-24))
    return min(max(float(np.average(shares, weights=weights)), 0.0), 1 - 1e-3)


def _relative(change: FloatArray) -> FloatArray:
    """Return the part of changes (first axis: layers) that keeps the total number."""
    return np.asarray(change - change.mean(axis=0))


def _positive(matrix: FloatArray) -> FloatArray:
    """Return the nearest matrix whose eigenvalues are not too small to be inverted."""
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    floor = max(1e-3 * float(values.max()), 1e-6)
    return np.asarray((vectors * np.maximum(values, floor)) @ vectors.T)
