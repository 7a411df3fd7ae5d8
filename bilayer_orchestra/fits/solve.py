"""One fit in one window: scipy's Levenberg-Marquardt in the shape, linear algebra in the rest.

Separable least squares (G. Golub and V. Pereyra, SIAM J. Numer. Anal. 10, 413 (1973)): amplitudes
are eliminated, which leaves one to three unknowns and needs no starting value for amplitudes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from bilayer_orchestra.fits.forms import Form
from bilayer_orchestra.fits.pairs import Series
from bilayer_orchestra.fits.weights import Weights
from bilayer_orchestra.terms import FloatArray

#: The shape parameter 1/xi of thermal forms.
THERMAL = "inverse_thermal_xi"
#: Relative step of numerical derivatives.
STEP = 1e-5


@dataclass(frozen=True)
class Fit:
    """A form fitted to a series.

    Parameters
    ----------
    shape, amplitudes : array
        The parameters of the form.
    response : array, shape (k, p)
        Derivative of all k parameters (shape first) with respect to the data.
    chi2 : float
        Scaled so that its expectation is ``dof`` if the form is right.
    count : float
        Data in the window; dof = count - k.
    fitted : array, shape (p,)
    residual : array, shape (q,)
        Weighted, scaled as chi^2.
    noise : array, shape (blocks, q)
        What the deviations of the data leave of themselves in ``residual``, to first order.
    """

    form: Form
    shape: FloatArray
    amplitudes: FloatArray
    response: FloatArray
    deviations: FloatArray
    misfit_covariance: FloatArray
    chi2: float
    count: float
    fitted: FloatArray
    residual: FloatArray
    noise: FloatArray
    success: bool

    @property
    def k(self) -> int:
        """Number of parameters."""
        return len(self.shape) + len(self.amplitudes)

    @property
    def dof(self) -> float:
        """Degrees of freedom."""
        return self.count - self.k

    @property
    def chi2_per_dof(self) -> float:
        """chi^2 / dof; NaN if every number of the window is used up."""
        return self.chi2 / self.dof if self.dof > 0 else np.nan

    @property
    def covariance(self) -> FloatArray:
        """Covariance of all parameters, shape first."""
        if len(self.deviations):
            return self.deviations.T @ self.deviations
        return self.misfit_covariance

    def value(self, name: str) -> float:
        """Return a shape parameter by name."""
        return float(self.shape[self.form.shape.index(name)])

    def error(self, name: str) -> float:
        """Return its standard error within this window."""
        k = self.form.shape.index(name)
        return float(np.sqrt(self.covariance[k, k]))


class Problem:
    """A form bound to a series and its weights.

    Parameters
    ----------
    form : Form
        The function, whose basis is averaged over the same pairs as the data.
    series : Series
        The p numbers that are fitted.
    weights : Weights
        The metric of chi^2.
    """

    def __init__(self, form: Form, series: Series, weights: Weights) -> None:
        self.form, self.series, self.weights = form, series, weights
        self.folds = "open" not in form.name
        self.per_pair = form.bind(series.x, series.y, series.length)

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
        kept = vectors[:, values > 1e-12 * values[-1]] / np.sqrt(
            values[values > 1e-12 * values[-1]]
        )
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
        if "wave_vector" in self.form.shape and self.folds:
            # distances are whole numbers: q, -q and q + 2 pi are the same wave
            k = self.form.shape.index("wave_vector")
            shape[k] = np.abs((shape[k] + np.pi) % (2 * np.pi) - np.pi)
        return shape, bool(found.success)

    def _straight(self, shape: FloatArray) -> FloatArray:
        """Return what is searched: with a thermal length, eta / xi and log xi.

        Far out s(r)^-eta knows only eta / xi. At fixed eta the misfit is a bent, narrow valley, in
        which a search takes hundreds of steps.
        """
        if THERMAL not in self.form.shape:
            return shape
        result, eta, k = shape.copy(), self.form.shape.index("eta"), self.form.shape.index(THERMAL)
        result[k] = np.log(max(abs(shape[k]), 1e-9))
        result[eta] *= np.exp(result[k])
        return result

    def _bent(self, straight: FloatArray) -> FloatArray:
        """Return the shape of :meth:`_straight`."""
        if THERMAL not in self.form.shape:
            return straight
        result = straight.copy()
        eta, k = self.form.shape.index("eta"), self.form.shape.index(THERMAL)
        result[k] = np.exp(np.clip(straight[k], -25.0, 25.0))
        result[eta] /= result[k]
        return result

    def solve(self, start: FloatArray) -> Fit:
        """Fit and propagate errors."""
        shape, success = self.search(start, self.series.values)
        data = self.weights.apply(self.series.values)
        amplitudes, residual = self.amplitudes(shape, data)
        columns = []
        for j in range(len(shape)):
            step = np.zeros(len(shape))
            step[j] = STEP * max(abs(shape[j]), 0.1)
            up, down = self.basis(shape + step), self.basis(shape - step)
            columns.append((up - down) @ amplitudes / (2 * step[j]))
        basis = self.basis(shape)
        jacobian = np.column_stack([*columns, *basis.T])
        scale = np.linalg.norm(self.weights.apply(jacobian), axis=0)
        scale[scale == 0] = 1.0
        weighted = self.weights.apply(jacobian) / scale
        inverse = np.linalg.pinv(weighted, rcond=1e-10)
        transform = self.weights.transform
        response = inverse * transform if transform.ndim == 1 else inverse @ transform
        response = response / scale[:, None]
        count, k = self.weights.count, len(shape) + len(amplitudes)
        chi2 = float(residual @ residual)
        deviations = self.weights.deviations @ response.T
        noise = np.zeros((0, len(residual)))
        if len(deviations):
            left = self.weights.apply(self.weights.deviations.T)
            noise = (left - weighted @ (inverse @ left)).T
            expected, deviations = self._propagate(jacobian, scale)
            size = (count - k) / expected if expected > 0 and count > k else 1.0
            chi2, residual, noise = chi2 * size, residual * np.sqrt(size), noise * np.sqrt(size)
        # for errors of form sigma is only a scale: the misfit itself says how large it is
        with np.errstate(all="ignore"):  # of a shape that ran away; such fits are dropped
            scaled = inverse / scale[:, None]
            covariance = scaled @ scaled.T
        covariance *= max(chi2 / max(count - k, 1.0), 1e-300)
        return Fit(
            self.form,
            shape,
            amplitudes,
            response,
            deviations,
            covariance,
            chi2,
            count,
            basis @ amplitudes,
            residual,
            noise,
            success and bool(np.isfinite(chi2)),
        )

    def _propagate(self, jacobian: FloatArray, scale: FloatArray) -> tuple[float, FloatArray]:
        """Return the expected chi^2, and the deviations of all parameters (blocks, k)."""
        expected, rows = 0.0, []
        folds = self.weights.folds or ((self.weights.deviations, self.weights.transform),)
        for deviations, transform in folds:
            if transform.ndim == 1:
                weighted, noise = (transform[:, None] * a for a in (jacobian, deviations.T))
            else:
                weighted, noise = transform @ jacobian, transform @ deviations.T
            inverse = np.linalg.pinv(weighted / scale, rcond=1e-10)
            rows.append((inverse @ noise / scale[:, None]).T)
            expected += float(np.sum((noise - weighted / scale @ (inverse @ noise)) ** 2))
        return expected, np.concatenate(rows)
