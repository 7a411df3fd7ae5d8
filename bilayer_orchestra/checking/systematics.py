"""Named systematic errors of a result: what a difference may be without any disagreement.

Judged by what the dataset states, whoever computed it: an error that is named and not a number, or
no statement at all, counts as not estimated, never as zero.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from bilayer_orchestra.checking.elements import Elements
from bilayer_orchestra.dataset.statement import NOT_STATED, systematics_of
from bilayer_orchestra.terms import FloatArray


def systematic_terms(dataset: xr.Dataset, elements: Elements) -> dict[str, FloatArray]:
    """Return name -> size (p,) of the systematic errors; NaN where one is not estimated."""
    named = systematics_of(dataset)
    if named is None:
        return {NOT_STATED: np.full_like(elements.bias, np.nan)}
    return {" and ".join(named): at_least_typical(elements.bias)} if named else {}


def at_least_typical(size: FloatArray) -> FloatArray:
    """Return ``size``, raised to its root mean square where it is smaller.

    An error that is estimated from a change vanishes wherever the change happens to cross zero;
    what was left out of the estimate does not vanish there.
    """
    return np.asarray(np.maximum(size, np.sqrt(np.mean(size**2))))


def unestimated(terms: dict[str, FloatArray]) -> list[str]:
    """Return the names of systematic errors that are not estimated."""
    return [name for name, size in terms.items() if np.isnan(size).any()]
