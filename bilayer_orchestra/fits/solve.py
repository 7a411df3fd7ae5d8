"""One fit in one window: the metric of chi^2, the search, and the errors.

Separable least squares (G. Golub and V. Pereyra, SIAM J. Numer. Anal. 10, 413 (1973)): amplitudes
are eliminated, which leaves one to three unknowns and needs no starting value for amplitudes. The
shape is searched by scipy's Levenberg-Marquardt.

The metric comes from the full covariance where there is one, from errors of form otherwise. With
deviations, the covariance S of p numbers has rank at most n - 1, and its inverse amplifies what is
known worst. It is therefore shrunk: the off-diagonal part of the correlation matrix is multiplied
by 1 - lambda, lambda chosen from the data themselves by J. Schaefer and K. Strimmer, Stat. Appl.
Genet. Mol. Biol. 4, 32 (2005). Fitting with a metric that is not exactly the inverse covariance
costs a little precision and no correctness: errors are propagated with the deviations, and chi^2 is
compared with its expectation for this metric (M. Bruno and R. Sommer, Comput. Phys. Commun. 285,
108643 (2023)) instead of with the number of degrees of freedom.

Both would come out too small if the same blocks made the metric and the errors: W looks best
exactly where S happens to be too small (the bias behind Hotelling's T^2). Blocks are therefore
dealt into folds, and each block is propagated with the metric that the other folds give.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from bilayer_orchestra.fits.forms import THERMAL, Form
from bilayer_orchestra.fits.pairs import Pairs
from bilayer_orchestra.terms import FloatArray

#: Relative step of numerical derivatives.
STEP = 1e-5
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
        return _times(self.transform, array)


def _times(transform: FloatArray, array: FloatArray) -> FloatArray:
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


@dataclass(frozen=True)
class Window:
    """One model of the data: a form on distances r_min <= r <= r_max, ``edge`` from the ends."""

    form: Form
    r_min: int
    r_max: int
    edge: int


@dataclass(frozen=True)
class Fit:
    """A form fitted to a series.

    Parameters
    ----------
    problem : Problem
        What was fitted, and with which metric.
    shape, amplitudes : array
        The parameters of the form.
    response : array, shape (k, p)
        Derivative of all k parameters (shape first) with respect to the data.
    deviations : array, shape (blocks, k)
        Of the parameters; no rows for data without noise.
    errors : array, shape (k,)
        Standard errors of the parameters within this window.
    chi2 : float
        Scaled so that its expectation is ``dof`` if the form is right.
    fitted : array, shape (p,)
        The fitted function.
    residual : array, shape (q,)
        Weighted, scaled as chi^2.
    noise : array, shape (blocks, q)
        What the deviations of the data leave of themselves in ``residual``, to first order.
    """

    problem: Problem
    shape: FloatArray
    amplitudes: FloatArray
    response: FloatArray
    deviations: FloatArray
    errors: FloatArray
    chi2: float
    fitted: FloatArray
    residual: FloatArray
    noise: FloatArray

    @property
    def form(self) -> Form:
        """What was fitted."""
        return self.problem.window.form

    @property
    def count(self) -> float:
        """Effective number of data in the window."""
        return self.problem.weights.count

    @property
    def dof(self) -> float:
        """Degrees of freedom."""
        return self.count - self.form.k

    @property
    def chi2_per_dof(self) -> float:
        """chi^2 / dof; NaN if every number of the window is used up."""
        return self.chi2 / self.dof if self.dof > 0 else np.nan

    def value(self, name: str) -> float:
        """Return a shape parameter by name; NaN if the form has no such parameter."""
        return float(dict(zip(self.form.shape, self.shape, strict=True)).get(name, np.nan))

    def error(self, name: str) -> float:
        """Return its standard error within this window."""
        return float(dict(zip(self.form.shape, self.errors, strict=False)).get(name, np.nan))


class Problem:
    """A form bound to a series and its weights.

    Parameters
    ----------
    window : Window
        With the form, whose basis is averaged over the same pairs as the data.
    series : Pairs
        The p numbers of this window.
    weights : Weights
        The metric of chi^2.
    """

    def __init__(self, window: Window, series: Pairs, weights: Weights) -> None:
        self.window, self.series, self.weights = window, series, weights
        self.form = window.form
        self.per_pair = self.form.bind(series.x, series.y, series.length)

    def basis(self, shape: FloatArray) -> FloatArray:
        """Return the form's basis functions averaged over groups, (p, amplitudes)."""
        with np.errstate(all="ignore"):
            basis = self.series.average(self.per_pair(shape))
        # a search may wander where a form overflows; large but finite turns it back
        return np.clip(np.nan_to_num(basis, nan=1e30, posinf=1e30, neginf=-1e30), -1e30, 1e30)

    def amplitudes(self, shape: FloatArray, data: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return (best amplitudes, weighted residual) for a given shape; data are weighted."""
        basis = self.weights.apply(self.basis(shape))
        norm = np.linalg.norm(basis, axis=0)
        norm[norm == 0] = 1.0
        basis = basis / norm
        # one to three columns: their Gram matrix is small and, once normalized, well conditioned
        values, vectors = np.linalg.eigh(basis.T @ basis)
        large = values > 1e-12 * values[-1]
        kept = vectors[:, large] / np.sqrt(values[large])
        solution = kept @ (kept.T @ (basis.T @ data))
        return solution / norm, data - basis @ solution

    def search(self, start: FloatArray, values: FloatArray) -> tuple[FloatArray, bool]:
        """Return the best shape for ``values`` (p,)."""
        data = self.weights.apply(values)
        if len(data) < len(start):
            return np.asarray(start), False
        begin = self._straight(np.asarray(start, float))
        found = least_squares(
            lambda straight: self.amplitudes(self._bent(straight), data)[1],  # type: ignore[misc]
            begin,
            method="lm",
            x_scale=np.maximum(np.abs(begin), 0.1),
            xtol=1e-7,
            ftol=1e-9,
            max_nfev=50 * len(start),
        )
        shape = self._bent(np.asarray(found.x))
        if "wave_vector" in self.form.shape and "open" not in self.form.name:
            # distances are whole numbers: q, -q and q + 2 pi are the same wave
            k = self.form.shape.index("wave_vector")
            shape[k] = np.abs((shape[k] + np.pi) % (2 * np.pi) - np.pi)
        return shape, bool(found.success)

    def _straight(self, shape: FloatArray) -> FloatArray:
        """Return what is searched: with a thermal length, eta / xi and log xi.

        Far out s(r)^-eta knows only eta / xi. At fixed eta the misfit is a bent, narrow valley, in
        which a search takes hundreds of steps.
        """
        result = shape.copy()
        if THERMAL in self.form.shape:
            result[-1] = np.log(max(abs(shape[-1]), 1e-9))
            result[0] *= np.exp(result[-1])
        return result

    def _bent(self, straight: FloatArray) -> FloatArray:
        """Return the shape of :meth:`_straight`."""
        result = straight.copy()
        if THERMAL in self.form.shape:
            result[-1] = np.exp(np.clip(straight[-1], -25.0, 25.0))
            result[0] /= result[-1]
        return result

    def solve(self, start: FloatArray) -> Fit | None:
        """Fit and propagate errors; None if the search found nothing."""
        try:
            shape, success = self.search(start, self.series.values)
            return self._at(shape) if success else None
        except (np.linalg.LinAlgError, ValueError):
            return None

    def _at(self, shape: FloatArray) -> Fit | None:
        """Return the fit of this shape, the best one; None if it is infinite."""
        weighted = self.weights.apply
        amplitudes, residual = self.amplitudes(shape, weighted(self.series.values))
        basis = self.basis(shape)
        slopes = [
            (self.basis(shape + step) - self.basis(shape - step)) @ amplitudes / (2 * step.sum())
            for step in np.diag(STEP * np.maximum(np.abs(shape), 0.1))
        ]
        jacobian = np.column_stack([*slopes, *basis.T])
        scale = np.linalg.norm(weighted(jacobian), axis=0)
        scale[scale == 0] = 1.0
        # of the scaled parameters
        inverse = np.linalg.pinv(weighted(jacobian) / scale, rcond=1e-10)
        transform = self.weights.transform
        response = inverse * transform if transform.ndim == 1 else inverse @ transform
        dof, chi2 = self.weights.count - self.form.k, float(residual @ residual)
        deviations = self.series.deviations
        left = weighted(deviations.T)
        noise = (left - weighted(jacobian) / scale @ (inverse @ left)).T
        if len(deviations):
            expected, deviations = self._propagate(jacobian, scale)
            size = dof / expected if expected > 0 and dof > 0 else 1.0
            chi2, residual, noise = chi2 * size, residual * np.sqrt(size), noise * np.sqrt(size)
            errors = np.linalg.norm(deviations, axis=0)
        else:
            # for errors of form sigma is only a scale: the misfit itself says how large it is
            deviations = np.zeros((0, self.form.k))
            with np.errstate(all="ignore"):  # of a shape that ran away; such fits are dropped
                errors = np.linalg.norm(inverse, axis=1) / scale
            errors *= np.sqrt(max(chi2 / max(dof, 1.0), 1e-300))
        if not np.isfinite(chi2):
            return None
        return Fit(
            self,
            shape,
            amplitudes,
            response / scale[:, None],
            deviations,
            errors,
            chi2,
            basis @ amplitudes,
            residual,
            noise,
        )

    def _propagate(self, jacobian: FloatArray, scale: FloatArray) -> tuple[float, FloatArray]:
        """Return the expected chi^2, and the deviations of all parameters (blocks, k)."""
        expected, rows = 0.0, []
        whole = (self.series.deviations, self.weights.transform)
        for deviations, transform in self.weights.folds or (whole,):
            weighted, noise = (_times(transform, one) for one in (jacobian / scale, deviations.T))
            inverse = np.linalg.pinv(weighted, rcond=1e-10)
            rows.append((inverse @ noise / scale[:, None]).T)
            expected += float(np.sum((noise - weighted @ (inverse @ noise)) ** 2))
        return expected, np.concatenate(rows)
