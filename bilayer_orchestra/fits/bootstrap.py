"""Bootstrap of a model-averaged fit: windows and forms compete anew in every replica.

The error of a number that was read off a window which the data chose has two parts: the noise
within the window, and that other noise would have chosen another one. Stating the first alone is
too little, adding the spread of the windows to it counts noise twice when all windows are good
(measured in docs/fits.md). Replicas of the whole procedure contain both once; the central 68 % of
them are the stated interval (B. Efron, J. Am. Stat. Assoc. 109, 991 (2014)).
"""

from __future__ import annotations

import numpy as np

from bilayer_orchestra.fits.scan import NEGLIGIBLE, Scan, model_weights
from bilayer_orchestra.terms import FloatArray


def bootstrap(
    scan: Scan, name: str, replicas: int, kind: str = "gaussian", seed: int = 0
) -> FloatArray:
    """Return the model average of one shape parameter in every replica, (replicas,).

    Parameters
    ----------
    scan : Scan
        Of data with deviations.
    name : str
        The parameter.
    replicas : int
        How many.
    kind : {"gaussian", "blocks"}
        ``gaussian``: C* = C + sum_b g_b dC_b with normal g_b, which has exactly the covariance of
        the deviations. ``blocks``: g_b = m_b - 1, m_b how often block b is drawn.

    Notes
    -----
    Fits follow the data to first order, as their errors do, so that a replica costs no search.
    Forms without the parameter are left out.
    """
    used = [
        one
        for one, weight in zip(scan.fitted, scan.weights, strict=True)
        if name in one.fit.form.shape and weight > NEGLIGIBLE
    ]
    factors = _factors(len(scan.best.problem.weights.deviations), replicas, kind, seed)
    values, chi2 = [], []
    for _, problem, fit in used:
        deviations = problem.weights.deviations
        row = fit.form.shape.index(name)
        along = deviations @ fit.response[row]
        size = np.linalg.norm(along)
        # cross-validated, as the error of the fit itself
        along = along * (fit.error(name) / size if size > 0 else 1.0)
        values.append(fit.shape[row] + factors @ along)
        chi2.append(np.sum((fit.residual + factors @ fit.noise) ** 2, axis=1))
    weights = model_weights(np.stack(chi2, axis=1), used)
    return np.asarray(np.sum(weights * np.stack(values, axis=1), axis=1))


def _factors(blocks: int, replicas: int, kind: str, seed: int) -> FloatArray:
    """Return g, (replicas, blocks)."""
    rng = np.random.default_rng(seed)
    if kind == "gaussian":
        return np.asarray(rng.standard_normal((replicas, blocks)))
    drawn = rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=replicas)
    return np.asarray((drawn - 1.0) * np.sqrt(blocks / (blocks - 1)))
