"""One fit in one window: scipy's Levenberg-Marquardt in the shape, linear algebra in the rest.

Separable least squares (G. Golub and V. Pereyra, SIAM J. Numer. Anal. 10, 413 (1973)): amplitudes
are eliminated, which leaves one to three unknowns and needs no starting value for amplitudes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from bilayer_orchestra.fits.forms import THERMAL, Form
from bilayer_orchestra.fits.pairs import Pairs
from bilayer_orchestra.fits.weights import Weights, times
from bilayer_orchestra.terms import FloatArray

#: Relative step of numerical derivatives.
STEP = 1e-5


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
            weighted, noise = (times(transform, one) for one in (jacobian / scale, deviations.T))
            inverse = np.linalg.pinv(weighted, rcond=1e-10)
            rows.append((inverse @ noise / scale[:, None]).T)
            expected += float(np.sum((noise - weighted @ (inverse @ noise)) ** 2))
        return expected, np.concatenate(rows)
