"""From the dataset of a study to its picture."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.figures.correlations import comparison, decay, temperature
from bilayer_orchestra.figures.exponents import exponents, fits
from bilayer_orchestra.plotting import save
from bilayer_orchestra.study.figure import Figure


def draw_figure(dataset: xr.Dataset, figure: Figure, path: Path) -> xr.Dataset | None:
    """Draw ``figure`` to ``path``; return the fitted numbers if it shows any.

    Parameters
    ----------
    dataset : Dataset
        The collected dataset of a study; points that are missing are left out.

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
    numbers = None
    match figure.kind:
        case "decay":
            picture = decay(dataset, figure)
        case "comparison":
            picture = comparison(dataset, figure)
        case "temperature":
            picture = temperature(dataset, figure)
        case "exponents":
            numbers = fits(dataset)
            picture = exponents(dataset, figure, numbers)
    picture.suptitle(figure.title or str(dataset.attrs.get("study_name", "")), fontsize="medium")
    save(picture, path)
    return numbers
