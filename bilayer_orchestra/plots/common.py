"""What all pictures share: their own style, correlations against distance, axes, saving.

Figures are made without pyplot: no backend is chosen, and none of the user's counts.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib import style as mpl_style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter, NullLocator

from bilayer_orchestra.dataset.reading import conditions, model_data, need_chains, parameters
from bilayer_orchestra.errors import OrchestraError, SpecError
from bilayer_orchestra.files import replacing
from bilayer_orchestra.fits.pairs import pairs_of
from bilayer_orchestra.model.spec import read_text
from bilayer_orchestra.observables import OBSERVABLES

mpl.rcdefaults()  # not those of a matplotlibrc, which may stand in the working directory

#: Of a model's layers in their order; further ones are black.
COLOURS = ("#b2182b", "#2166ac", "#1b7837")
#: Distances that get a tick on a logarithmic axis.
TICKS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 200, 500)
#: A mean is shown if it exceeds this many of its errors, and what rounding leaves of zero.
SHOWN, ZERO = 2.0, 1e-12
#: What the points of :func:`draw` are; stands below every picture of them.
NOTE = (
    "means over pairs of sites at one distance, without length // 6 sites at open ends; "
    "open markers: negative; not shown: zero within two errors"
)
_STYLE: Any = {
    "savefig.dpi": 140,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "axes.formatter.useoffset": False,  # a small number above an axis is overlooked
}


@contextmanager
def own_style(given: Path | None = None) -> Iterator[None]:
    """Draw in the program's style, whatever the user's configuration.

    Parameters
    ----------
    given : Path, optional
        A matplotlib style file, or the name of a style, on top of it.

    Raises
    ------
    OrchestraError
        If it is no style.
    """
    extra = {} if given is None else _read_style(given)
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        mpl.rcParams.update({key: extra[key] for key in extra if key != "backend"})
        yield


def _read_style(given: Path) -> Any:
    """Return the settings of a style file, or of the style of this name."""
    if str(given) in mpl_style.library:
        return mpl_style.library[str(given)]
    try:
        lines = [line.partition("#")[0].strip() for line in read_text(given).splitlines()]
        keys = [line.partition(":")[0].strip() for line in lines if line]
        # matplotlib would say four lines about each, and go on
        if unknown := [key for key in keys if key not in mpl.rcParams]:
            raise ValueError(f"there is no setting {', '.join(unknown[:5])}")
        if not keys:
            raise ValueError("it sets nothing")
        return mpl.rc_params_from_file(given, fail_on_error=True, use_default_template=False)
    except (SpecError, OSError, ValueError) as error:
        what = error.problems[0] if isinstance(error, SpecError) else error
        raise OrchestraError(f"{given} is no matplotlib style: {what}") from error


@dataclass(frozen=True)
class Curve:
    """A correlation within one layer against distance.

    Parameters
    ----------
    r : array
        Distances >= 1 (on a ring the shorter way).
    mean, stderr, bias : array
        Mean over all pairs of sites at each distance, its statistical error (zero without noise),
        and its systematic one, as if the errors of the pairs were the same error.
    """

    r: np.ndarray
    mean: np.ndarray
    stderr: np.ndarray
    bias: np.ndarray

    @property
    def error(self) -> np.ndarray:
        """Both errors in quadrature."""
        return np.asarray(np.hypot(self.stderr, self.bias))

    def scaled(self, factor: float) -> Curve:
        """Return ``factor`` times this curve."""
        parts = (abs(factor) * part for part in (self.stderr, self.bias))
        return Curve(self.r, factor * self.mean, *parts)


def curve(point: xr.Dataset, name: str, layer: str, ends: bool = False) -> Curve:
    """Return one correlation of one point.

    Parameters
    ----------
    point : Dataset
        One result, or one point of a sweep.
    name, layer : str
        The observable, of two sites of this layer.
    ends : bool
        Whether pairs near the ends of an open chain count. They mix boundary effects into every
        distance, and the largest distances consist of them: else a sixth of the sites at each end
        is left out.
    """
    pairs = pairs_of(point, name, layer, *conditions(point))
    if pairs.length < 2:
        return Curve(*np.zeros((4, 0)))
    means = pairs.inside(1 if ends else pairs.length // 6 + 1).by_distance()
    return Curve(means.r, means.values, means.stderr, np.abs(np.nan_to_num(means.bias)))


def panels(rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """Return a picture and its axes (rows, columns).

    Parameters
    ----------
    rows, columns : int
        How many panels.
    width, height : float
        Of one panel, in inches.
    """
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def draw(
    axis: Axes, one: Curve, colour: Any, label: str = "", style: str = "-", marker: float = 4.0
) -> None:
    """Draw the magnitude where it is not zero within its error; open markers are negative.

    Parameters
    ----------
    axis : Axes
        The panel.
    one : Curve
        What is drawn.
    colour, style
        As matplotlib has them; an empty style draws no line.
    label : str
        Its name in the legend.
    marker : float
        Size of the markers in points.
    """
    size = np.abs(one.mean)
    known = size < np.inf  # neither infinite nor NaN
    seen = known & (size > SHOWN * one.error + ZERO)
    if not seen.any():
        label = f"{label}: {'zero within errors' if known.any() else 'no values'}"
    shown = np.where(seen, size, np.nan)
    axis.plot(one.r, shown, ls=style or "none", lw=1.2, color=colour, alpha=0.8, label=label)
    how = {"fmt": "o", "ms": marker, "lw": 1, "color": colour}
    for sign, face in ((1, colour), (-1, "white")):
        chosen = seen & (np.sign(one.mean) == sign)
        bars = one.r[chosen], size[chosen], one.error[chosen]
        axis.errorbar(*bars, markerfacecolor=face, **how)


def against_distance(axis: Axes, log: bool = True) -> None:
    """Name the abscissa of what was drawn; its ticks are whole distances."""
    axis.set(xlabel="distance $r$", xscale="log" if log else "linear")
    ends = [np.max(np.asarray(line.get_xdata()), initial=1.0) for line in axis.get_lines()]
    last = int(max(ends, default=1.0))
    ticks = TICKS if log else range(1, last + 1, -(-last // 8))
    shown = [r for r in ticks if r <= max(last, 2)]
    axis.set_xticks(shown, [str(r) for r in shown])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlim(0.9, max(1.1 * last, 2))


def log_ordinate(axes: list[Axes]) -> None:
    """Give axes of the same quantity one range of at least a decade, with ticks that are named."""
    lines = [np.ravel(line.get_ydata()) for axis in axes for line in axis.get_lines()]
    drawn = np.concatenate([np.zeros(0), *lines])
    positive = drawn[np.isfinite(drawn) & (drawn > 0)]
    low, high = (positive.min(), positive.max()) if len(positive) else (0.1, 1.0)
    middle, half = np.sqrt(low * high), max(np.sqrt(high / low) * 2.2, np.sqrt(10))
    for axis in axes:
        axis.set_yscale("log")
        axis.set_ylim(middle / half, middle * half)
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if half < 10 else (1,)))
        axis.yaxis.set_major_formatter(
            LogFormatterSciNotation(labelOnlyBase=False, minor_thresholds=(np.inf, np.inf))
        )
        axis.yaxis.set_minor_formatter(NullFormatter())


def finish(figure: Figure, path: Path, text: str, dataset: xr.Dataset, note: str) -> None:
    """Write a picture with its title, the model's parameters included, and ``note`` below.

    Parameters
    ----------
    figure : Figure
        The picture.
    path : Path
        Where it is written, in the format of the suffix.
    text : str
        Its first line.
    dataset : Dataset
        What is shown.
    note : str
        What the reader must know of its points.
    """
    columns = int(13 * figure.get_figwidth())
    lines = [text, parameters(model_data(dataset))]
    wrapped = [part for line in lines for part in textwrap.wrap(line, columns)]
    figure.suptitle("\n".join(wrapped), fontsize="medium")
    figure.supxlabel("\n".join(textwrap.wrap(note, columns)), fontsize="small")
    save(figure, path)


def drawable(dataset: xr.Dataset) -> list[str]:
    """Return what is drawn: spin correlations for a model of spins, else pairs and density."""
    spins = "spin_flip" in dataset
    wanted = ("spin_flip", "spin_spin") if spins else ("pair", "density_density")
    return [name for name in wanted if name in dataset]


def colour_of(dataset: xr.Dataset, layer: str) -> str:
    """Return the colour of a layer, which it has also where it is drawn alone."""
    layers = list(model_data(dataset).get("layers") or map(str, dataset["layer"].values))
    place = layers.index(layer)
    return COLOURS[place] if place < len(COLOURS) else "black"


def draw_correlations(dataset: xr.Dataset, path: Path, style: Path | None = None) -> None:
    """Draw pair and density (or both spin) correlations of both layers, log-log.

    A power law is a straight line.

    Parameters
    ----------
    dataset : Dataset
        One result.
    path : Path
        The picture; its suffix says the format.
    style : Path, optional
        See :func:`own_style`.
    """
    need_chains(dataset.dims, "pictures")
    names = drawable(dataset)
    if not names:
        raise OrchestraError(
            "there is nothing to draw: the result has no pair, density or spin correlations; add "
            "them to the model's observables"
        )
    with own_style(style):
        figure, (axes,) = panels(1, len(names), 5.0, 4.6)
        for axis, name in zip(axes, names, strict=True):
            for layer in map(str, dataset["layer"].values):
                draw(axis, curve(dataset, name, layer), colour_of(dataset, layer), layer)
            against_distance(axis)
            axis.set_ylabel(OBSERVABLES[name].symbol)
            log_ordinate([axis])
            axis.legend()
        unsure = "" if dataset.attrs["converged"] else "   NOT CONVERGED"
        text = f"{dataset.attrs['model_name']}: {dataset.attrs['engine']}{unsure}"
        finish(figure, path, text, dataset, NOTE)


def save(figure: Figure, path: Path) -> None:
    """Write ``figure`` to ``path`` in the format of its suffix, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix.removeprefix("."))
