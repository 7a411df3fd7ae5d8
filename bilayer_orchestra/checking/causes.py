"""What probably went wrong, once two results differ.

A convention that was mixed up leaves a trace that can be tested: undo it in one of the results, and
see whether the difference is gone. The mistakes that are looked for are those of :func:`_undone`.
"""

from collections.abc import Hashable, Iterator, Sequence

import numpy as np
import xarray as xr

from bilayer_orchestra.checking.comparison import Finding, Pair
from bilayer_orchestra.checking.elements import vector
from bilayer_orchestra.checking.statistics import Test
from bilayer_orchestra.dataset.reading import density_product

#: A mistake explains a difference if undoing it leaves less than this part of its square...
EXPLAINED = 0.05
#: ...and everything within this many errors.
SIGMAS = 5.0
#: No error is smaller than this: differences of it are rounding.
RESOLVED = 1e-7


def likely_cause(pair: Pair, findings: Sequence[Finding]) -> str:
    """Return what probably makes two results differ, or "" if nothing fits."""
    different = {f.name: (f.sizes, f.test) for f in findings if f.word == "disagree" and f.test}
    causes = [
        f"{label} did not converge: {dataset.attrs['converged_reason']}"
        for label, dataset in pair.sides()
        if not dataset.attrs["converged"]
    ]
    stated = [item for sizes, _ in different.values() for item in sizes.items()]
    unknown = {what for what, size in stated if np.isnan(size).any()}
    causes += [f"the error from {what} is not estimated" for what in sorted(unknown)]
    causes += [_convention(pair, name, test) for name, (_, test) in different.items()]
    if "energy" in different and not {"density", "interaction_energy"} & set(different):
        shift = float(pair.second["energy"] - pair.first["energy"])
        counted = f"does {pair.labels[1]} count the -mu N terms?"
        causes.append(f"only the energy differs, by {shift:.6g}: {counted}")
    causes = [cause for cause in causes if cause] or _patterns(pair, findings)
    return "; ".join(dict.fromkeys(causes))


def _convention(pair: Pair, name: str, test: Test) -> str:
    reference = vector(pair.first[name], name)
    error = np.maximum(test.stderr + np.nan_to_num(test.allowance), RESOLVED)
    for text, undone in _undone(pair.second, name):
        left = reference - vector(undone, name)
        explained = np.sum(left**2) < EXPLAINED * np.sum(test.difference**2)
        if explained and np.all(np.abs(left) < SIGMAS * error):
            return f"{name} of {pair.labels[1]} {text}, compared with {pair.labels[0]}"
    return ""


def _undone(dataset: xr.Dataset, name: str) -> Iterator[tuple[str, xr.DataArray]]:
    """Yield what may be wrong with an observable, and the observable without it."""
    array = dataset[name]
    yield "is twice as large (summed over spins?)", array / 2
    yield "is half as large", 2 * array
    yield "has the opposite sign", -array
    if "x_" in array.dims:
        signed = array.where(array["layer"] == array["layer_"], -array)
        yield "has the opposite sign between the layers (of their hopping, or of fermions)", signed
    for text, exchanged in (
        ("has its layers exchanged", ("layer", "layer_")),
        ("has its spins exchanged", ("spin",)),
        ("is reflected, x -> L - 1 - x", ("x", "x_")),
    ):
        there = [dim for dim in exchanged if dim in array.dims]
        yield text, array.assign_coords({dim: array[dim].values[::-1] for dim in there})
    for text, step in (("", 1), (" (backwards)", -1)):
        shifts: dict[Hashable, int] = {dim: step for dim in array.dims if dim in ("x", "x_")}
        yield f"is shifted by one site{text}", array.roll(shifts, roll_coords=False)
    if "x_" in array.dims:
        swapped = array.rename({"x": "x_", "x_": "x"})
        yield "has x and x' exchanged between different layers", swapped
    if name == "density_density" and "density" in dataset:
        product = density_product(dataset["density"])
        yield "is not connected (contains <n_i><n_j>)", array - product
        yield "has <n_i><n_j> subtracted twice", array + product


def _patterns(pair: Pair, findings: Sequence[Finding]) -> list[str]:
    """Name what the differing observables have in common."""
    sampled = [f.test for f in findings if f.test and f.test.stochastic]
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
