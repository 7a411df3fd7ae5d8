"""What probably went wrong, once two results differ.

A convention that was mixed up leaves a trace that can be tested: undo it in one of the results, and
see whether the difference is gone. Each hypothesis is one line in :data:`HYPOTHESES`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from bilayer_orchestra.checking.elements import vector
from bilayer_orchestra.terms import FloatArray

if TYPE_CHECKING:
    from bilayer_orchestra.checking.verdict import Finding

#: A hypothesis explains a difference if it leaves less than this part of its square...
EXPLAINED = 0.05
#: ...and everything within this many errors.
SIGMAS = 5.0

Undo = Callable[[xr.Dataset, str], "xr.DataArray | None"]


def _two_point(array: xr.DataArray) -> bool:
    return "x_" in array.dims


def _exchanged(*dims: str) -> Undo:
    """Reverse the order of the values along ``dims``, leaving the labels."""

    def undo(dataset: xr.Dataset, name: str) -> xr.DataArray | None:
        array = dataset[name]
        present = [dim for dim in dims if dim in array.dims]
        if not present:
            return None
        flipped = array.isel({dim: slice(None, None, -1) for dim in present})
        return flipped.assign_coords({dim: array[dim] for dim in present})

    return undo


def _rolled(step: int, *dims: str) -> Undo:
    def undo(dataset: xr.Dataset, name: str) -> xr.DataArray | None:
        array = dataset[name]
        present: dict[Hashable, int] = {dim: step for dim in dims if dim in array.dims}
        return array.roll(present, roll_coords=False) if present else None

    return undo


def _factor(value: float) -> Undo:
    return lambda dataset, name: value * dataset[name]


def _sign_between_layers(dataset: xr.Dataset, name: str) -> xr.DataArray | None:
    array = dataset[name]
    return array.where(array["layer"] == array["layer_"], -array) if _two_point(array) else None


def _transposed(dataset: xr.Dataset, name: str) -> xr.DataArray | None:
    array = dataset[name]
    if not _two_point(array):
        return None
    swapped = array.rename({"x": "x_", "x_": "x"})
    return swapped.transpose(*array.dims)


def _with_product(sign: float) -> Undo:
    """Add or remove <n_i><n_j>."""

    def undo(dataset: xr.Dataset, name: str) -> xr.DataArray | None:
        if name != "density_density" or "density" not in dataset:
            return None
        density = dataset["density"].sum("spin")
        other = density.rename({"layer": "layer_", "x": "x_"})
        return dataset[name] + sign * density * other

    return undo


HYPOTHESES: dict[str, Undo] = {
    "is twice as large (summed over spins?)": _factor(0.5),
    "is half as large": _factor(2.0),
    "has the opposite sign": _factor(-1.0),
    "has the opposite sign between the layers (sign of t_perp, or a fermion sign)": (
        _sign_between_layers
    ),
    "has its layers exchanged": _exchanged("layer", "layer_"),
    "has its spins exchanged": _exchanged("spin"),
    "is reflected, x -> L - 1 - x": _exchanged("x", "x_"),
    "is shifted by one site": _rolled(1, "x", "x_"),
    "is shifted by one site (backwards)": _rolled(-1, "x", "x_"),
    "has x and x' exchanged between different layers": _transposed,
    "is not connected (contains <n_i><n_j>)": _with_product(-1.0),
    "has <n_i><n_j> subtracted twice": _with_product(1.0),
}


def likely_cause(
    first: xr.Dataset,
    second: xr.Dataset,
    labels: tuple[str, str],
    findings: Sequence[Finding],
) -> str:
    """Return what probably makes two results differ, or "" if nothing fits."""
    different = [f for f in findings if f.word == "disagree" and f.test is not None]
    causes = []
    for dataset, label in zip((first, second), labels, strict=True):
        if not dataset.attrs["converged"]:
            causes.append(f"{label} did not converge: {dataset.attrs['converged_reason']}")
    unknown = {
        what
        for finding in different
        for what, size in finding.sizes.items()
        if np.isnan(size).any()
    }
    causes += [f"the error from {what} is not estimated" for what in sorted(unknown)]
    for finding in different:
        text = _convention(first, second, labels, finding)
        if text:
            causes.append(text)
    energy = _energy_shift(first, second, labels, different)
    if energy:
        causes.append(energy)
    if not causes:
        causes = _patterns(first, second, labels, findings)
    return "; ".join(dict.fromkeys(causes))


def _convention(
    first: xr.Dataset, second: xr.Dataset, labels: tuple[str, str], finding: Finding
) -> str:
    name, test = finding.name, finding.test
    assert test is not None
    reference, changed = vector(first[name], name), vector(second[name], name)
    before = _distance(reference - changed, test.stderr, test.allowance)
    for text, undo in HYPOTHESES.items():
        array = undo(second, name)
        if array is None:
            continue
        after = _distance(reference - vector(array, name), test.stderr, test.allowance)
        if after[0] < EXPLAINED * before[0] and after[1] < SIGMAS:
            return f"{name} of {labels[1]} {text}, compared with {labels[0]}"
    return ""


def _distance(
    difference: FloatArray, stderr: FloatArray, allowance: FloatArray
) -> tuple[float, float]:
    """Return (sum of squares, largest deviation in errors)."""
    scale = float(np.abs(difference).max(initial=0.0)) or 1.0
    error = np.maximum(stderr + np.nan_to_num(allowance), 1e-6 * scale + 1e-7)
    return float(np.sum(difference**2)), float(np.abs(difference / error).max(initial=0.0))


def _energy_shift(
    first: xr.Dataset, second: xr.Dataset, labels: tuple[str, str], different: Sequence[Finding]
) -> str:
    """Notice an energy that contains -mu N although its parts agree."""
    names = {finding.name for finding in different}
    if "energy" not in names or names & {"density", "interaction_energy"}:
        return ""
    shift = float(second["energy"] - first["energy"])
    return f"only the energy differs, by {shift:.6g}: does {labels[1]} count the -mu N terms?"


def _patterns(
    first: xr.Dataset, second: xr.Dataset, labels: tuple[str, str], findings: Sequence[Finding]
) -> list[str]:
    """Name what the differing observables have in common."""
    tests = {f.name: f.test for f in findings if f.test is not None}
    different = {f.name for f in findings if f.word == "disagree"}
    widths = [t.width for t in tests.values() if t.stochastic and np.isfinite(t.width)]
    pulls = [float(np.abs(t.pulls).max()) for t in tests.values() if t.stochastic]
    if widths and min(widths) > 1.3 and max(widths) < 5 and max(pulls) < 3.5 * max(widths):
        return [f"all pulls are wide alike: stated errors too small by {np.median(widths):.2g}?"]
    causes = []
    if "density" in different:
        total = [float(d["density"].sum()) for d in (first, second)]
        if abs(total[0] - total[1]) > 1e-6:
            causes.append(
                f"{total[0]:.4g} electrons in {labels[0]}, {total[1]:.4g} in {labels[1]}: chemical "
                "potential (a shift by U/2?), temperature or interaction differ"
            )
        else:
            causes.append("charge is distributed differently: couplings or boundary differ")
    elif different:
        causes.append(f"only {', '.join(sorted(different))} differ: their definition or estimator")
    return causes
