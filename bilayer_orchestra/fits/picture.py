"""The picture of fits: data with the best fit, and how the result moves with the window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib import pyplot as plt

from bilayer_orchestra.plotting import COLOURS, save


def draw_fits(fits: xr.Dataset, path: Path) -> Path | None:
    """Draw every fitted correlation of a single point; None if the dataset is a sweep.

    Upper row: averages at each distance and the best fit (open markers: negative values). Lower
    row: the parameter against r_min; the size of a marker is its weight, the band the result.
    """
    kinds = [kind for kind in ("pair", "density", "green") if f"{kind}_status" in fits]
    if any(set(fits[f"{kind}_status"].dims) != {"layer"} for kind in kinds):
        return None
    figure, axes = plt.subplots(
        2, len(kinds), figsize=(5.0 * len(kinds), 6.4), layout="constrained", squeeze=False
    )
    for column, kind in enumerate(kinds):
        main = "eta" if f"{kind}_eta" in fits else "inverse_xi"
        for layer in fits["layer"].values:
            one = fits.sel(layer=layer)
            if str(one[f"{kind}_status"].item()) != "ok":
                continue
            colour = COLOURS.get(str(layer), "black")
            _draw_data(axes[0, column], one, kind, str(layer), colour)
            _draw_scan(axes[1, column], one, kind, main, colour)
        log_r = kind != "green"
        axes[0, column].set(yscale="log", xlabel="distance $r$", title=kind)
        axes[0, column].set_xscale("log" if log_r else "linear")
        axes[1, column].set(xlabel=r"$r_\mathrm{min}$", ylabel=main)
        for axis in axes[:, column]:
            axis.grid(alpha=0.25, which="both")
        axes[0, column].legend(frameon=False)
    save(figure, path)
    return path


def _draw_data(axis, one: xr.Dataset, kind: str, layer: str, colour: str) -> None:  # type: ignore[no-untyped-def]
    r, data = one["r"].values, one[f"{kind}_data"].values
    stderr, fitted = one[f"{kind}_data_stderr"].values, one[f"{kind}_fitted"].values
    for chosen, face in ((data > 0, colour), (data < 0, "white")):
        axis.errorbar(
            r[chosen],
            np.abs(data[chosen]),
            np.nan_to_num(stderr[chosen]),
            fmt="o",
            ms=4,
            color=colour,
            markerfacecolor=face,
        )
    inside = (r >= one[f"{kind}_r_min"].item()) & (r <= one[f"{kind}_r_max"].item())
    name = "eta" if f"{kind}_eta" in one else "xi"
    value, systematic = one[f"{kind}_{name}"].item(), one[f"{kind}_{name}_systematic"].item()
    error = np.hypot(systematic, np.nan_to_num(one[f"{kind}_{name}_stderr"].item()))
    label = f"{layer}: {name} = {value:.4g}({error:.1g})"
    axis.plot(r, np.abs(fitted), ":", lw=1, color=colour, alpha=0.6)
    axis.plot(r[inside], np.abs(fitted[inside]), "-", lw=1.5, color=colour, label=label)


def _draw_scan(axis, one: xr.Dataset, kind: str, main: str, colour: str) -> None:  # type: ignore[no-untyped-def]
    r_min, values = one[f"{kind}_scan_r_min"].values, one[f"{kind}_scan_{main}"].values
    errors, weights = one[f"{kind}_scan_{main}_error"].values, one[f"{kind}_scan_weight"].values
    present = np.isfinite(values) & np.isfinite(weights)
    heavy = present & (weights > 1e-2 * np.nanmax(weights))
    axis.scatter(r_min[present], values[present], s=6, color=colour, alpha=0.25)
    axis.errorbar(
        r_min[heavy], values[heavy], errors[heavy], fmt="none", color=colour, alpha=0.4, lw=1
    )
    axis.scatter(r_min[heavy], values[heavy], s=8 + 60 * weights[heavy], color=colour)
    value = one[f"{kind}_{main}"].item()
    error = np.hypot(
        one[f"{kind}_{main}_systematic"].item(),
        np.nan_to_num(one[f"{kind}_{main}_stderr"].item()),
    )
    axis.axhspan(value - error, value + error, color=colour, alpha=0.15)
    low, high = np.nanmin(values[heavy]), np.nanmax(values[heavy])
    margin = 3 * max(error, high - low, 1e-6)
    bottom, top = axis.get_ylim() if getattr(axis, "_set", False) else (np.inf, -np.inf)
    axis.set_ylim(min(bottom, low - margin), max(top, high + margin))
    axis._set = True
