"""One layer's two-point function out of a labelled dataset, and windows of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bilayer_orchestra.dataset.reading import by_site
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.observables import TWO_POINT
from bilayer_orchestra.terms import FloatArray, Site

IntArray = NDArray[np.int_]
_PER_GROUP = ("values", "bias", "stderr", "scale", "deviations")


@dataclass(frozen=True)
class Pairs:
    """A correlation between pairs x < y of one layer, averaged over p groups of pairs.

    A fitted function is averaged over the same pairs, so that grouping costs no accuracy.

    Parameters
    ----------
    x, y : array, shape (pairs,)
        Positions from 1, sorted by group, groups by distance.
    starts : array, shape (p,)
        Where each group begins.
    values, bias, stderr, scale : array, shape (p,)
        Bias is NaN where it was not estimated; no statistical error is zero everywhere. ``scale``
        is the magnitude that relative errors refer to.
    deviations : array, shape (blocks, p)
        No rows if there are none; see the dataset's definition.
    degrees : float
        Degrees of freedom of the covariance; infinite: no covariance is stored.
    length : int
        Sites of the layer.
    periodic : bool
        Whether it is a ring.
    beta : float or None
        Inverse temperature; None at T = 0.
    filling : float
        Particles of one spin per site, averaged over the layer; without densities: pairs per site.
        NaN: unknown.
    """

    x: IntArray
    y: IntArray
    starts: IntArray
    values: FloatArray
    bias: FloatArray
    stderr: FloatArray
    scale: FloatArray
    deviations: FloatArray
    degrees: float
    length: int
    periodic: bool
    beta: float | None
    filling: float

    @property
    def statistical(self) -> bool:
        """Whether the values carry statistical errors."""
        return bool(self.stderr.any())

    @property
    def r(self) -> IntArray:
        """Distance of every group, shape (p,); the shorter way on a ring."""
        return _distance(self.x, self.y, self.length, self.periodic)[self.starts]

    @property
    def counts(self) -> IntArray:
        """Number of pairs in every group."""
        return np.diff([*self.starts, len(self.x)])

    @property
    def changes_sign(self) -> bool:
        """Whether means at equal distance are negative somewhere, beyond their errors."""
        groups = replace(self, starts=np.unique(self.r, return_index=True)[1])
        mean, error = groups.average(self.values), groups.average(self.stderr)
        negative = (mean < -3 * error) & (np.abs(mean) > 1e-9 * np.abs(self.values).max(initial=0))
        return bool(negative.any())

    def average(self, per_pair: FloatArray) -> FloatArray:
        """Return group means of an array (pairs, ...)."""
        total = np.add.reduceat(per_pair, self.starts, axis=0)
        return np.asarray(total / self.counts.reshape(-1, *(1,) * (per_pair.ndim - 1)))

    def selected(self, keep: NDArray[np.bool_]) -> Pairs:
        """Return the groups where ``keep`` (p,) holds."""
        parts = {name: getattr(self, name)[..., keep] for name in _PER_GROUP}
        counts, pairs = self.counts[keep], np.repeat(keep, self.counts)
        starts = np.cumsum(counts) - counts
        return replace(self, x=self.x[pairs], y=self.y[pairs], starts=starts, **parts)

    def inside(self, edge: int) -> Pairs:
        """Return the pairs at least ``edge`` sites into an open chain, whose first site has 1.

        On a ring, where all places are equal, all pairs.
        """
        keep = self.periodic | ((self.x >= edge) & (self.y <= self.length + 1 - edge))
        if not keep.any():
            raise OrchestraError(f"no pairs are left {edge} sites away from the ends")
        return self.selected(keep)

    def by_distance(self) -> Pairs:
        """Return the means over all pairs of the same distance."""
        groups = replace(self, starts=np.unique(self.r, return_index=True)[1])
        means: dict[str, Any] = {
            name: groups.average(getattr(self, name).T).T for name in _PER_GROUP
        }
        means["scale"] = np.abs(means["values"])
        if len(self.deviations):
            means["stderr"] = np.sqrt(np.sum(means["deviations"] ** 2, axis=0))
        elif self.statistical:
            # pairs of equal distance fluctuate together: nothing is gained by averaging them
            means["deviations"] = np.diag(means["stderr"])
        return replace(groups, **means)

    def enveloped(self) -> Pairs:
        """Return the same with the magnitude around a distance as its scale; for changing signs.

        The root mean square of the values whose distance differs by at most two.
        """
        distances = np.unique(self.r)
        square = [np.mean(self.values[np.abs(self.r - one) <= 2] ** 2) for one in distances]
        return replace(self, scale=np.sqrt(square)[np.searchsorted(distances, self.r)])


def pairs_of(
    dataset: xr.Dataset, name: str, layer: str, periodic: bool, beta: float | None
) -> Pairs:
    """Return an observable within a layer, both spins averaged, every pair for itself.

    Parameters
    ----------
    dataset : Dataset
        One point: no dimension beyond those of the observable (and ``block``). Positions without
        values (a shorter chain in a sweep over lengths) are left out.
    name, layer : str
        A function of two sites, and where both are.
    periodic : bool
        Whether the chain is a ring.
    beta : float or None
        Inverse temperature, 1/energy; None at T = 0.

    Raises
    ------
    OrchestraError
        If values are missing.
    """
    sites = [Site(layer, x) for x in dataset["x"].values.tolist()]

    def matrix(variable: xr.DataArray) -> FloatArray:
        inside = variable.mean("spin") if "spin" in variable.dims else variable
        if extra := set(map(str, inside.dims)) - {"block", *TWO_POINT}:
            raise OrchestraError(f"{variable.name} has the extra dimensions {sorted(extra)}")
        array = by_site(inside, sites).astype(float)
        return np.asarray(0.5 * (array + np.swapaxes(array, -1, -2)))

    values = matrix(dataset[name])
    present = np.flatnonzero(~np.isnan(values).all(axis=0))
    length = len(present)
    if length == 0:
        raise OrchestraError(f"{name} has no values")
    if np.isnan(values[np.ix_(present, present)]).any():
        raise OrchestraError(f"{name} of layer {layer} has gaps (NaN)")
    x, y = np.triu_indices(length, 1)
    order = np.argsort(_distance(x, y, length, periodic), kind="stable")
    x, y = x[order], y[order]

    def of_pairs(suffix: str, missing: FloatArray) -> FloatArray:
        if f"{name}{suffix}" not in dataset:
            return missing
        return matrix(dataset[f"{name}{suffix}"])[..., present[x], present[y]]

    n, degrees = len(x), np.inf
    stderr = of_pairs("_stderr", np.zeros(n))
    deviations = of_pairs("_deviation", np.zeros((0, n)))
    deviations = deviations[~np.isnan(deviations).any(axis=1)]
    deviations = deviations[(deviations != 0).any(axis=1)]  # a sweep pads with zeros or NaN
    if len(deviations):
        stderr = np.sqrt(np.sum(deviations**2, axis=0))
        degrees = dataset[name].attrs.get("covariance_degrees_of_freedom", np.inf)
        degrees = min(float(degrees), len(deviations) - 1.0)
    pairs = Pairs(
        x=x + 1,
        y=y + 1,
        starts=np.arange(n),
        values=of_pairs("", values),
        bias=of_pairs("_bias", np.full(n, np.nan)),
        stderr=stderr if np.isfinite(stderr).all() else np.zeros(n),
        scale=np.abs(of_pairs("", values)),
        deviations=deviations,
        degrees=degrees,
        length=length,
        periodic=periodic,
        beta=beta,
        filling=float(np.mean(np.diag(values)[present])) if name == "pair" else np.nan,
    )
    if "density" in dataset:
        density = dataset["density"].sel(layer=layer)
        mean = float(density.mean())
        if np.isfinite(mean):
            return replace(pairs, filling=mean if "spin" in density.dims else mean / 2)
    return pairs


def _distance(x: IntArray, y: IntArray, length: int, periodic: bool) -> IntArray:
    """Return the distance of every pair; the shorter way on a ring."""
    r = np.abs(y - x)
    return np.asarray(np.minimum(r, length - r) if periodic else r)
