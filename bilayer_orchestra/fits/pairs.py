"""One layer's two-point function out of a labelled dataset, and windows of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bilayer_orchestra.dataset.reading import by_site
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.observables import TWO_POINT
from bilayer_orchestra.terms import FloatArray, Site

IntArray = NDArray[np.int_]


@dataclass(frozen=True)
class Pairs:
    """All pairs x < y of one layer; x and y count from 1.

    Parameters
    ----------
    values, bias : array, shape (n,)
        Bias is NaN where it was not estimated.
    stderr : array, shape (n,), or None
        None: the engine has no statistical error.
    deviations : array, shape (blocks, n)
        No rows if there are none; see the dataset's definition.
    degrees : float
        Degrees of freedom of the covariance.
    beta : float or None
        Inverse temperature; None at T = 0.
    filling : float
        Particles of one spin per site, averaged over the layer; without densities: pairs per site.
        NaN: unknown.
    """

    x: IntArray
    y: IntArray
    values: FloatArray
    bias: FloatArray
    stderr: FloatArray | None
    deviations: FloatArray
    degrees: float
    length: int
    periodic: bool
    beta: float | None
    filling: float = np.nan

    @property
    def statistical(self) -> bool:
        """Whether the values carry statistical errors."""
        return self.stderr is not None

    @property
    def distance(self) -> IntArray:
        """Distance of every pair; the shorter way on a ring."""
        r = np.abs(self.y - self.x)
        return np.asarray(np.minimum(r, self.length - r) if self.periodic else r)


@dataclass(frozen=True)
class Series:
    """What one fit sees: pairs of a window, averaged over groups of pairs.

    The fitted function is averaged over the same pairs, so that grouping costs no accuracy.

    Parameters
    ----------
    x, y : array, shape (pairs,)
        Sorted by group.
    starts : array, shape (p,)
        Where each group begins.
    r : array, shape (p,)
        Distance of each group.
    values, bias, scale : array, shape (p,)
        ``scale`` is the magnitude that relative errors refer to.
    stderr : array, shape (p,), or None
    deviations : array, shape (blocks, p)
    """

    x: FloatArray
    y: FloatArray
    starts: IntArray
    r: IntArray
    values: FloatArray
    bias: FloatArray
    scale: FloatArray
    stderr: FloatArray | None
    deviations: FloatArray
    degrees: float
    length: int

    def average(self, per_pair: FloatArray) -> FloatArray:
        """Return group means of an array (pairs, ...)."""
        if len(self.starts) == len(self.x):
            return per_pair
        return _group_mean(per_pair, self.starts)

    def selected(self, keep: NDArray[np.bool_]) -> Series:
        """Return the groups where ``keep`` (p,) holds."""
        counts = np.diff([*self.starts, len(self.x)])
        pairs = np.repeat(keep, counts)
        return replace(
            self,
            x=self.x[pairs],
            y=self.y[pairs],
            starts=np.concatenate([[0], np.cumsum(counts[keep])[:-1]]).astype(int),
            r=self.r[keep],
            values=self.values[keep],
            bias=self.bias[keep],
            scale=self.scale[keep],
            stderr=None if self.stderr is None else self.stderr[keep],
            deviations=self.deviations[:, keep],
        )


def _group_mean(per_pair: FloatArray, starts: IntArray) -> FloatArray:
    counts = np.diff([*starts, len(per_pair)])
    total = np.add.reduceat(per_pair, starts, axis=0)
    return np.asarray(total / counts.reshape(-1, *(1,) * (per_pair.ndim - 1)))


def pairs_of(
    dataset: xr.Dataset, name: str, layer: str, periodic: bool, beta: float | None
) -> Pairs:
    """Return observable ``name`` within ``layer``, both spins averaged.

    Parameters
    ----------
    dataset : Dataset
        One point: no dimension beyond those of the observable (and ``block``). Positions without
        values (a shorter chain in a sweep over lengths) are left out.

    Raises
    ------
    OrchestraError
        If the observable, the layer or the values are missing.
    """
    if name not in dataset:
        raise OrchestraError(f"the dataset has no {name}; add it to the model's observables")
    if layer not in dataset["layer"].values:
        known = ", ".join(str(one) for one in dataset["layer"].values)
        raise OrchestraError(f"there is no layer {layer!r}; the layers are {known}")

    sites = [Site(layer, x) for x in dataset["x"].values.tolist()]

    def matrix(variable: xr.DataArray) -> FloatArray:
        inside = variable.mean("spin") if "spin" in variable.dims else variable
        extra = set(map(str, inside.dims)) - {"block", *TWO_POINT}
        if extra:
            raise OrchestraError(f"{variable.name} has the extra dimensions {sorted(extra)}")
        array = by_site(inside, sites).astype(float)
        return np.asarray(0.5 * (array + np.swapaxes(array, -1, -2)))

    values = matrix(dataset[name])
    present = ~np.isnan(values).all(axis=0)
    length = int(present.sum())
    if length == 0:
        raise OrchestraError(f"{name} has no values")
    if np.isnan(values[np.ix_(present, present)]).any():
        raise OrchestraError(f"{name} of layer {layer} has gaps (NaN)")
    i, j = np.triu_indices(length, 1)
    where = np.flatnonzero(present)
    rows, columns = where[i], where[j]
    n = len(rows)
    bias = np.full(n, np.nan)
    if f"{name}_bias" in dataset:
        bias = matrix(dataset[f"{name}_bias"])[rows, columns]
    stderr, deviations, degrees = None, np.zeros((0, n)), np.inf
    if f"{name}_deviation" in dataset:
        all_deviations = matrix(dataset[f"{name}_deviation"])[:, rows, columns]
        deviations = all_deviations[~np.isnan(all_deviations).any(axis=1)]
        deviations = deviations[(deviations != 0).any(axis=1)]  # a sweep pads with zeros or NaN
        degrees = float(
            dataset[name].attrs.get("covariance_degrees_of_freedom", len(deviations) - 1)
        )
        degrees = min(degrees, len(deviations) - 1.0)
    if len(deviations):
        stderr = np.sqrt(np.sum(deviations**2, axis=0))
    elif f"{name}_stderr" in dataset:
        given = matrix(dataset[f"{name}_stderr"])[rows, columns]
        if np.isfinite(given).all() and (given > 0).any():
            stderr = given
    return Pairs(
        i + 1,
        j + 1,
        values[rows, columns],
        bias,
        stderr,
        deviations,
        degrees,
        length,
        periodic,
        beta,
        _filling(dataset, layer, np.diag(values)[present] if name == "pair" else None),
    )


def _filling(dataset: xr.Dataset, layer: str, pairs: FloatArray | None) -> float:
    if "density" in dataset:
        density = dataset["density"].sel(layer=layer)
        mean = float(density.mean())
        if np.isfinite(mean):
            return mean if "spin" in density.dims else mean / 2
    return np.nan if pairs is None else float(np.mean(pairs))


def series_of(pairs: Pairs, edge: int, grouped: bool, envelope: bool) -> Series:
    """Return all pairs whose members are at least ``edge`` sites into an open chain.

    Parameters
    ----------
    edge : int
        The first site has 1. Ignored on a ring, where all places are equal.
    grouped : bool
        Average over all pairs of the same distance. Always on a ring.
    envelope : bool
        Whether ``scale`` is the typical magnitude around a distance (for what changes sign)
        instead of that of the value itself.
    """
    keep = np.ones(len(pairs.x), dtype=bool)
    if not pairs.periodic:
        keep = (pairs.x >= edge) & (pairs.y <= pairs.length + 1 - edge)
    chosen = np.flatnonzero(keep)
    if not len(chosen):
        raise OrchestraError(f"no pairs are left {edge} sites away from the ends")
    order = chosen[np.argsort(pairs.distance[chosen], kind="stable")]
    r = pairs.distance[order]
    distances, starts = np.unique(r, return_index=True)
    if not (grouped or pairs.periodic):
        distances, starts = r, np.arange(len(r))

    def mean(array: FloatArray) -> FloatArray:
        return array if len(starts) == len(order) else _group_mean(array, starts)

    values = mean(pairs.values[order])
    # pairs of equal distance fluctuate together: without deviations nothing is gained by averaging
    stderr = None if pairs.stderr is None else mean(pairs.stderr[order])
    deviations = mean(pairs.deviations[:, order].T).T
    if len(deviations):
        stderr = np.sqrt(np.sum(deviations**2, axis=0))
    return Series(
        pairs.x[order].astype(float),
        pairs.y[order].astype(float),
        starts,
        distances,
        values,
        mean(pairs.bias[order]),
        _envelope(distances, values) if envelope else np.abs(values),
        stderr,
        deviations,
        pairs.degrees,
        pairs.length,
    )


def _envelope(r: IntArray, values: FloatArray) -> FloatArray:
    """Root mean square of the values whose distance differs by at most two."""
    distances = np.unique(r)
    square = np.array([np.mean(values[np.abs(r - one) <= 2] ** 2) for one in distances])
    return np.asarray(np.sqrt(square))[np.searchsorted(distances, r)]
