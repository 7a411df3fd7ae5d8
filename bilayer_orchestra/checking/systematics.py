"""Named systematic errors of a result: what a difference may be without any disagreement."""

from __future__ import annotations

import numpy as np
import xarray as xr

from bilayer_orchestra.checking.elements import Elements
from bilayer_orchestra.terms import FloatArray


def systematic_terms(dataset: xr.Dataset, elements: Elements) -> dict[str, FloatArray]:
    """Return name -> size (p,) of the systematic errors; NaN where one is not estimated."""
    match dataset.attrs["backend"]:
        case "alf":
            return {"Trotter": at_least_typical(elements.bias)}
        case "block2" | "itensor":
            return {"truncation": at_least_typical(elements.bias)}
        case _:
            return {}


def at_least_typical(size: FloatArray) -> FloatArray:
    """Return ``size``, raised to its root mean square where it is smaller.

    An error that is estimated from a change vanishes wherever the change happens to cross zero;
    what was left out of the estimate does not vanish there.
    """
    return np.asarray(np.maximum(size, np.sqrt(np.mean(size**2))))


def unestimated(terms: dict[str, FloatArray]) -> list[str]:
    """Return the names of systematic errors that are not estimated."""
    return [name for name, size in terms.items() if np.isnan(size).any()]
