"""The figures of studies: how correlations decay along an axis, and what decides it."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.fits.datasets import fit, merged, total_error
from bilayer_orchestra.observables import OBSERVABLES
from bilayer_orchestra.plots.common import (
    NOTE,
    against_distance,
    curve,
    draw,
    finish,
    log_ordinate,
    own_style,
    panels,
)
from bilayer_orchestra.study.axes import shown
from bilayer_orchestra.study.spec import Figure

#: What stands below the picture of fitted numbers.
FIT_NOTE = (
    "bars: statistical and systematic errors of the fits; open markers: input not converged; "
    "not shown: the data do not determine the fit"
)
_NAMES = ("pair", "density_density")


def draw_figure(
    dataset: xr.Dataset, figure: Figure, path: Path, style: Path | None = None
) -> xr.Dataset | None:
    """Draw ``figure`` to ``path``; return the fitted numbers if it shows any.

    Parameters
    ----------
    dataset : Dataset
        The collected dataset of a study; points that are missing are left out.
    figure : Figure
        What is drawn.
    path : Path
        The picture; its suffix says the format.
    style : Path, optional
        A matplotlib style on top of the program's own.

    Raises
    ------
    OrchestraError
        If the dataset lacks an axis or an observable of the figure.
    """
    for axis in (figure.along, figure.panels):
        if axis is not None and axis not in dataset.dims:
            raise OrchestraError(
                f"the figure needs an axis {axis}; the study has "
                f"{', '.join(map(str, dataset['status'].dims)) or 'none'}"
            )
    fitted = figure.kind == "exponents"
    for name in _NAMES[:1] if fitted else _NAMES:
        if name not in dataset:
            raise OrchestraError(f"the study has no {name} yet: run it, or add the observable")
    numbers = fits(dataset) if fitted else None
    with own_style(style):
        if numbers is not None:
            picture = _exponents(numbers, figure)
        elif figure.kind == "comparison":
            picture = _comparison(dataset, figure)
        else:
            picture = _correlations(dataset, figure)
        # each name once, of the curves of all panels
        named = {
            label: handle
            for axis in picture.axes
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        if named:
            handles, labels = named.values(), named.keys()
            picture.legend(handles, labels, loc="outside right center", fontsize="small")
        text = figure.title or str(dataset.attrs.get("study_name", ""))
        if (open_points := dataset.attrs.get("points", 1) - dataset.attrs.get("finished", 1)) > 0:
            text += f"   {open_points} POINTS MISSING"
        finish(picture, path, text, dataset, FIT_NOTE if fitted else NOTE)
    return numbers


def _correlations(dataset: xr.Dataset, figure: Figure) -> Picture:
    """Draw pair and density correlations of both layers, one curve for each value of ``along``.

    ``temperature``: on top of those of the ground state.
    """
    layers, warm = _layers(dataset), figure.kind == "temperature"
    cells = list(product(_positions(dataset, figure.panels), _NAMES, layers))
    picture, axes = _grid(len(cells), len(layers) if warm else len(layers) * len(_NAMES))
    for axis, ((panel, inside), name, layer) in zip(axes, cells, strict=True):
        points = _positions(inside, figure.along, named=not warm)
        if warm:
            labels = [label for label, _ in points]
            label, cold = points.pop(labels.index(figure.reference or labels[0]))
            _draw_one(axis, cold, name, layer, label, colour="black", marker=6)
        for (label, point), colour in zip(points, _colours(len(points)), strict=True):
            _draw_one(axis, point, name, layer, label, colour=colour)
        _name_panel(axis, OBSERVABLES[name].symbol, layer, panel)
    return _scaled(picture)


def _comparison(dataset: xr.Dataset, figure: Figure) -> Picture:
    """Draw pair and half the density correlations in one panel for each layer.

    Half of it: at half filling both are the same by the pseudospin symmetry.
    """
    rows = _positions(dataset, figure.panels)
    cells = [
        (panel, *position, layer)
        for panel, inside in rows
        for position, layer in product(_positions(inside, figure.along), _layers(dataset))
    ]
    picture, axes = _grid(len(cells), len(cells) // len(rows))
    for axis, (panel, value, point, layer) in zip(axes, cells, strict=True):
        _draw_one(axis, point, "pair", layer, "pair", colour="#b2182b", marker=6)
        half: dict[str, Any] = {"factor": 0.5, "colour": "#4d4d4d", "style": "--"}
        _draw_one(axis, point, "density_density", layer, "density / 2", **half)
        _name_panel(axis, "pair, density / 2", layer, value, panel)
    return _scaled(picture)


def _draw_one(
    axis: Axes, point: xr.Dataset, name: str, layer: str, label: str, factor: float = 1, **how: Any
) -> None:
    """Draw one curve, if its point has a result; larger markers show below the others."""
    if name in point and not np.isnan(point[name].values).all():
        one = single(point, name)
        unsure = "" if int(one.get("converged", 1)) == 1 else " (not converged)"
        draw(axis, curve(one, name, layer).scaled(factor), label=label + unsure, **how)


def _name_panel(axis: Axes, quantity: str, layer: str, *more: str) -> None:
    axis.set_ylabel(quantity)
    axis.set_title(", ".join(filter(None, [f"layer {layer}", *more])), fontsize="small")


def _scaled(picture: Picture) -> Picture:
    """Scale panels against distance; those of one quantity have one range."""
    for quantity in {axis.get_ylabel() for axis in picture.axes}:
        log_ordinate([axis for axis in picture.axes if axis.get_ylabel() == quantity])
    for axis in picture.axes:
        against_distance(axis)
    return picture


def fits(dataset: xr.Dataset) -> xr.Dataset:
    """Fit pairs in all layers and the metal's Green function, at every point that has them.

    The metal is the last layer.

    Raises
    ------
    OrchestraError
        If nothing can be fitted.
    """
    found, refused = [], []
    layers = dataset["layer"].values
    for what, chosen in (("pair", None), ("green", [str(layers[-1])])):
        try:
            found.append(fit(dataset, what, chosen))
        except OrchestraError as error:
            refused.append(str(error))
    if not found:
        raise OrchestraError("; ".join(refused))
    # the scans of windows, of different number for each kind, are in `orchestra fit`; an outer
    # join sorts the names of layers
    return merged(found).drop_dims(["window", "r"]).reindex(layer=layers)


def _exponents(numbers: xr.Dataset, figure: Figure) -> Picture:
    """Draw K of all layers and 1/xi of the metal (see :func:`fits`) against ``along``.

    The inverse of the length has an error bar also where the data allow an infinite one.
    """
    layers = _layers(numbers)
    shown = [("pair_K", layer, f"$K_{{{layer}}}$") for layer in layers]
    shown.append(("green_inverse_xi", layers[-1], rf"$1/\xi_{{{layers[-1]}}}$"))
    picture, axes = _grid(len(shown), len(shown))
    abscissa = numbers[figure.along].values
    for axis in axes[1:-1]:
        axis.sharey(axes[0])
    for axis, (variable, layer, symbol) in zip(axes, shown, strict=True):
        # the same colour for the same position in all panels
        for k, (label, inside) in enumerate(_positions(numbers, figure.panels)):
            if variable not in inside:
                continue
            one = inside.sel(layer=layer).squeeze(drop=True)
            value = one[variable].transpose(figure.along).values
            how = {"ms": 4, "color": f"C{k}"}
            error = total_error(one, variable).values
            axis.errorbar(abscissa, value, error, fmt="o-", label=label, **how)
            converged = one[f"{variable.partition('_')[0]}_input_converged"].values
            doubtful = np.where(converged == 0, value, np.nan)
            axis.plot(abscissa, doubtful, "o", markerfacecolor="white", **how)
        axis.set(xlabel=figure.along, ylabel=symbol)
        if abscissa.dtype.kind in "if":
            axis.set_xticks(sorted(abscissa))
    for axis in axes[:-1]:
        convention = numbers["pair_K"].attrs["convention"] if "pair_K" in numbers else ""
        axis.set_title(f"convention: {convention}", fontsize="small")
        axis.set_ylim(bottom=0)
    axes[-1].axhline(0, color="black", lw=0.5)
    return picture


def _grid(number: int, columns: int) -> tuple[Picture, np.ndarray]:
    """Return a picture with room for what stands above and below, and the axes of its panels."""
    rows = number // columns
    picture, axes = panels(rows, columns, 3.6, 3.2 + 0.6 / rows)
    return picture, axes.ravel()


def _layers(dataset: xr.Dataset) -> list[str]:
    return [str(one) for one in dataset["layer"].values]


def _positions(
    dataset: xr.Dataset, axis: str | None, named: bool = True
) -> list[tuple[str, xr.Dataset]]:
    """Return (name, dataset) of every position on ``axis``; without one, the dataset alone."""
    if axis is None:
        return [("", dataset)]
    prefix = f"{axis} = " if named else ""
    return [
        (prefix + shown(value), dataset.isel({axis: k}))
        for k, value in enumerate(dataset[axis].values.tolist())
    ]


def single(dataset: xr.Dataset, name: str) -> xr.Dataset:
    """Return ``dataset`` without the dimensions of length 1 that the study has beyond ``name``'s.

    Raises
    ------
    OrchestraError
        If several points are left, which a panel cannot tell apart.
    """
    extra = [str(dim) for dim in dataset[name].dims if dim not in OBSERVABLES[name].dims]
    several = [dim for dim in extra if dataset.sizes[dim] > 1]
    if several:
        raise OrchestraError(
            f"the figure leaves the axis {several[0]} open; name it as `along` or `panels`"
        )
    return dataset.isel(dict.fromkeys(extra, 0))


def _colours(number: int) -> list[object]:
    """Return colours in the order of a quantity."""
    return list(mpl.colormaps["viridis"](np.linspace(0.0, 0.85, max(number, 1)))[:number])
