"""``orchestra plot``: the figure of a study, or the correlations of one result."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from bilayer_orchestra.dataset.parameters import yaml_data
from bilayer_orchestra.display.console import output_console
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.plots.try_to_draw import draw
from bilayer_orchestra.study.figure import Figure


def plot_command(
    target: Path, output: Path | None, runs: Path | None, style: Path | None = None
) -> None:
    """Draw ``target``: a study file, its collected dataset, or a result."""
    from bilayer_orchestra.dataset.schema import open_result, write_atomic

    if target.suffix in (".yaml", ".yml"):
        data, figure, study = _of_study(target, runs)
    else:
        data, figure, study = target, None, None
    dataset = open_result(data)
    if study is not None and (
        yaml_data(study) | {"figure": None}  # what it computes, whatever it draws
        != yaml_data(str(dataset.attrs["study"])) | {"figure": None}
    ):
        raise OrchestraError(
            f"{data} is that of another version of {target}; bring it up to date with "
            f"`orchestra collect {target}`"
        )
    if figure is None and "study" in dataset.attrs:
        figure = _stored_figure(str(dataset.attrs["study"]), data)
    path = output or data.with_suffix(".png")
    if not path.parent.is_dir():
        raise OrchestraError(f"there is no directory {path.parent}")
    if path.suffix not in (".png", ".pdf", ".svg"):
        raise OrchestraError(f"{path}: pictures end in .png, .pdf or .svg")
    console = output_console()

    def picture() -> xr.Dataset | None:
        if figure is None:
            from bilayer_orchestra.plots.common import draw_correlations

            draw_correlations(dataset, path, style)
            return None
        from bilayer_orchestra.plots.study_figure import draw_figure

        return draw_figure(dataset, figure, path, style)

    numbers = draw(picture)
    if numbers is not None:
        table = path.with_name(f"{path.stem}-fits.nc")
        write_atomic(numbers, table)
        console.print(f"fits     {table}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"picture  {path}", markup=False, highlight=False, soft_wrap=True)
    open_points = dataset.attrs.get("points", 1) - dataset.attrs.get("finished", 1)
    if open_points:
        console.print(f"{open_points} points of the study are not finished", highlight=False)


def _of_study(study_file: Path, runs: Path | None) -> tuple[Path, Figure, str]:
    """Return the collected dataset of a study, its figure, and its text."""
    from bilayer_orchestra.study.load import load_study
    from bilayer_orchestra.study.tasks import study_root

    study = load_study(study_file)
    if study.spec.figure is None:
        raise OrchestraError(f"{study_file} has no `figure` section, so there is nothing to draw")
    data = study_root(study, runs) / f"{study.name}.nc"
    if not data.exists():
        raise OrchestraError(
            f"{data} is not there; run `orchestra sweep {study_file}`, or `orchestra collect` on "
            "what is finished"
        )
    return data, study.spec.figure, study.text


def _stored_figure(text: str, data: Path) -> Figure:
    section = yaml_data(text).get("figure")
    if section is None:
        raise OrchestraError(
            f"the study of {data} has no `figure` section; add one to the study file and plot that"
        )
    return Figure.model_validate(section)
