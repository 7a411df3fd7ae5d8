"""Study files: expansion, every problem with its line, sweeps that go on, one dataset."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from bilayer_orchestra.engines.registry import get_engine
from bilayer_orchestra.errors import SpecError
from bilayer_orchestra.running.directory import find_runs
from bilayer_orchestra.running.point import Runner, run_point
from bilayer_orchestra.study.load import load_study
from tests.support.commands import ORCHESTRA, orchestra
from tests.support.processes import kill_when, wait_until
from tests.support.studies import STUDY, write


def problems(tmp_path: Path, *changes: tuple[str, str]) -> list[str]:
    text = STUDY
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    with pytest.raises(SpecError) as caught:
        load_study(write(tmp_path, text))
    return caught.value.problems


def test_axes_are_crossed_and_zipped_values_move_together(tmp_path):
    study = load_study(write(tmp_path))
    assert study.shape == (2, 2, 2)
    seen = [
        (p.model.t_perp, p.model.layers.P.interaction, p.model.state.n_up, p.model.state.n_down)
        for p in study.points
    ]
    assert seen == [(t, u, up, 1) for t in (0.5, 0.8) for u in (-2.0, -4.0) for up in (1, 2)]
    assert study.points[0].name == "t_perp=0.5,U=-2,filling=1"


def test_names_stay_when_axes_grow(tmp_path):
    before = {p.name: p.model for p in load_study(write(tmp_path)).points}
    grown = STUDY.replace("t_perp: [0.5, 0.8]", "t_perp: [0.1, 0.5, 0.8, 0.9]")
    after = {p.name: p.model for p in load_study(write(tmp_path, grown)).points}
    assert len(after) == 16
    assert {name: after[name] for name in before} == before


def test_the_base_model_may_stand_in_its_own_file(tmp_path):
    inline = load_study(write(tmp_path))
    (tmp_path / "sub").mkdir()
    head, rest = STUDY.split("model:\n", 1)
    body, axes = rest.split("axes:\n")
    write(tmp_path, "version: 1\nname: scan\n" + body.replace("\n  ", "\n").lstrip(), "base.yaml")
    study = load_study(
        write(tmp_path, f"{head}model: ../base.yaml\naxes:\n{axes}", "sub/study.yaml")
    )
    assert [p.model for p in study.points] == [p.model for p in inline.points]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([("[-2, -4.0]", "[\u22122, -4.0]")], ["line 14: .*mixes numbers.*minus sign"]),
        ([("[0.5, 0.8]", "[0.5, -1e400]")], ["line 13: `axes.t_perp.1` should be finite"]),
        ([("  t_perp: 0.5", "  t_prep: 0.5")], ["line 10: unknown key `t_prep`"]),
        ([("U: {path: layers.P", "U: {path: layers.Q")], ["line 14: unknown key `layers.Q`"]),
        ([("n_up: [1, 2]", "n_up: [1, 20]")], ["line 16: .*n_up = 20 does not fit"]),
        ([("n_down: [1, 1]", "n_down: [1]")], ["line 16: .* equal length"]),
        ([("[exact]", "[exakt]")], ["line 17: .*names `exakt`"]),
        ([("filling:", "pair:")], ["line 16: .*means something else"]),
        ([("  t_perp: [", "  t_perp.deep: [")], ["line 13: .*no keys inside"]),
        ([("t_perp: [0.5, 0.8]", "t_perp: [0.5, 0.5]")], ["line 13: .*twice"]),
        ([("U: {path: layers.P.interaction", "U: {path: state.n_up")], ["line 16: .*axis too"]),
        (
            [("[0.5, 0.8]", "[0.5, {a: 1}]"), ("filling:", "9x:"), ("version: 1", "versoin: 1")],
            ["line 1: unknown key `versoin`", "line 13: .*number or a word", "line 16: .*label"],
        ),
        ([("length: 2", "length: 0"), ("open", "opne")], ["line 5: `length`", "line 6: .*open"]),
    ],
)
def test_every_problem_in_one_go_with_its_line(tmp_path, changes, expected):
    found = problems(tmp_path, *changes)
    assert len(found) == len(expected), found
    for text, pattern in zip(found, expected, strict=True):
        assert re.match(pattern, text), (text, pattern)


def test_a_point_that_an_engine_refuses_stops_the_study_before_anything_runs(tmp_path):
    text = STUDY.replace("t_perp: [0.5, 0.8]", "length: [2, 40]").replace(
        "n_up: [1, 2]", "n_up: [1, 20]"
    )
    text = text.replace("n_down: [1, 1]", "n_down: [1, 20]").replace("[-2, -4.0]", "[-2]")
    text = text.replace("length: [2, 40]", "length: [20, 40]")
    done = orchestra("sweep", write(tmp_path, text), "-o", tmp_path / "runs")
    assert done.returncode == 1
    assert "states" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.lowest
def test_sweep_fills_one_dataset_with_the_numbers_of_single_runs(tmp_path):
    path = write(tmp_path)
    done = orchestra("sweep", path, "-o", tmp_path / "runs", "--jobs", 2)
    assert done.returncode == 0, done.stderr
    dataset = xr.open_dataset(tmp_path / "runs/scan.nc")
    assert dict(dataset.energy.sizes) == {"t_perp": 2, "U": 2, "filling": 2}
    assert dataset.n_down.dims == ("filling",)
    assert (dataset.status == "finished").all()
    # closed reference: two rungs, U = -4, t_perp = 0.8, 1 up 1 down
    energy = dataset.energy.sel(t_perp=0.8, U=-4, filling=1)
    assert abs(float(energy) + 4.354554895800679) < 1e-10
    for point in load_study(path).points:
        single = run_point(point.model, get_engine("exact"), Runner(tmp_path / "runs"))
        assert single.reused  # the study shares its results
        where = dict(zip(("t_perp", "U", "filling"), point.index, strict=True))
        for name in ("energy", "pair", "density", "green"):
            np.testing.assert_array_equal(dataset[name].isel(where), single.dataset[name])
    assert len(find_runs(tmp_path / "runs")) == 8


@pytest.mark.lowest
def test_chains_of_different_length_and_several_engines_share_a_dataset(tmp_path):
    pytest.importorskip("block2", reason="block2 is missing")
    text = STUDY.replace("t_perp: [0.5, 0.8]", "length: [2, 3]").replace("[-2, -4.0]", "[-4.0]")
    text = text.replace("[exact]", "[exact, block2]")
    done = orchestra("sweep", write(tmp_path, text), "-o", tmp_path / "runs", "-j", 2)
    assert done.returncode == 0, done.stderr
    dataset = xr.open_dataset(tmp_path / "runs/scan.nc")
    assert dataset.sizes["x"] == 3
    assert dataset.density.sel(length=2, x=2).isnull().all()
    assert dataset.density.sel(length=3).notnull().all()
    difference = dataset.energy.sel(backend="exact") - dataset.energy.sel(backend="block2")
    assert float(abs(difference).max()) < 1e-8


def test_a_failed_point_does_not_stop_the_others(tmp_path):
    """The point with U = -2 finds a directory where its job file belongs."""
    path = write(tmp_path)
    study = load_study(path)
    from bilayer_orchestra.running.directory import RunDirectory

    bad = RunDirectory.for_request(tmp_path / "runs", study.points[0].model, get_engine("exact"))
    (bad.job / "job.json").mkdir(parents=True)
    done = orchestra("sweep", path, "-o", tmp_path / "runs")
    assert done.returncode == 1
    assert "7 of 8 points finished" in done.stdout
    assert "failed    t_perp=0.5,U=-2,filling=1" in done.stdout
    dataset = xr.open_dataset(tmp_path / "runs/scan.nc")
    where = {"t_perp": 0.5, "U": -2, "filling": 1}
    assert np.isnan(dataset.energy.sel(where))
    assert int(dataset.energy.isnull().sum()) == 1
    assert dataset.status.sel(where) == "failed"
    assert "cannot write" in str(dataset.message.sel(where).values)
    (bad.job / "job.json").rmdir()
    again = orchestra("sweep", path, "-o", tmp_path / "runs")
    assert again.returncode == 0, again.stdout
    assert again.stdout.count("  finished\n") == 1  # the others were there


def test_killed_sweep_keeps_what_is_finished_and_goes_on(tmp_path):
    path = write(tmp_path)
    process = subprocess.Popen(
        [*ORCHESTRA, "sweep", str(path), "-o", str(tmp_path / "runs")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    kill_when(lambda: list(tmp_path.glob("runs/*/result.nc")), process)
    done = {p: p.stat().st_mtime_ns for p in tmp_path.glob("runs/*/result.nc")}
    assert done
    partial = orchestra("collect", path, "-o", tmp_path / "runs")
    assert partial.returncode == 0, partial.stderr
    count = int((xr.load_dataset(tmp_path / "runs/scan.nc").status == "finished").sum())
    assert len(done) <= count < 8
    assert orchestra("sweep", path, "-o", tmp_path / "runs").returncode == 0
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in done.items())
    assert (xr.load_dataset(tmp_path / "runs/scan.nc").status == "finished").all()


def test_ctrl_c_stops_every_engine_and_stores_the_partial_dataset(tmp_path):
    pytest.importorskip("block2", reason="block2 is missing")
    text = STUDY.replace("length: 2", "length: 10").replace("[exact]", "[block2]")
    text = text.replace("n_up: [1, 2], state.n_down: [1, 1]", "n_up: [5], state.n_down: [5]")
    process = subprocess.Popen(
        [*ORCHESTRA, "sweep", str(write(tmp_path, text)), "-o", str(tmp_path / "runs"), "-j", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONFAULTHANDLER": "1"},
    )
    wait_until(lambda: len(list(tmp_path.glob("runs/*/job/progress.jsonl"))) == 2, process)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert "0 of 4 points finished" in stdout
    assert {run.status()[0] for run in find_runs(tmp_path / "runs")} == {"failed"}
