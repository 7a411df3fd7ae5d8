"""Correlations against distance: how they decay along an axis, pairs against density."""

from __future__ import annotations

from itertools import chain

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from bilayer_orchestra.observables import OBSERVABLES
from bilayer_orchestra.plots.common import against_distance, curve, draw, log_ordinate
from bilayer_orchestra.plots.study_axes import (
    colours,
    grid,
    legend,
    missing,
    positions,
    single,
    unsure,
)
from bilayer_orchestra.study.axes import shown
from bilayer_orchestra.study.spec import Figure

_NAMES = ("pair", "density_density")


def decay(dataset: xr.Dataset, figure: Figure) -> Picture:
    """Pair and density correlations of both layers, one curve for each value of ``along``."""
    rows = positions(dataset, figure.panels)
    layers = [str(one) for one in dataset["layer"].values]
    columns = [(name, layer) for name in _NAMES for layer in layers]
    picture, axes = grid(len(rows), len(columns))
    for row, (panel, inside) in zip(axes, rows, strict=True):
        for axis, (name, layer) in zip(row, columns, strict=True):
            curves = positions(inside, figure.along)
            for (label, point), colour in zip(curves, colours(len(curves)), strict=True):
                _one(axis, point, name, layer, colour, label)
            _named(axis, name, f"layer {layer}", panel)
    _finish(picture, axes[:, : len(layers)], axes[:, len(layers) :])
    return picture


def comparison(dataset: xr.Dataset, figure: Figure) -> Picture:
    """Pair and half the density correlations in one panel for each layer.

    Half of it: at half filling both are the same by the pseudospin symmetry.
    """
    rows = positions(dataset, figure.panels)
    layers = [str(one) for one in dataset["layer"].values]
    columns = [(layer, k) for k in range(dataset.sizes[figure.along]) for layer in layers]
    picture, axes = grid(len(rows), len(columns))
    for row, (panel, inside) in zip(axes, rows, strict=True):
        for axis, (layer, k) in zip(row, columns, strict=True):
            point = inside.isel({figure.along: k})
            value = shown(dataset[figure.along].values.tolist()[k])
            _one(axis, point, "pair", layer, "#b2182b", "pair", marker=6)
            _one(axis, point, "density_density", layer, "#4d4d4d", "density / 2", "--", 0.5)
            _named(axis, "", f"layer {layer}, {figure.along} = {value}", panel)
            axis.set_ylabel("pair, density / 2")
    _finish(picture, axes)
    return picture


def temperature(dataset: xr.Dataset, figure: Figure) -> Picture:
    """Correlators at several temperatures on top of those of the ground state."""
    layers = [str(one) for one in dataset["layer"].values]
    rows = [(name, panel) for panel in positions(dataset, figure.panels) for name in _NAMES]
    picture, axes = grid(len(rows), len(layers))
    names = [shown(value) for value in dataset[figure.along].values.tolist()]
    reference = figure.reference or names[0]
    thermal = [k for k, value in enumerate(names) if value != reference]
    for row, (name, (panel, inside)) in zip(axes, rows, strict=True):
        for axis, layer in zip(row, layers, strict=True):
            cold = inside.isel({figure.along: names.index(reference)})
            _one(axis, cold, name, layer, "black", reference, marker=6)
            for k, colour in zip(thermal, colours(len(thermal)), strict=True):
                _one(axis, inside.isel({figure.along: k}), name, layer, colour, names[k])
            _named(axis, name, f"layer {layer}", panel)
    _finish(picture, axes[::2], axes[1::2])
    return picture


def _one(
    axis: Axes,
    point: xr.Dataset,
    name: str,
    layer: str,
    colour: object,
    label: str,
    style: str = "-",
    factor: float = 1.0,
    marker: float = 4.0,
) -> None:
    """Draw one curve, if its point is there; larger markers show below the others."""
    if not missing(point, name):
        one = single(point, name)
        drawn = curve(one, name, layer).scaled(factor)
        draw(axis, drawn, colour, label + unsure(one), style, marker)


def _named(axis: Axes, name: str, *what: str) -> None:
    axis.set_ylabel(OBSERVABLES[name].symbol if name in OBSERVABLES else "")
    axis.set_title(", ".join(filter(None, what)), fontsize="small")


def _finish(picture: Picture, *groups: np.ndarray) -> None:
    """Scale the panels; those of a group show the same quantity on the same range."""
    for group in groups:
        log_ordinate(list(chain(*group)))
    for axis in picture.axes:
        against_distance(axis)
    legend(picture)
