"""From the dataset of a study to its picture."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from bilayer_orchestra.dataset.reading import model_data
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.plots.common import NOTE, own_style, save, title
from bilayer_orchestra.plots.study_correlations import comparison, decay, temperature
from bilayer_orchestra.plots.study_exponents import NOTE as FITTED
from bilayer_orchestra.plots.study_exponents import exponents, fits
from bilayer_orchestra.study.spec import Figure

_DRAWN = {
    "decay": decay,
    "comparison": comparison,
    "temperature": temperature,
    "exponents": exponents,
}


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
    needed = ("pair",) if figure.kind == "exponents" else ("pair", "density_density")
    for name in needed:
        if name not in dataset:
            raise OrchestraError(f"the study has no {name} yet: run it, or add the observable")
    numbers = fits(dataset) if figure.kind == "exponents" else None
    with own_style(style):
        picture = _DRAWN[figure.kind](dataset if numbers is None else numbers, figure)
        text = figure.title or str(dataset.attrs.get("study_name", ""))
        if (open_points := dataset.attrs.get("points", 1) - dataset.attrs.get("finished", 1)) > 0:
            text += f"   {open_points} POINTS MISSING"
        title(picture, text, model_data(dataset), NOTE if numbers is None else FITTED)
        save(picture, path)
    return numbers
