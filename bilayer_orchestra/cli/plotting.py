"""``orchestra plot``: the figure of a study, or the correlations of one result."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bilayer_orchestra.cli.options import Style

if TYPE_CHECKING:
    import xarray as xr

    from bilayer_orchestra.study.spec import Figure


def plot(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="STUDY.yaml|FILE.nc", help="a study, its collected dataset, or a result"
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help=".png, .pdf or .svg [next to the data]")
    ] = None,
    runs: Annotated[
        Path | None, typer.Option(help="directory of the runs, as given to sweep [runs/NAME]")
    ] = None,
    style: Style = None,
) -> None:
    """Draw the figure of a study, or the correlations of one result."""
    from bilayer_orchestra.dataset.schema import open_result, write_atomic
    from bilayer_orchestra.display.console import output_console
    from bilayer_orchestra.errors import OrchestraError
    from bilayer_orchestra.plots.try_to_draw import draw

    if target.suffix in (".yaml", ".yml"):
        data, figure, study = _of_study(target, runs)
    else:
        data, figure, study = target, None, None
    dataset = open_result(data)
    stored = str(dataset.attrs.get("study", ""))
    if study is not None and _computed(study) != _computed(stored):
        raise OrchestraError(
            f"{data} is that of another version of {target}; bring it up to date with "
            f"`orchestra collect {target}`"
        )
    if figure is None and stored:
        figure = _stored_figure(stored, data)
    path = output or data.with_suffix(".png")
    if not path.parent.is_dir():
        raise OrchestraError(f"there is no directory {path.parent}")
    if path.suffix not in (".png", ".pdf", ".svg"):
        raise OrchestraError(f"{path}: pictures end in .png, .pdf or .svg")
    console = output_console()

    def picture() -> "xr.Dataset | None":
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
        console.say(f"fits     {table}")
    console.say(f"picture  {path}")
    open_points = dataset.attrs.get("points", 1) - dataset.attrs.get("finished", 1)
    if open_points:
        console.say(f"{open_points} points of the study are not finished")


def _computed(study: str) -> dict[str, object]:
    """Return what the text of a study computes, whatever it draws."""
    from bilayer_orchestra.dataset.parameters import yaml_data

    return yaml_data(study) | {"figure": None}


def _of_study(study_file: Path, runs: Path | None) -> "tuple[Path, Figure, str]":
    """Return the collected dataset of a study, its figure, and its text."""
    from bilayer_orchestra.errors import OrchestraError
    from bilayer_orchestra.study.load import load_study

    study = load_study(study_file)
    if study.spec.figure is None:
        raise OrchestraError(f"{study_file} has no `figure` section, so there is nothing to draw")
    data = study.root(runs) / f"{study.name}.nc"
    if not data.exists():
        raise OrchestraError(
            f"{data} is not there; run `orchestra sweep {study_file}`, or `orchestra collect` on "
            "what is finished"
        )
    return data, study.spec.figure, study.text


def _stored_figure(text: str, data: Path) -> "Figure":
    from bilayer_orchestra.dataset.parameters import yaml_data
    from bilayer_orchestra.errors import OrchestraError
    from bilayer_orchestra.study.spec import Figure

    section = yaml_data(text).get("figure")
    if section is None:
        raise OrchestraError(
            f"the study of {data} has no `figure` section; add one to the study file and plot that"
        )
    return Figure.model_validate(section)
