"""Sizes of errors: what those of one observable have in common, and what is rounding."""

from __future__ import annotations

import numpy as np

from bilayer_orchestra.terms import FloatArray

#: No element's error is below this share of the root mean square over its observable: an estimate
#: from a change vanishes where the change crosses zero, the error does not. docs/decisions/0005.
COMMON_SHARE = 0.5
#: Rounding of sampled averages, in units of the largest value or of one (free fermions, which have
#: no other error, against closed forms: up to 1.3e-12). Nothing this small is a fluctuation.
ROUNDING = 1e-11


def at_least_common(sizes: FloatArray, share: float = COMMON_SHARE) -> FloatArray:
    """Return ``sizes``, raised to a share of their root mean square; NaN stays NaN."""
    return np.asarray(np.maximum(sizes, share * np.sqrt(np.mean(sizes**2))))
