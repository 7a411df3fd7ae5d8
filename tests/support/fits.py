"""Exact correlations for the tests of fits, from textbook formulas only."""

from __future__ import annotations

import numpy as np
import xarray as xr


def strings(green):
    """Hard-core boson <b+_i b_j> from free fermions <c+_i c_j>, by determinants.

    E. Lieb, T. Schultz, D. Mattis, Ann. Phys. 16, 407 (1961): b_j = prod_{l<j} (1 - 2 n_l) c_j.
    """
    size = len(green)
    m = 2 * green - np.eye(size)
    result = np.diag(np.diag(green)).astype(float)
    for i in range(size):
        for j in range(i + 1, size):
            result[i, j] = result[j, i] = 0.5 * np.linalg.det(m[i:j, i + 1 : j + 1])
    return result


def open_green(size, particles):
    k = np.pi * np.arange(1, particles + 1) / (size + 1)
    states = np.sqrt(2 / (size + 1)) * np.sin(np.outer(np.arange(1, size + 1), k))
    return states @ states.T


def ring_green(size, particles):
    """Fermions of hard-core bosons on a ring: antiperiodic if their number is even."""
    n = np.arange(particles) - (particles - 1) / 2
    r = np.subtract.outer(np.arange(size), np.arange(size))
    return np.cos(2 * np.pi * r[..., None] * n / size).sum(axis=-1) / size


def thermal_green(size, beta, mu):
    h = -np.eye(size, k=1) - np.eye(size, k=-1)
    energy, states = np.linalg.eigh(h)
    return (states / (1 + np.exp(beta * (energy - mu)))) @ states.T


def dataset(matrix, boundary, beta=None, name="pair", deviations=None, bias=None):
    """A minimal result with one layer."""
    dims = ("layer", "x", "layer_", "x_")
    state = "{n_up: 1, n_down: 1}" if beta is None else f"{{beta: {beta}}}"
    variables = {name: (dims, matrix[None, :, None, :])}
    if bias is not None:
        variables[f"{name}_bias"] = (dims, bias[None, :, None, :])
    if deviations is not None:
        variables[f"{name}_deviation"] = (("block", *dims), deviations[:, None, :, None, :])
    x = np.arange(len(matrix))
    coordinates = {"layer": ["P"], "layer_": ["P"], "x": x, "x_": x}
    attributes = {
        "model": f"boundary: {boundary}\nstate: {state}\n",
        "orchestra_schema": 1,
        "model_name": "test",
    }
    result = xr.Dataset(variables, coordinates, attributes)
    if deviations is not None:
        result[name].attrs["covariance_degrees_of_freedom"] = len(deviations) - 1.0
    return result


def ring_of(at_distance, size):
    x = np.arange(size)
    separation = np.abs(np.subtract.outer(x, x))
    matrix = at_distance[np.minimum(separation, size - separation) - 1]
    np.fill_diagonal(matrix, 0.4)  # pairs per site
    return matrix


def sampled(seed, exact, covariance, blocks):
    """A ring's result of ``blocks`` blocks, as a Monte Carlo run stores it."""
    rng = np.random.default_rng(seed)
    size = 2 * len(exact)
    # the draws of other methods depend on the signs that a machine's LAPACK gives to eigenvectors
    draws = rng.multivariate_normal(0 * exact, blocks * covariance, blocks, method="cholesky")
    samples = exact + draws
    deviations = (samples - samples.mean(axis=0)) / np.sqrt(blocks * (blocks - 1))
    matrices = np.stack([ring_of(one, size) for one in deviations])
    return dataset(ring_of(samples.mean(axis=0), size), "periodic", deviations=matrices)
