"""Bootstrap of a model-averaged fit: windows compete anew in every replica."""

from __future__ import annotations

import numpy as np

from bilayer_orchestra.fits.scan import NEGLIGIBLE, Scan, model_weights
from bilayer_orchestra.terms import FloatArray


def bootstrap(scan: Scan, replicas: int, kind: str = "gaussian", seed: int = 0) -> FloatArray:
    """Return the model-averaged shape parameters of every replica, (replicas, shape).

    Parameters
    ----------
    kind : {"gaussian", "blocks"}
        ``gaussian``: C* = C + sum_b g_b dC_b with normal g_b, which has exactly the covariance of
        the deviations. ``blocks``: g_b = m_b - 1, m_b how often block b is drawn.

    Notes
    -----
    Fits that hold less than 1/1000 of the weight are left out. Parameters that not all forms have
    are NaN.
    """
    rng = np.random.default_rng(seed)
    used = np.flatnonzero(scan.weights > NEGLIGIBLE * scan.weights.max())
    blocks = len(scan.problems[0].weights.deviations)
    names = scan.fits[scan.best].form.shape
    result = np.full((replicas, len(names)), np.nan)
    for n in range(replicas):
        if kind == "gaussian":
            factors = rng.standard_normal(blocks)
        else:
            drawn = rng.multinomial(blocks, np.full(blocks, 1 / blocks))
            factors = (drawn - 1.0) * np.sqrt(blocks / (blocks - 1))
        shapes, chi2 = [], []
        for w in used:
            problem, fit = scan.problems[w], scan.fits[w]
            values = problem.series.values + factors @ problem.weights.deviations
            shape, _ = problem.search(fit.shape, values)
            _, residual = problem.amplitudes(shape, problem.weights.apply(values))
            shapes.append(
                [shape[fit.form.shape.index(x)] if x in fit.form.shape else np.nan for x in names]
            )
            # the same scale as in the fit itself, where chi^2 was compared with its expectation
            raw = problem.weights.apply(problem.series.values - fit.fitted)
            raw_chi2 = float(raw @ raw)
            chi2.append(float(residual @ residual) * (fit.chi2 / raw_chi2 if raw_chi2 else 1.0))
        weights = model_weights(
            np.array(chi2),
            np.array([scan.fits[w].k for w in used]),
            np.array([scan.total - scan.fits[w].count for w in used]),
        )
        result[n] = weights @ np.array(shapes)
    return result
