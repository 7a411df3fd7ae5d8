"""The figures of a check's page, as SVG text that needs nothing else."""

from __future__ import annotations

import base64
import io
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bilayer_orchestra.checking.verdict import Verdict
from bilayer_orchestra.dataset.reading import is_stochastic
from bilayer_orchestra.observables import OBSERVABLES
from bilayer_orchestra.plots.common import curve, own_style, panels

#: Results that are drawn in one panel at most; more would hide each other.
MOST = 8


class Illustration(NamedTuple):
    """A title, what it shows, and the SVG in base64."""

    title: str
    caption: str
    data: str


def illustrations(outcome: Verdict, style: Path | None = None) -> list[Illustration]:
    """Return the figures that this outcome has data for."""
    with own_style(style):
        drawn = [_overlay(outcome), _pulls(outcome), _approach(outcome)]
    return [figure for figure in drawn if figure is not None]


def _overlay(outcome: Verdict) -> Illustration | None:
    """Correlations of all results against distance, with error bars."""
    ladders = [by_beta for by_beta in outcome.thermal.values() if by_beta]
    lowest = {max(by_beta) for by_beta in ladders}
    warmer = {id(d) for by_beta in ladders for beta, d in by_beta.items() if beta not in lowest}
    chosen = {label: d for label, d in outcome.results.items() if id(d) not in warmer}
    names = [n for n in ("pair", "density_density") if any(n in d for d in chosen.values())]
    if not names:
        return None
    layers = [str(v) for v in next(iter(chosen.values()))["layer"].values]
    figure, axes = panels(len(names), len(layers), 10 / len(layers), 3.4)
    for axis, (name, layer) in zip(axes.flat, product(names, layers), strict=True):
        for k, (label, d) in enumerate(list(chosen.items())[:MOST]):
            if name not in d:
                continue
            one = curve(d, name, layer, ends=True)
            place = one.r + 0.06 * (k - len(chosen) / 2)
            how: dict[str, Any] = {"fmt": "_", "ms": 12}
            if one.stderr.any():
                how = {"fmt": "o", "ms": 4, "yerr": one.stderr}
            axis.errorbar(place, one.mean, **how, capsize=2, lw=1, label=label)
        axis.axhline(0, color="black", lw=0.5)
        axis.set(ylabel=OBSERVABLES[name].long_name, title=f"layer {layer}", xlabel="distance")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0][0].legend(fontsize="small")
    return Illustration(
        "correlations",
        "Correlations within the layers, averaged over all pairs of sites at one distance, those "
        "at the ends of an open chain included; results stand side by side at each distance. Bars "
        "are standard errors, dashes are results without statistical error. Each panel has a "
        "range of its own.",
        _svg(figure),
    )


def _pulls(outcome: Verdict) -> Illustration | None:
    """Histogram of all pulls of every pair that has statistical errors."""
    collected = {}
    for verdict in outcome.verdicts:
        tests = [one.test for one in verdict.findings if one.test and one.test.stochastic]
        pulls = [(t.difference / np.hypot(t.stderr, t.allowance))[t.stderr > 0] for t in tests]
        known = np.concatenate([np.zeros(0), *pulls])
        known = known[np.isfinite(known)]
        if len(known):
            collected[f"{verdict.first} / {verdict.second}"] = np.clip(known, -5, 5)
    if not collected:
        return None
    figure, ((axis,),) = panels(1, 1, 7.0, 3.6)
    edges = np.linspace(-5, 5, 41)
    for k, (label, known) in enumerate(list(collected.items())[:MOST]):
        # equal ones show below each other
        width = 1 + 0.8 * (min(len(collected), MOST) - k)
        axis.hist(known, list(edges), density=True, histtype="step", lw=width, label=label)
    axis.plot(edges, np.exp(-(edges**2) / 2) / np.sqrt(2 * np.pi), "k--", lw=1, label="expected")
    axis.set(
        xlabel="difference / error (statistical and systematic in quadrature)",
        ylabel="share of the elements per unit",
    )
    axis.legend(fontsize="small")
    return Illustration(
        "pulls",
        "Pulls of all elements. Elements are correlated, so a histogram may be shifted or lumpy; "
        "one much wider than expected means a difference or errors that are too small, a narrow "
        "one that statistical or systematic errors are overestimated. The outermost bars hold all "
        "that lies beyond five errors.",
        _svg(figure),
    )


def _approach(outcome: Verdict) -> Illustration | None:
    """Energy, double occupancy and the longest pair correlation on the ladder."""
    if not outcome.thermal:
        return None
    shown = {"energy": "energy", "electrons": "density", "double occupancy": "double_occupancy"}
    figure, (axes,) = panels(1, len(shown), 11 / len(shown), 3.4)
    for axis, (title, source) in zip(axes, shown.items(), strict=True):
        for name, by_beta in outcome.thermal.items():
            usable = {b: d for b, d in by_beta.items() if source in d}
            if not usable:
                continue
            temperatures = [1 / beta for beta in usable]
            sums = [float(d[source].sum()) for d in usable.values()]
            errors = [_error_of_sum(d, source) for d in usable.values()]
            fmt = "s" if is_stochastic(next(iter(usable.values()))) else "o-"
            axis.errorbar(temperatures, sums, errors, fmt=fmt, ms=4, capsize=3, lw=1, label=name)
        for d in outcome.results.values():
            if d.attrs["ensemble"] == "canonical" and source in d and not is_stochastic(d):
                axis.axhline(float(d[source].sum()), lw=0.8, ls=":", color="black")
        axis.set(ylabel=f"{title}, whole system", xlabel="temperature T")
        axis.set_xlim(left=0)
    # with a frame: its marker must not be taken for a point
    axes[0].legend(fontsize="small", frameon=True, framealpha=1, edgecolor="black", fancybox=False)
    return Illustration(
        "approach",
        "The ladder of temperatures; dotted lines are the ground states. Nothing is fitted: the "
        "lowest temperature stands for the limit, with what may be missing as a named error.",
        _svg(figure),
    )


def _error_of_sum(d: xr.Dataset, name: str) -> float:
    if f"{name}_deviation" not in d:
        return 0.0
    deviations = d[f"{name}_deviation"].astype(float)
    total = deviations.sum([dim for dim in deviations.dims if dim != "block"])
    return float(np.sqrt((total**2).sum()))


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    return base64.b64encode(stream.getvalue().encode()).decode()
