"""What every result must fulfil by its definitions, whatever the model: a broken file shows here.

These relations hold for each sample of a Monte Carlo run and for every state of a DMRG run, so a
violation is no matter of statistics. They are read from the labelled arrays alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from bilayer_orchestra.observables import OBSERVABLES

#: Allowed violation relative to the largest value, where no error is stated.
ROUNDING = 1e-6
#: Allowed violation in stated errors: extrapolation treats every element by itself.
SIGMAS = 6.0
#: Stated errors are the norm of the stated deviations; this much may be rounding or convention.
SAME_ERROR = 0.1


def inconsistencies(dataset: xr.Dataset) -> list[str]:
    """Return one sentence per definition that ``dataset`` violates; empty if it is sound."""
    return [*_finite(dataset), *_errors(dataset), *_symmetric(dataset), *_definitions(dataset)]


def _finite(dataset: xr.Dataset) -> Iterator[str]:
    for name in OBSERVABLES:
        if name in dataset:
            bad = int((~np.isfinite(dataset[name].values)).sum())
            if bad:
                yield f"{name} has {bad} elements that are not finite"


def _errors(dataset: xr.Dataset) -> Iterator[str]:
    for name in OBSERVABLES:
        if f"{name}_stderr" not in dataset:
            continue
        stderr = dataset[f"{name}_stderr"]
        if not (stderr.values >= 0).all():
            yield f"{name}_stderr is negative or NaN somewhere"
            continue
        if f"{name}_deviation" not in dataset:
            continue
        deviations = dataset[f"{name}_deviation"].astype(float)
        norm = xr.apply_ufunc(np.sqrt, (deviations**2).sum("block"))
        ratio = float(stderr.sum()) / max(float(norm.sum()), 1e-300)
        if norm.any() and not abs(ratio - 1.0) <= SAME_ERROR:
            yield f"{name}_stderr is {ratio:.3g} times what {name}_deviation says"


def _symmetric(dataset: xr.Dataset) -> Iterator[str]:
    for name, observable in OBSERVABLES.items():
        if name not in dataset or "x_" not in observable.dims:
            continue
        values = dataset[name]
        other = values.rename({"layer": "layer_", "layer_": "layer", "x": "x_", "x_": "x"})
        # labels decide, not positions: a file with its layers in another order is no error
        difference = abs(values - other.transpose(*values.dims).reindex_like(values))
        yield from _violation(
            f"{name} is not symmetric", difference, _allowed(dataset, name, values)
        )


def _definitions(dataset: xr.Dataset) -> Iterator[str]:
    """Elements that two observables share."""
    if {"pair", "double_occupancy"} <= set(dataset):
        yield from _same(
            dataset,
            "the diagonal of pair is not double_occupancy",
            (_diagonal(dataset["pair"]), "pair"),
            (dataset["double_occupancy"], "double_occupancy"),
        )
    if {"green", "density"} <= set(dataset):
        yield from _same(
            dataset,
            "the diagonal of green is not density",
            (_diagonal(dataset["green"]), "green"),
            (dataset["density"], "density"),
        )
    if {"kinetic_energy", "interaction_energy", "energy"} <= set(dataset):
        yield from _same(
            dataset,
            "energy is not kinetic plus interaction energy",
            (dataset["kinetic_energy"] + dataset["interaction_energy"], "kinetic_energy"),
            (dataset["energy"], "energy"),
        )
    if {"density", "double_occupancy"} <= set(dataset):
        density, doubly = dataset["density"].sum("spin"), dataset["double_occupancy"]
        for name, expected, what in (
            ("density_density", density + 2 * doubly - density**2, "n + 2 d - n^2"),
            ("spin_spin", (density - 2 * doubly) / 4, "(n - 2 d) / 4"),
        ):
            if name in dataset:
                yield from _same(
                    dataset,
                    f"the diagonal of {name} is not {what}",
                    (_diagonal(dataset[name]), name),
                    (expected, "density"),
                )


def _same(
    dataset: xr.Dataset,
    text: str,
    one: tuple[xr.DataArray, str],
    other: tuple[xr.DataArray, str],
) -> Iterator[str]:
    (left, left_name), (right, right_name) = one, other
    allowed = _allowed(dataset, left_name, left) + _allowed(dataset, right_name, right)
    yield from _violation(text, abs(left - right), allowed)


def _allowed(dataset: xr.Dataset, name: str, values: xr.DataArray) -> xr.DataArray:
    """Violation that the stated errors of an observable explain, element by element.

    Bias counts: elements are extrapolated one by one, so that sums and differences of them agree
    within it and not to rounding. So do statistical errors: connected functions and extrapolated
    ones have their noise removed observable by observable.
    """
    scale = float(np.abs(values.values).max(initial=0.0))
    allowed = xr.zeros_like(dataset[name]) + ROUNDING * scale
    bias = np.abs(dataset[f"{name}_bias"])
    if np.isfinite(bias).any():
        allowed = allowed + float(bias.max())
    if f"{name}_stderr" in dataset:
        allowed = allowed + SIGMAS * dataset[f"{name}_stderr"]
    if "x_" in allowed.dims and "x_" not in values.dims:
        allowed = _diagonal(allowed)
    if "spin" in allowed.dims and "spin" not in values.dims:
        allowed = allowed.sum("spin")
    return allowed


def _violation(text: str, difference: xr.DataArray, allowed: xr.DataArray) -> Iterator[str]:
    difference, allowed = xr.align(difference, allowed, join="exact")
    excess = difference - allowed.transpose(*difference.dims)
    if not (excess > 0).any():  # NaN has been said already
        return
    place = excess.fillna(-np.inf).argmax(...) if excess.ndim else {}
    largest = float(difference.isel(place) if place else difference)
    where = " ".join(f"{dim}={difference[dim].values[int(k)]}" for dim, k in place.items())
    yield f"{text} (by {largest:.2g}{' at ' + where if where else ''})"


def _diagonal(matrix: xr.DataArray) -> xr.DataArray:
    """Return the elements with equal sites."""
    layers = matrix["layer"].values
    length = matrix["x"].values
    picked = [
        [matrix.sel(layer=name, layer_=name, x=x, x_=x, drop=True) for x in length]
        for name in layers
    ]
    rows = [xr.concat(row, "x").assign_coords(x=length) for row in picked]
    return xr.concat(rows, "layer").assign_coords(layer=layers)
