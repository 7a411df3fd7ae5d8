"""What every result must fulfil by its definitions, whatever the model: a broken file shows here.

These relations hold for each sample of a Monte Carlo run and for every state of a DMRG run, so a
violation is no matter of statistics. They are read from the labelled arrays alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from bilayer_orchestra.checking.classes import natural_scale
from bilayer_orchestra.checking.statistics import RESOLUTION, ROUNDING
from bilayer_orchestra.observables import OBSERVABLES
from bilayer_orchestra.terms import Terms

#: Allowed violation in stated errors: extrapolation treats every element by itself.
SIGMAS = 6.0
#: Stated errors are the norm of the stated deviations; this much may be rounding or convention.
SAME_ERROR = 0.1


def inconsistencies(dataset: xr.Dataset, terms: Terms | None) -> list[str]:
    """Return one sentence per definition that ``dataset`` violates; empty if it is sound.

    Parameters
    ----------
    dataset : Dataset
        A result.
    terms : Terms or None
        What was solved, for the scale on which values vanish; see :func:`natural_scale`.
    """
    scaled = _Scaled(dataset, terms)
    return [*_finite(dataset), *_errors(dataset), *_symmetric(scaled), *_definitions(scaled)]


@dataclass(frozen=True)
class _Scaled:
    """A result and the scale of its observables."""

    dataset: xr.Dataset
    terms: Terms | None

    def allowed(self, name: str, values: xr.DataArray) -> xr.DataArray:
        """Violation that the stated errors of an observable explain, element by element.

        Bias counts: elements are extrapolated one by one, so that sums and differences of them
        agree within it and not to rounding. So do statistical errors: connected functions and
        extrapolated ones have their noise removed observable by observable.
        """
        dataset = self.dataset
        largest = float(np.abs(values.values).max(initial=0.0))
        rounding = ROUNDING * largest + RESOLUTION * natural_scale(name, self.terms)
        allowed = xr.zeros_like(dataset[name]) + rounding
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


def _symmetric(result: _Scaled) -> Iterator[str]:
    dataset = result.dataset
    for name, observable in OBSERVABLES.items():
        if name not in dataset or "x_" not in observable.dims:
            continue
        values = dataset[name]
        other = values.rename({"layer": "layer_", "layer_": "layer", "x": "x_", "x_": "x"})
        # labels decide, not positions: a file with its layers in another order is no error
        difference = abs(values - other.transpose(*values.dims).reindex_like(values))
        yield from _violation(f"{name} is not symmetric", difference, result.allowed(name, values))


def _definitions(result: _Scaled) -> Iterator[str]:
    """Elements that two observables share."""
    dataset = result.dataset
    if {"pair", "double_occupancy"} <= set(dataset):
        yield from _same(
            result,
            "the diagonal of pair is not double_occupancy",
            (_diagonal(dataset["pair"]), "pair"),
            (dataset["double_occupancy"], "double_occupancy"),
        )
    if {"green", "density"} <= set(dataset):
        yield from _same(
            result,
            "the diagonal of green is not density",
            (_diagonal(dataset["green"]), "green"),
            (dataset["density"], "density"),
        )
    if {"kinetic_energy", "interaction_energy", "energy"} <= set(dataset):
        yield from _same(
            result,
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
                    result,
                    f"the diagonal of {name} is not {what}",
                    (_diagonal(dataset[name]), name),
                    (expected, "density"),
                )


def _same(
    result: _Scaled,
    text: str,
    one: tuple[xr.DataArray, str],
    other: tuple[xr.DataArray, str],
) -> Iterator[str]:
    (left, left_name), (right, right_name) = one, other
    allowed = result.allowed(left_name, left) + result.allowed(right_name, right)
    yield from _violation(text, abs(left - right), allowed)


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
    same = matrix.reindex({f"{dim}_": matrix[dim].values for dim in ("layer", "x")})
    same = same.transpose(..., "layer", "x", "layer_", "x_")
    return xr.DataArray(
        np.einsum("...axax->...ax", same.values),
        {dim: same[dim] for dim in same.dims[:-2] if dim in same.coords},
        same.dims[:-2],
    )
