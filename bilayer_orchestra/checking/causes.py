"""What probably went wrong, once two results differ.

A convention that was mixed up leaves a trace that can be tested: undo it in one of the results, and
see whether the difference is gone. Each hypothesis is one line in :data:`HYPOTHESES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from bilayer_orchestra.checking.elements import vector
from bilayer_orchestra.dataset.reading import density_product

if TYPE_CHECKING:
    from bilayer_orchestra.checking.comparison import Pair
    from bilayer_orchestra.checking.statistics import Test
    from bilayer_orchestra.checking.verdict import Finding

#: A hypothesis explains a difference if it leaves less than this part of its square...
EXPLAINED = 0.05
#: ...and everything within this many errors.
SIGMAS = 5.0
#: No error is smaller than this: differences of it are rounding.
RESOLVED = 1e-7

#: (observable, the result that has it) -> the observable without the mistake, or as it is.
Undo = Callable[[xr.DataArray, xr.Dataset], xr.DataArray]


def _reversed(*dims: str) -> Undo:
    """Reverse the order of the values along ``dims``, leaving the labels."""

    def undo(array: xr.DataArray, _: xr.Dataset) -> xr.DataArray:
        axes = tuple(array.dims.index(dim) for dim in dims if dim in array.dims)
        return array.copy(data=np.flip(array.values, axes))

    return undo


def _rolled(step: int) -> Undo:
    return lambda array, _: array.roll(
        {dim: step for dim in ("x", "x_") if dim in array.dims}, roll_coords=False
    )


def _factor(value: float) -> Undo:
    return lambda array, _: value * array


def _sign_between_layers(array: xr.DataArray, _: xr.Dataset) -> xr.DataArray:
    return array.where(array["layer"] == array["layer_"], -array) if "x_" in array.dims else array


def _transposed(array: xr.DataArray, _: xr.Dataset) -> xr.DataArray:
    if "x_" not in array.dims:
        return array
    return array.rename({"x": "x_", "x_": "x"}).transpose(*array.dims)


def _with_product(sign: float) -> Undo:
    """Add or remove <n_i><n_j>."""

    def undo(array: xr.DataArray, dataset: xr.Dataset) -> xr.DataArray:
        if array.name != "density_density" or "density" not in dataset:
            return array
        return array + sign * density_product(dataset["density"])

    return undo


HYPOTHESES: dict[str, Undo] = {
    "is twice as large (summed over spins?)": _factor(0.5),
    "is half as large": _factor(2.0),
    "has the opposite sign": _factor(-1.0),
    "has the opposite sign between the layers (sign of t_perp, or a fermion sign)": (
        _sign_between_layers
    ),
    "has its layers exchanged": _reversed("layer", "layer_"),
    "has its spins exchanged": _reversed("spin"),
    "is reflected, x -> L - 1 - x": _reversed("x", "x_"),
    "is shifted by one site": _rolled(1),
    "is shifted by one site (backwards)": _rolled(-1),
    "has x and x' exchanged between different layers": _transposed,
    "is not connected (contains <n_i><n_j>)": _with_product(-1.0),
    "has <n_i><n_j> subtracted twice": _with_product(1.0),
}


def likely_cause(pair: Pair, findings: Sequence[Finding]) -> str:
    """Return what probably makes two results differ, or "" if nothing fits."""
    different = [f for f in findings if f.word == "disagree" and f.test is not None]
    causes = [
        f"{label} did not converge: {dataset.attrs['converged_reason']}"
        for label, dataset in pair.sides()
        if not dataset.attrs["converged"]
    ]
    unknown = {what for f in different for what, size in f.sizes.items() if np.isnan(size).any()}
    causes += [f"the error from {what} is not estimated" for what in sorted(unknown)]
    causes += [_convention(pair, finding.name, finding.test) for finding in different]
    causes.append(_energy_shift(pair, {finding.name for finding in different}))
    causes = [cause for cause in causes if cause] or _patterns(pair, findings)
    return "; ".join(dict.fromkeys(causes))


def _convention(pair: Pair, name: str, test: Test | None) -> str:
    assert test is not None
    reference, changed = vector(pair.first[name], name), pair.second[name]
    error = np.maximum(test.stderr + np.nan_to_num(test.allowance), RESOLVED)
    for text, undo in HYPOTHESES.items():
        left = reference - vector(undo(changed, pair.second), name)
        explained = np.sum(left**2) < EXPLAINED * np.sum(test.difference**2)
        if explained and np.all(np.abs(left) < SIGMAS * error):
            return f"{name} of {pair.labels[1]} {text}, compared with {pair.labels[0]}"
    return ""


def _energy_shift(pair: Pair, names: set[str]) -> str:
    """Notice an energy that contains -mu N although its parts agree."""
    if "energy" not in names or names & {"density", "interaction_energy"}:
        return ""
    shift = float(pair.second["energy"] - pair.first["energy"])
    return f"only the energy differs, by {shift:.6g}: does {pair.labels[1]} count the -mu N terms?"


def _patterns(pair: Pair, findings: Sequence[Finding]) -> list[str]:
    """Name what the differing observables have in common."""
    sampled = [f.test for f in findings if f.test is not None and f.test.stochastic]
    different = {f.name for f in findings if f.word == "disagree"}
    widths = [test.width for test in sampled if np.isfinite(test.width)]
    largest = max((float(np.abs(test.pulls).max()) for test in sampled), default=0.0)
    if widths and min(widths) > 1.3 and max(widths) < 5 and largest < 3.5 * max(widths):
        return [f"all pulls are wide alike: stated errors too small by {np.median(widths):.2g}?"]
    if "density" not in different:
        names = ", ".join(sorted(different))
        return [f"only {names} differ: their definition or estimator"] if different else []
    one, other = (float(dataset["density"].sum()) for _, dataset in pair.sides())
    if abs(one - other) <= 1e-6:
        return ["charge is distributed differently: couplings or boundary differ"]
    return [
        f"{one:.4g} electrons in {pair.labels[0]}, {other:.4g} in {pair.labels[1]}: chemical "
        "potential (a shift by U/2?), temperature or interaction differ"
    ]
