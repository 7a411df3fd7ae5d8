"""The picture of fits: data with the best fit, and how the result moves with the window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bilayer_orchestra.fits.datasets import rounded, total_error
from bilayer_orchestra.observables import FITTED
from bilayer_orchestra.plots.common import (
    Curve,
    against_distance,
    colour_of,
    draw,
    finish,
    log_ordinate,
    own_style,
    panels,
)

_SYMBOLS = {"eta": r"$\eta$", "inverse_xi": r"$1/\xi$"}
NOTE = (
    "above: means over pairs of sites at one distance (open: negative) and the best fit, dotted "
    "outside of its window; below: one point for each window and form, larger with its weight in "
    "the average, pale below 1 %; band: the result with its total error"
)


def draw_fits(fits: xr.Dataset, path: Path, style: Path | None = None) -> bool:
    """Draw every fitted correlation of a single point; return False if the dataset is a sweep.

    Parameters
    ----------
    fits : Dataset
        See :func:`bilayer_orchestra.fits.datasets.fit`.
    path : Path
        The picture; its suffix says the format.
    style : Path, optional
        A matplotlib style on top of the program's own.
    """
    kinds = [kind for kind in FITTED if f"{kind}_status" in fits]
    if any(set(fits[f"{kind}_status"].dims) != {"layer"} for kind in kinds):
        return False
    with own_style(style):
        figure, axes = panels(2, len(kinds), 5.0, 3.6)
        for (above, below), kind in zip(axes.T, kinds, strict=True):
            main = "eta" if f"{kind}_eta" in fits else "inverse_xi"
            ranges = []
            for layer in map(str, fits["layer"].values):
                one = fits.sel(layer=layer)
                colour = colour_of(fits, layer)
                if str(one[f"{kind}_status"].item()) != "ok":
                    above.plot([], [], color=colour, label=f"{layer}: no fit, see the table")
                    continue
                _draw_data(above, one, kind, main, layer, colour)
                ranges.append(_draw_scan(below, one, kind, main, colour))
            below.set_ylim(min(low for low, _ in ranges), max(high for _, high in ranges))
            against_distance(above, log=kind != "green")
            log_ordinate([above])
            above.set(ylabel=kind)
            above.legend()
            below.set(
                xlabel=r"smallest distance $r_\mathrm{min}$ of a window", ylabel=_SYMBOLS[main]
            )
            below.xaxis.set_major_locator(MaxNLocator(integer=True))
        text = f"{fits.attrs.get('model_name', '')}: fits of correlation functions"
        if any((fits[f"{kind}_input_converged"] == 0).any() for kind in kinds):
            text += "   INPUT NOT CONVERGED"
        finish(figure, path, text, fits, NOTE)
    return True


def _draw_data(axis: Axes, one: xr.Dataset, kind: str, main: str, layer: str, colour: str) -> None:
    r, data, fitted = (one[name].values for name in ("r", f"{kind}_data", f"{kind}_fitted"))
    there = np.isfinite(data)
    stderr = np.nan_to_num(one[f"{kind}_data_stderr"].values[there])
    draw(axis, Curve(r[there], data[there], stderr, 0 * stderr), colour, style="")
    inside = (r >= one[f"{kind}_r_min"].item()) & (r <= one[f"{kind}_r_max"].item())
    value, error = one[f"{kind}_{main}"].item(), total_error(one, f"{kind}_{main}").item()
    label = f"{layer}: {_SYMBOLS[main]} = {rounded(value, error)} $\\pm$ {rounded(error, error)}"
    axis.plot(r[there], np.abs(fitted[there]), ":", lw=1, color=colour, alpha=0.6)
    axis.plot(r[inside], np.abs(fitted[inside]), "-", lw=1.5, color=colour, label=label)


def _draw_scan(
    axis: Axes, one: xr.Dataset, kind: str, main: str, colour: str
) -> tuple[float, float]:
    """Draw all windows; return the range of those that count."""
    r_min, values, errors, weights = (
        one[f"{kind}_scan_{name}"].values for name in ("r_min", main, f"{main}_error", "weight")
    )
    present = np.isfinite(values) & np.isfinite(weights)
    heavy = present & (weights > 1e-2 * np.nanmax(weights))
    axis.scatter(r_min[present], values[present], s=6, color=colour, alpha=0.25)
    axis.errorbar(
        r_min[heavy], values[heavy], errors[heavy], fmt="none", color=colour, alpha=0.4, lw=1
    )
    axis.scatter(r_min[heavy], values[heavy], s=8 + 60 * weights[heavy], color=colour)
    value, error = one[f"{kind}_{main}"].item(), total_error(one, f"{kind}_{main}").item()
    axis.axhspan(value - error, value + error, color=colour, alpha=0.15)
    low, high = np.nanmin(values[heavy]), np.nanmax(values[heavy])
    margin = max(error, high - low, 1e-6)
    return min(low, value) - margin, max(high, value) + margin
