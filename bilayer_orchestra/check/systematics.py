"""Named systematic errors of a result: what a difference may be without any disagreement."""

from __future__ import annotations

import numpy as np
import xarray as xr

from bilayer_orchestra.check.elements import Elements
from bilayer_orchestra.terms import FloatArray


def systematic_terms(dataset: xr.Dataset, elements: Elements) -> dict[str, FloatArray]:
    """Return name -> size (p,) of the systematic errors; NaN where one is not estimated."""
    match dataset.attrs["backend"]:
        case "alf":
            return {"Trotter": elements.bias}
        case "block2" | "itensor":
            return {"truncation": elements.bias}
        case _:
            return {}


def unestimated(terms: dict[str, FloatArray]) -> list[str]:
    """Return the names of systematic errors that are not estimated."""
    return [name for name, size in terms.items() if np.isnan(size).any()]
