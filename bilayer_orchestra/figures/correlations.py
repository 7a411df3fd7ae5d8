"""Correlations against distance: how they decay along an axis, pairs against density."""

from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure as Picture

from bilayer_orchestra.figures.common import (
    Curve,
    colours,
    curve,
    draw,
    grid,
    legend,
    log_log,
    missing,
    positions,
    single,
    unsure,
)
from bilayer_orchestra.fits.fit import conditions
from bilayer_orchestra.study.axes import shown
from bilayer_orchestra.study.figure import Figure

_TITLES = {
    "pair": r"$|\langle\Delta^\dagger_i\Delta_j\rangle|$",
    "density_density": r"$|\langle n_i n_j\rangle_c|$",
}


def _curve(point: xr.Dataset, name: str, layer: str) -> Curve:
    """Return a correlation of one point, with the boundary that this point has."""
    return curve(point, name, layer, periodic=conditions(point, None, None)[0])


def decay(dataset: xr.Dataset, figure: Figure) -> Picture:
    """Pair and density correlations of both layers, one curve for each value of ``along``."""
    rows = positions(dataset, figure.panels)
    layers = [str(one) for one in dataset["layer"].values]
    columns = [(name, layer) for name in _TITLES for layer in layers]
    picture, axes = grid(len(rows), len(columns))
    for row, (panel, inside) in zip(axes, rows, strict=True):
        for axis, (name, layer) in zip(row, columns, strict=True):
            curves = positions(inside, figure.along)
            for (label, point), colour in zip(curves, colours(len(curves)), strict=True):
                if missing(point, name):
                    continue
                one = single(point, name)
                draw(axis, _curve(one, name, layer), colour, label + unsure(one))
            log_log(axis, dataset.sizes["x"], f"{_TITLES[name]}  layer {layer}")
        row[0].set_ylabel(panel)
        legend(row[0])
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
            if not missing(point, "pair"):
                one = single(point, "pair")
                draw(axis, _curve(one, "pair", layer), "#b2182b", "pair" + unsure(one))
                density = _curve(one, "density_density", layer).scaled(0.5)
                draw(axis, density, "#4d4d4d", "density / 2", "--")
            log_log(axis, dataset.sizes["x"], f"layer {layer}, {figure.along} = {value}")
        row[0].set_ylabel(panel)
        legend(row[0])
    return picture


def temperature(dataset: xr.Dataset, figure: Figure) -> Picture:
    """Correlators at several temperatures on top of those of the ground state."""
    layers = [str(one) for one in dataset["layer"].values]
    rows = [(name, panel) for panel in positions(dataset, figure.panels) for name in _TITLES]
    picture, axes = grid(len(rows), len(layers))
    names = [shown(value) for value in dataset[figure.along].values.tolist()]
    reference = figure.reference or names[0]
    for row, (name, (panel, inside)) in zip(axes, rows, strict=True):
        for axis, layer in zip(row, layers, strict=True):
            thermal = [k for k, value in enumerate(names) if value != reference]
            for k, colour in zip(thermal, colours(len(thermal)), strict=True):
                point = inside.isel({figure.along: k})
                if not missing(point, name):
                    one = single(point, name)
                    draw(axis, _curve(one, name, layer), colour, names[k] + unsure(one))
            point = inside.isel({figure.along: names.index(reference)})
            if not missing(point, name):
                cold = _curve(single(point, name), name, layer)
                axis.plot(cold.r, abs(cold.mean), "k-", lw=2, zorder=0, label=reference)
            log_log(axis, dataset.sizes["x"], f"{_TITLES[name]}  layer {layer}  {panel}")
        legend(row[0])
    return picture
