"""The metric of chi^2: from the full covariance where there is one, from errors of form otherwise.

With deviations, the covariance S of p numbers has rank at most n - 1, and its inverse amplifies
what is known worst. It is therefore shrunk: the off-diagonal part of the correlation matrix is
multiplied by 1 - lambda, lambda chosen from the data themselves by J. Schaefer and K. Strimmer,
Stat. Appl. Genet. Mol. Biol. 4, 32 (2005). Fitting with a metric that is not exactly the inverse
covariance costs a little precision and no correctness: errors are propagated with the
deviations, and chi^2 is compared with its expectation for this metric (M. Bruno and R. Sommer,
Comput. Phys. Commun. 285, 108643 (2023)) instead of with the number of degrees of freedom.

Both would come out too small if the same blocks made the metric and the errors: W looks best
exactly where S happens to be too small (the bias behind Hotelling's T^2). Blocks are therefore
dealt into folds, and each block is propagated with the metric that the other folds give.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilayer_orchestra.fits.pairs import Pairs
from bilayer_orchestra.terms import FloatArray

#: Relative accuracy below which two numbers of an engine count as equal.
ROUNDING = 1e-9
#: Eigenvalues of the shrunk correlation matrix below this do not count (SVD cut): directions that
#: do not fluctuate, such as a sum rule.
SVD_CUT = 1e-8
#: Folds of the cross-validation.
FOLDS = 8


@dataclass(frozen=True)
class Weights:
    """A metric W = T^t T.

    Parameters
    ----------
    transform : array, shape (q, p) or (p,)
        T; one-dimensional: diagonal.
    count : float
        Effective number of independent data (p for statistical data, the number of distances for
        pairs without noise).
    kind : str
        Said in the result.
    folds : tuple of (rows, transform)
        Deviations (blocks of the fold, p), and T from all other blocks.
    """

    transform: FloatArray
    count: float
    kind: str
    folds: tuple[tuple[FloatArray, FloatArray], ...] = ()

    def apply(self, array: FloatArray) -> FloatArray:
        """Return T times ``array`` (p, ...)."""
        return times(self.transform, array)


def times(transform: FloatArray, array: FloatArray) -> FloatArray:
    """Return T times ``array`` (p, ...); T as in :class:`Weights`."""
    if transform.ndim == 1:
        return transform.reshape(-1, *(1,) * (array.ndim - 1)) * array
    return np.asarray(transform @ array)


def shrinkage(deviations: FloatArray, degrees: float) -> float:
    """Return lambda in [0, 1] for the correlation matrix of these deviations.

    Parameters
    ----------
    deviations : array, shape (n, p)
        Independent rows whose products sum to the covariance of the mean.
    degrees : float
        Degrees of freedom of that covariance (less than n - 1 if the rows differ in size).
    """
    n, p = deviations.shape
    if p == 1:
        return 0.0
    norm = np.sqrt(np.sum(deviations**2, axis=0))
    rows = deviations / np.where(norm > 0, norm, 1.0)
    correlation = rows.T @ rows
    # variance of a sum of n independent products, from the scatter of the products
    spread = np.maximum((rows**2).T @ (rows**2) - correlation**2 / n, 0.0)
    spread *= max(n / max(degrees, 1.0), 1.0)
    off = ~np.eye(p, dtype=bool)
    signal = float(np.sum(correlation[off] ** 2))
    return float(min(1.0, np.sum(spread[off]) / signal)) if signal > 0 else 1.0


def statistical_weights(series: Pairs, lam: float | None = None) -> Weights:
    """Return the metric of data with statistical errors.

    Parameters
    ----------
    series : Pairs
        The data.
    lam : float, optional
        Shrinkage; by default from the deviations. Without a covariance errors are independent.
    """
    smallest = ROUNDING * float(np.abs(series.values).max())
    stderr = np.maximum(series.stderr, smallest)
    n, p = series.deviations.shape
    if np.isinf(series.degrees):
        return Weights(1 / stderr, p, "diagonal: no covariance is stored")
    lam = shrinkage(series.deviations, series.degrees) if lam is None else lam
    transform = _transform(series.deviations / stderr, lam) / stderr
    folds = []
    # fewer blocks than two per fold: every block is its own
    fold_of = np.arange(n) % min(FOLDS, n)
    for k in range(min(FOLDS, n)):
        others = series.deviations[fold_of != k] * np.sqrt(n / np.sum(fold_of != k))
        norm = np.maximum(np.sqrt(np.sum(others**2, axis=0)), smallest)
        folds.append((series.deviations[fold_of == k], _transform(others / norm, lam) / norm))
    dropped = p - len(transform)
    kind = f"full covariance of {n} blocks, shrinkage {lam:.2g}"
    kind += f", {dropped} modes cut" if dropped else ""
    return Weights(transform, len(transform), kind, tuple(folds))


def _transform(rows: FloatArray, lam: float) -> FloatArray:
    """Return T, (q, p), of the shrunk correlation matrix of normalized deviations."""
    correlation = (1 - lam) * (rows.T @ rows)
    np.fill_diagonal(correlation, 1.0)
    values, vectors = np.linalg.eigh(correlation)
    kept = values > SVD_CUT * values[-1]
    return np.asarray((vectors[:, kept] / np.sqrt(values[kept])).T)


def deterministic_weights(series: Pairs, form_error: float) -> Weights:
    """Return the metric of data without statistical errors.

    sigma^2 = bias^2 + (form_error * scale)^2: what truncation leaves, and how far the form itself
    can be trusted, as a fraction of the correlation. Pairs of equal distance are not independent
    tests of a form: chi^2 counts them as one.

    Parameters
    ----------
    series : Pairs
        The data.
    form_error : float
        Relative; found from the data by :func:`.scan.form_error`.
    """
    bias = np.nan_to_num(series.bias)
    sigma = np.sqrt(bias**2 + (max(form_error, ROUNDING) * series.scale) ** 2)
    sigma = np.maximum(sigma, ROUNDING * float(series.scale.max()) * 1e-3)
    count = len(np.unique(series.r))
    kind = f"truncation (bias) and form error {form_error:.1e} in quadrature; no statistical error"
    return Weights(np.sqrt(count / len(series.values)) / sigma, count, kind)
