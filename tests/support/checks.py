"""The verdict on two results."""

from __future__ import annotations

import xarray as xr

from bilayer_orchestra.checking.comparison import Pair
from bilayer_orchestra.checking.verdict import PairVerdict, judge_all


def judge(a: xr.Dataset, b: xr.Dataset) -> PairVerdict:
    """Compare every observable of two results of the same state."""
    return judge_all([Pair(a, b, (a.attrs["backend"], b.attrs["backend"]))])[0]
