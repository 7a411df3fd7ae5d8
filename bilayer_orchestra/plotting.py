"""Pictures of results."""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib as mpl
import numpy as np
import xarray as xr

mpl.use("Agg")  # files only; no display is needed, also on a cluster

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

mpl.rcdefaults()  # not those of a matplotlibrc, which may stand in the working directory

COLOURS = {"P": "#b2182b", "M": "#2166ac", "f": "#b2182b", "c": "#2166ac"}
PANELS = (
    ("pair", r"pair  $\langle\Delta^\dagger_i \Delta_j\rangle$"),
    ("spin_flip", r"transverse spin  $\langle S^+_i S^-_j\rangle$"),
    ("density_density", r"density  $|\langle n_i n_j\rangle_c|$"),
    ("spin_spin", r"longitudinal spin  $|\langle S^z_i S^z_j\rangle|$"),
)


def by_distance(
    correlation: xr.DataArray, layer: str, periodic: bool
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return (distances r >= 1, the correlations of all pairs at each r) within one layer.

    Distances on a ring are the shorter way around.
    """
    matrix = correlation.sel(layer=layer, layer_=layer).transpose("x", "x_").values
    length = len(matrix)
    separation = np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
    if periodic:
        separation = np.minimum(separation, length - separation)
    distances = np.arange(1, separation.max() + 1)
    upper = np.triu(np.ones_like(separation, dtype=bool), 1)
    return distances, [matrix[(separation == r) & upper] for r in distances]


def drawable(dataset: xr.Dataset) -> list[tuple[str, str]]:
    """Return (name, title) of the panels: spins for a model of spins, else pairs and density."""
    spins = "spin_flip" in dataset
    wanted = ("spin_flip", "spin_spin") if spins else ("pair", "density_density")
    return [(name, title) for name, title in PANELS if name in wanted and name in dataset]


def draw_correlations(dataset: xr.Dataset, path: Path) -> None:
    """Draw pair and density (or both spin) correlations of both layers, log-log.

    Small points are single pairs of sites, large markers their mean; open markers are negative
    values, shown by their magnitude. A power law is a straight line.
    """
    panels = drawable(dataset)
    periodic = "boundary: periodic" in dataset.attrs["model"]
    figure, axes = plt.subplots(
        1, len(panels), figsize=(5.0 * len(panels), 4.2), layout="constrained", squeeze=False
    )
    for axis, (name, title) in zip(axes[0], panels, strict=True):
        for layer in dataset["layer"].values:
            _draw_layer(axis, dataset, name, str(layer), periodic)
        axis.set(xscale="log", yscale="log", xlabel="distance $r$", title=title)
        length = dataset.sizes["x"]
        ticks = [r for r in (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 200, 500) if r < length]
        axis.set_xticks(ticks, [str(r) for r in ticks])
        axis.minorticks_off() if length < 10 else None
        axis.grid(alpha=0.25, which="both")
        axis.legend(frameon=False)
    unsure = "" if dataset.attrs["converged"] else "   NOT CONVERGED"
    figure.suptitle(
        f"{dataset.attrs['model_name']}: {dataset.attrs['engine']}{unsure}", fontsize="medium"
    )
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write ``figure`` to ``path`` in the format of its suffix, whole or not at all; close it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(temporary, dpi=140, format=path.suffix.removeprefix("."))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
        plt.close(figure)


def _draw_layer(axis: Axes, dataset: xr.Dataset, name: str, layer: str, periodic: bool) -> None:
    distances, groups = by_distance(dataset[name], layer, periodic)
    if not len(distances):
        return
    colour = COLOURS.get(layer, "black")
    for r, group in zip(distances, groups, strict=True):
        axis.plot(np.full(len(group), r), np.abs(group), ".", ms=3, color=colour, alpha=0.35)
    mean = np.array([group.mean() for group in groups])
    axis.plot(distances, np.abs(mean), "-", lw=1, color=colour, alpha=0.6)
    for sign, face in ((1, colour), (-1, "white")):
        chosen = np.sign(mean) == sign
        if chosen.any():
            axis.plot(
                distances[chosen],
                np.abs(mean[chosen]),
                "o",
                color=colour,
                markerfacecolor=face,
                label=f"{layer}" + ("" if sign > 0 else " (negative)"),
            )
