"""What the figures of a study share: its points, their names, curves against distance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.plotting import by_distance
from bilayer_orchestra.study.axes import shown

#: Distances that get a tick on a logarithmic axis.
TICKS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 200, 500)


@dataclass(frozen=True)
class Curve:
    """A correlation within one layer against distance.

    Parameters
    ----------
    r : array
        Distances >= 1 (on a ring the shorter way).
    mean, error : array
        Mean over all pairs of sites at each distance, and its error as if the errors of the pairs
        were the same error: an upper bound.
    """

    r: np.ndarray
    mean: np.ndarray
    error: np.ndarray

    def scaled(self, factor: float) -> Curve:
        """Return ``factor`` times this curve."""
        return Curve(self.r, factor * self.mean, abs(factor) * self.error)


def inner(length: int) -> slice:
    """Return the sites of an open chain whose pairs are averaged: a sixth at each end is left out.

    The ends mix boundary effects into every distance, and the largest distances consist of them.
    """
    return slice(length // 6, length - length // 6)


def curve(point: xr.Dataset, name: str, layer: str, periodic: bool) -> Curve:
    """Return one correlation of one point of a study; without the ends of an open chain."""
    point = point if periodic else point.isel(dict.fromkeys(("x", "x_"), inner(point.sizes["x"])))
    r, groups = by_distance(point[name], layer, periodic)
    mean = np.array([group.mean() for group in groups])
    error = np.zeros(len(r))
    for suffix in ("_stderr", "_bias"):
        if f"{name}{suffix}" in point:
            _, parts = by_distance(point[f"{name}{suffix}"], layer, periodic)
            part = np.array([np.abs(group).mean() for group in parts])
            error = np.hypot(error, np.nan_to_num(part))
    return Curve(r, mean, error)


def draw(axis: Axes, one: Curve, colour: object, label: str = "", style: str = "-") -> None:
    """Draw the magnitude; open markers are negative values."""
    size = np.abs(one.mean)
    axis.plot(one.r, size, style, lw=1.2, color=colour, alpha=0.8, label=label)
    for sign, face in ((1, colour), (-1, "white")):
        chosen = np.sign(one.mean) == sign
        axis.errorbar(
            one.r[chosen],
            size[chosen],
            np.minimum(one.error[chosen], 0.999 * size[chosen]),
            fmt="o",
            ms=4,
            lw=1,
            color=colour,
            markerfacecolor=face,
        )


def grid(rows: int, columns: int) -> tuple[Picture, np.ndarray]:
    """Return a picture and its axes (rows, columns)."""
    return plt.subplots(
        rows,
        columns,
        figsize=(3.4 * columns, 3.2 * rows),
        layout="constrained",
        squeeze=False,
    )


def log_log(axis: Axes, length: int, title: str) -> None:
    """Scales on which a power law is a straight line."""
    axis.set(xscale="log", yscale="log", xlabel="distance $r$")
    axis.set_title(title, fontsize="small")
    ticks = [r for r in TICKS if r < length]
    axis.set_xticks(ticks, [str(r) for r in ticks])
    axis.minorticks_off()
    axis.grid(alpha=0.25)


def legend(axis: Axes) -> None:
    """Name the curves, if any could be drawn."""
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize="x-small")


def positions(dataset: xr.Dataset, axis: str | None) -> list[tuple[str, xr.Dataset]]:
    """Return (name, dataset) of every position on ``axis``; without one, the dataset alone."""
    if axis is None:
        return [("", dataset)]
    return [
        (f"{axis} = {shown(value)}", dataset.isel({axis: k}))
        for k, value in enumerate(dataset[axis].values.tolist())
    ]


def single(dataset: xr.Dataset, name: str) -> xr.Dataset:
    """Return ``dataset`` without the dimensions of length 1 that the study has beyond ``name``'s.

    Raises
    ------
    OrchestraError
        If several points are left, which a panel cannot tell apart.
    """
    own = {"layer", "x", "layer_", "x_", "spin"}
    extra = [str(dim) for dim in dataset[name].dims if dim not in own]
    several = [dim for dim in extra if dataset.sizes[dim] > 1]
    if several:
        raise OrchestraError(
            f"the figure leaves the axis {several[0]} open; name it as `along` or `panels`"
        )
    return dataset.isel(dict.fromkeys(extra, 0))


def missing(point: xr.Dataset, name: str) -> bool:
    """Whether a point of the study has no result yet."""
    return name not in point or bool(np.isnan(point[name].values).all())


def unsure(point: xr.Dataset) -> str:
    """Return a note for a legend if the point is not converged."""
    return "" if "converged" not in point or int(point["converged"]) == 1 else " (not converged)"


def colours(number: int) -> Iterator[object]:
    """Return ``number`` colours in the order of a quantity."""
    return iter(plt.get_cmap("viridis")(np.linspace(0.0, 0.85, max(number, 1))))
