"""The figures of a check's page, as SVG text that needs nothing else."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

import numpy as np
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.figure import Figure as Drawing

from bilayer_orchestra.check.plan import CheckResult
from bilayer_orchestra.plotting import by_distance

#: Results that are drawn in one panel at most; more would hide each other.
MOST = 8


class Figure(NamedTuple):
    """A title, what it shows, and the SVG in base64."""

    title: str
    caption: str
    data: str


def figures_of(outcome: CheckResult) -> list[Figure]:
    """Return the figures that this outcome has data for."""
    drawn = [_overlay(outcome), _pulls(outcome), _approach(outcome)]
    return [figure for figure in drawn if figure is not None]


def _overlay(outcome: CheckResult) -> Figure | None:
    """Correlations of all results against distance, with error bars."""
    lowest = {max(by_beta) for by_beta in outcome.thermal.values() if by_beta}
    chosen = {
        label: d
        for label, d in outcome.results.items()
        if "beta=" not in label or not lowest or float(label.split("beta=")[1]) in lowest
    }
    names = [n for n in ("pair", "density_density") if any(n in d for d in chosen.values())]
    if not names:
        return None
    layers = [str(v) for v in next(iter(chosen.values()))["layer"].values]
    figure, axes = plt.subplots(
        len(names), len(layers), figsize=(10, 3.4 * len(names)), layout="constrained", squeeze=False
    )
    for row, name in zip(axes, names, strict=True):
        for axis, layer in zip(row, layers, strict=True):
            for k, (label, d) in enumerate(list(chosen.items())[:MOST]):
                if name not in d:
                    continue
                periodic = "boundary: periodic" in d.attrs["model"]
                distance, groups = by_distance(d[name], layer, periodic)
                mean = np.array([group.mean() for group in groups])
                error = _error_of_means(d, name, layer, periodic)
                axis.errorbar(
                    distance + 0.06 * (k - len(chosen) / 2),
                    mean,
                    error,
                    fmt="o" if error is not None else "_",
                    ms=4 if error is not None else 12,
                    capsize=2,
                    lw=1,
                    label=label,
                )
            axis.axhline(0, color="black", lw=0.5)
            axis.set(title=f"{name}, layer {layer}", xlabel="distance")
    axes[0][0].legend(frameon=False, fontsize="small")
    return Figure(
        "correlations",
        "Correlations within the layers, averaged over all pairs of sites at one distance; bars "
        "are standard errors, dashes are results without statistical error.",
        _svg(figure),
    )


def _error_of_means(d: xr.Dataset, name: str, layer: str, periodic: bool) -> np.ndarray | None:
    if f"{name}_deviation" not in d:
        return None
    blocks = [
        [group.mean() for group in by_distance(block, layer, periodic)[1]]
        for block in d[f"{name}_deviation"].astype(float).transpose("block", ...)
    ]
    return np.asarray(np.sqrt((np.array(blocks) ** 2).sum(axis=0)))


def _pulls(outcome: CheckResult) -> Figure | None:
    """Histogram of all pulls of every pair that has statistical errors."""
    collected = {
        f"{v.first} / {v.second}": np.concatenate(
            [
                (f.test.difference / np.hypot(f.test.stderr, f.test.allowance))[f.test.stderr > 0]
                for f in v.findings
                if f.test and f.test.stochastic
            ]
            or [np.zeros(0)]
        )
        for v in outcome.verdicts
    }
    collected = {k: p[np.isfinite(p)] for k, p in collected.items() if np.isfinite(p).any()}
    if not collected:
        return None
    figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
    edges = np.linspace(-5, 5, 41)
    for label, pulls in list(collected.items())[:MOST]:
        axis.hist(
            np.clip(pulls, -5, 5), list(edges), density=True, histtype="step", lw=1.4, label=label
        )
    axis.plot(edges, np.exp(-(edges**2) / 2) / np.sqrt(2 * np.pi), "k--", lw=1, label="expected")
    axis.set(xlabel="difference / error (statistical and systematic in quadrature)", yticks=[])
    axis.legend(frameon=False, fontsize="small")
    return Figure(
        "pulls",
        "Pulls of all elements. Elements are correlated, so a histogram may be shifted or lumpy; "
        "one much wider than expected means a difference or errors that are too small, a narrow "
        "one that statistical or systematic errors are overestimated.",
        _svg(figure),
    )


def _approach(outcome: CheckResult) -> Figure | None:
    """Energy, double occupancy and the longest pair correlation on the ladder."""
    if not outcome.thermal:
        return None
    panels = {"energy": "energy", "electrons": "density", "double occupancy": "double_occupancy"}
    figure, axes = plt.subplots(1, len(panels), figsize=(11, 3.4), layout="constrained")
    for axis, (title, source) in zip(axes, panels.items(), strict=True):
        for name, by_beta in outcome.thermal.items():
            usable = {b: d for b, d in by_beta.items() if source in d}
            if not usable:
                continue
            temperature = [1 / beta for beta in usable]
            errors = [_error_of_sum(d, source) for d in usable.values()]
            axis.errorbar(
                temperature,
                [float(d[source].sum()) for d in usable.values()],
                errors,
                fmt="o-" if name == "exact" else "s",
                ms=4,
                capsize=3,
                lw=1,
                label=name,
            )
        for label, d in outcome.results.items():
            if d.attrs["ensemble"] == "canonical" and source in d and "alf" not in label:
                axis.axhline(float(d[source].sum()), lw=0.8, ls=":", color="black")
        axis.set(title=title, xlabel="T")
        axis.set_xlim(left=0)
    # with a frame: its marker must not be taken for a point
    axes[0].legend(fontsize="small", framealpha=1.0, edgecolor="black", fancybox=False)
    return Figure(
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


def _svg(figure: Drawing) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    plt.close(figure)
    return base64.b64encode(stream.getvalue().encode()).decode()
