"""Figures of studies: named values on axes, what is drawn, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from bilayer_orchestra.cli.results import plot
from bilayer_orchestra.dataset.schema import open_result, write_atomic
from bilayer_orchestra.errors import OrchestraError, SpecError
from bilayer_orchestra.plots.common import curve
from bilayer_orchestra.plots.study_figure import draw_figure, single
from bilayer_orchestra.running.point import Runner
from bilayer_orchestra.study.collect import collect
from bilayer_orchestra.study.load import load_study
from bilayer_orchestra.study.run import run_points
from bilayer_orchestra.study.spec import Figure
from bilayer_orchestra.study.tasks import make_tasks
from tests.support.figures import ENSEMBLES, Quiet


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    (folder / "study.yaml").write_text(ENSEMBLES)
    study = load_study(folder / "study.yaml")
    runner = Runner(folder / "runs")
    tasks = make_tasks(study, runner)
    run_points(tasks, runner, 1, Quiet())
    dataset = collect(study, tasks).dataset
    write_atomic(dataset, folder / "runs" / "small.nc")
    return folder


@pytest.mark.lowest
def test_named_values_are_sections_of_the_model(collected):
    dataset = open_result(collected / "runs" / "small.nc")
    assert dataset["ensemble"].values.tolist() == ["ground", "beta = 3"]
    study = load_study(collected / "study.yaml")
    assert [point.name for point in study.points[:2]] == [
        "t_perp=0.5,ensemble=ground",
        "t_perp=0.5,ensemble=beta = 3",
    ]
    assert study.points[0].model.terms().state == (2, 2)
    assert study.points[1].model.terms().state.beta == 3.0
    # the numbers of both ensembles are their own
    pair = dataset["pair"].sel(layer="P", layer_="P")
    assert not np.allclose(pair.sel(ensemble="ground"), pair.sel(ensemble="beta = 3"))


def test_a_named_value_may_leave_a_section_out(tmp_path):
    text = ENSEMBLES.replace("ground: {n_up: 2, n_down: 2}", "ground: null").replace(
        "  state: {n_up: 2, n_down: 2}\n", "  filling: {P: 0.6666666667, M: 0.6666666667}\n"
    )
    (tmp_path / "study.yaml").write_text(text)
    points = load_study(tmp_path / "study.yaml").points
    assert (points[0].model.state.n_up, points[1].model.state.beta) == (2, 3.0)
    # what is left out was there before
    text = text.replace("  filling:", "  state: {beta: 7.0}\n  filling:")
    (tmp_path / "study.yaml").write_text(text)
    assert load_study(tmp_path / "study.yaml").points[0].model.state.n_up == 2


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("beta = 3: {beta: 3.0}", "beta = 3: {beta: -3.0}", "line 19"),
        ("beta = 3: {beta: 3.0}", "beta = 3: [1, 2]", "should be one value, or a section"),
        ("beta = 3: {beta: 3.0}", "beta = 3: {n_up: 2, n_down: 2}", "has a value twice"),
        ("beta = 3: {beta: 3.0}", "'a/b': {beta: 3.0}", "is no name"),
        ("along: ensemble", "along: temperature", "names no axis; there are: t_perp, ensemble"),
        ("panels: t_perp", "panels: U", "`figure.panels` names no axis"),
        ("panels: t_perp", "reference: cold", "no value of ensemble; there are: ground, beta = 3"),
        ("kind: temperature", "kind: histogram", "line 22"),
    ],
)
def test_mistakes_are_told_with_their_line(tmp_path, old, new, expected):
    assert old in ENSEMBLES
    (tmp_path / "study.yaml").write_text(ENSEMBLES.replace(old, new))
    with pytest.raises(SpecError) as error:
        load_study(tmp_path / "study.yaml")
    assert expected in str(error.value)


def ring(point):
    """The same numbers, said to be those of a ring, by the file and by the point itself."""
    if "model" in point:
        text = str(point["model"].item()).replace("open", "periodic")
        point = point.assign(model=((), text))
    return point.assign_attrs(model=point.attrs["model"].replace("open", "periodic"))


def test_curves_are_means_over_pairs_and_errors_are_kept(collected):
    point = open_result(collected / "runs" / "small.nc").isel(t_perp=0, ensemble=0)
    one = curve(point, "pair", "M")
    matrix = point["pair"].sel(layer="M", layer_="M").values
    assert one.mean == pytest.approx([(matrix[0, 1] + matrix[1, 2]) / 2, matrix[0, 2]])
    noisy = point.assign(pair_stderr=xr.full_like(point["pair"], 0.3), pair_bias=point["pair"] * 0)
    assert curve(noisy, "pair", "M").error == pytest.approx([0.3, 0.3])
    half = one.scaled(-0.5)
    assert half.mean == pytest.approx(-0.5 * one.mean)
    assert half.error == pytest.approx(0.5 * one.error)
    around = curve(ring(point), "pair", "M")
    assert around.r.tolist() == [1]
    assert around.mean == pytest.approx((matrix[0, 1] + matrix[1, 2] + matrix[0, 2]) / 3)


def test_ends_of_an_open_chain_are_left_out_of_averages(collected):
    point = open_result(collected / "runs" / "small.nc").isel(t_perp=0, ensemble=0)
    longer = point[["pair"]].isel(x=[0, 0, 1, 2, 1, 0, 2], x_=[0, 0, 1, 2, 1, 0, 2])
    longer = longer.assign_coords(x=range(7), x_=range(7))
    matrix = longer["pair"].sel(layer="M", layer_="M").values
    one = curve(longer, "pair", "M")
    assert one.r.tolist() == [1, 2, 3, 4]  # sites 1 to 5 of 0 to 6
    assert one.mean[-1] == pytest.approx(matrix[1, 5])
    assert curve(ring(longer), "pair", "M").r.tolist() == [1, 2, 3]
    assert curve(longer, "pair", "M", ends=True).r.tolist() == [1, 2, 3, 4, 5, 6]


def test_a_panel_does_not_mix_points(collected):
    dataset = open_result(collected / "runs" / "small.nc")
    with pytest.raises(OrchestraError, match="leaves the axis t_perp open"):
        single(dataset.isel(ensemble=0), "pair")
    with pytest.raises(OrchestraError, match="leaves the axis t_perp open"):
        draw_figure(dataset, Figure(kind="temperature", along="ensemble"), collected / "mixed.png")
    assert not (collected / "mixed.png").exists()


@pytest.mark.parametrize("kind", ["decay", "comparison", "temperature", "exponents"])
def test_every_kind_is_drawn_from_what_is_there(collected, tmp_path, kind):
    dataset = open_result(collected / "runs" / "small.nc").copy(deep=True)
    dataset["pair"][0, 1] = np.nan  # a point that is missing
    figure = Figure(kind=kind, along="t_perp", panels="ensemble")
    if kind == "exponents":  # three sites do not determine a fit
        with pytest.raises(OrchestraError, match="pair"):
            draw_figure(dataset, figure, tmp_path / "x.png")
        return
    draw_figure(dataset, figure, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 10_000


def test_plot_takes_a_study_its_dataset_or_a_result(collected, tmp_path):
    runs = collected / "runs"
    plot(collected / "study.yaml", None, runs)
    assert (runs / "small.png").exists()
    plot(runs / "small.nc", tmp_path / "own.pdf", None)
    assert (tmp_path / "own.pdf").read_bytes().startswith(b"%PDF")
    (result, *_) = runs.glob("*/result.nc")
    plot(result, tmp_path / "one.svg", None)
    assert "<svg" in (tmp_path / "one.svg").read_text()
    with pytest.raises(OrchestraError, match="orchestra sweep"):
        plot(collected / "study.yaml", None, tmp_path)
    with pytest.raises(OrchestraError, match=r"\.png, \.pdf or \.svg"):
        plot(result, tmp_path / "one.doc", None)
    bare = ENSEMBLES[: ENSEMBLES.index("figure:")]
    (tmp_path / "bare.yaml").write_text(bare)
    with pytest.raises(OrchestraError, match="no `figure` section"):
        plot(tmp_path / "bare.yaml", None, runs)
