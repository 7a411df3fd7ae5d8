"""What the figures of a study share: its points, their names, panels."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.figure import Figure as Picture

from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.plots.common import panels
from bilayer_orchestra.study.axes import shown


def grid(rows: int, columns: int) -> tuple[Picture, np.ndarray]:
    """Return a picture and its axes (rows, columns), with room for what stands above and below."""
    return panels(rows, columns, 3.6, 3.2 + 0.6 / rows)


def legend(picture: Picture) -> None:
    """Name the curves of all panels, each name once."""
    named = {
        label: handle
        for axis in picture.axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
        if label
    }
    if named:
        picture.legend(named.values(), named.keys(), loc="outside right center", fontsize="small")


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
    return iter(mpl.colormaps["viridis"](np.linspace(0.0, 0.85, max(number, 1))))
