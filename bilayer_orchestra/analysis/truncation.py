"""Extrapolation of DMRG results to zero discarded weight."""

from typing import NamedTuple

import numpy as np

from bilayer_orchestra.terms import FloatArray

#: Below this discarded weight, truncation is at the level of rounding.
NEGLIGIBLE = 1e-14
#: A line is fitted through stages whose weight fell at least by this factor.
FALL = 0.5


class Extrapolated(NamedTuple):
    """Value at zero discarded weight, and the size of the error that may be left in it."""

    value: FloatArray
    bias: FloatArray


def extrapolate(weights: FloatArray, values: FloatArray, variational: bool = False) -> Extrapolated:
    """Extrapolate ``values`` linearly in the discarded weight.

    The energy of a truncated state is linear in its discarded weight w (Legeza and Fath, PRB 53,
    14349 (1996)). Correlators follow on the average; but the amplitude that is missing from the
    state is sqrt(w), and single elements are off by as much: their bias is at least what sqrt(w)
    makes of the last step. The last three stages (two, if there are no three with falling weights)
    are fitted by least squares with weights 1/w^2, since the deviation of a stage from the line
    grows with w.

    The bias is the distance to the last value. Where a line is not justified, the value is the last
    one and the bias the last step: element by element if the line would move it by more than that
    step, and everywhere if the weight did not fall. With one stage the bias is NaN: not estimated.

    Parameters
    ----------
    weights : array, shape (K,)
        Discarded weight of every stage, in the order of growing bond dimension.
    values : array, shape (K, ...)
        What was measured at every stage.
    variational : bool
        Whether errors are of second order in the missing amplitude: the total energy.
    """
    weights, values = np.asarray(weights, float), np.asarray(values, float)
    last = values[-1]
    if len(weights) == 1:
        exact = weights[-1] <= NEGLIGIBLE
        return Extrapolated(last, np.full(last.shape, weights[-1] if exact else np.nan))
    step = np.abs(values[-2] - last)
    # an amplitude of sqrt(w) is missing from the state
    amplitude = min(1.0, np.sqrt(weights[-1] / max(weights[-2], weights[-1], 1e-300)))
    if weights[-1] <= NEGLIGIBLE:  # a line through rounding means nothing
        return Extrapolated(last, step * amplitude)
    if weights[-1] > FALL * weights[-2]:
        return Extrapolated(last, step)
    three = len(weights) >= 3 and weights[-2] < FALL * weights[-3]
    used = slice(-3 if three else -2, None)
    w = weights[used]
    design = np.stack([np.ones_like(w), w], axis=1) / w[:, None]
    weighted = values[used].reshape(len(w), -1) / w[:, None]
    limit = np.linalg.lstsq(design, weighted, rcond=None)[0][0].reshape(last.shape)
    justified = np.abs(limit - last) <= step
    bias = np.where(justified, np.abs(limit - last), step)
    if not variational:
        bias = np.maximum(bias, step * amplitude / (1 - amplitude))
    return Extrapolated(np.where(justified, limit, last), bias)
