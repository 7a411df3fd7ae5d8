"""Files under short names belong to one run: nothing of another model stays beside them."""

from __future__ import annotations

import os

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from bilayer_orchestra.cli.app import app
from bilayer_orchestra.dataset.schema import write_atomic
from bilayer_orchestra.running.published import FITS, make_room, owner, publish
from tests.support.fits import dataset, ring_green, strings
from tests.support.models import make_model


def orchestra(*arguments):
    done = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def model_file(tmp_path):
    path = tmp_path / "model.yaml"
    path.write_text(make_model({"n_up": 2, "n_down": 2}, 8, t_perp=0.8).to_yaml())
    return path


def of(path):
    with xr.open_dataset(path) as opened:
        return opened.attrs


def test_what_was_made_of_another_run_goes_with_it_and_comes_back(model_file, tmp_path):
    pytest.importorskip("matplotlib")
    root = tmp_path / "out"
    orchestra("run", model_file, "-o", root)
    first = of(root / "result.nc")["run"]
    assert (root / first / "run.json").exists()
    orchestra("fit", root / "result.nc", "--what", "pair")
    assert of(root / "fit.nc")["run"] == first
    kept = {name: (root / name).read_bytes() for name in ("result.png", *FITS)}

    said = orchestra("run", model_file, "-o", root, "--set", "t_perp=0.7", "--no-plot")
    second = of(root / "result.nc")["run"]
    assert second != first
    assert f"of another run: {root / first}" in said
    assert {path.name for path in root.iterdir()} == {first, second, "result.nc"}
    for name, content in kept.items():
        assert (root / first / name).read_bytes() == content

    orchestra("run", model_file, "-o", root)  # stored: back with all that belongs to it
    assert of(root / "result.nc")["run"] == first
    for name, content in kept.items():
        assert (root / name).read_bytes() == content

    # a new fit of the same run is not replaced by the one that was kept
    orchestra("fit", root / "result.nc", "--what", "pair", "--r-min", "2", "--no-plot")
    assert not (root / "fit.png").exists()
    orchestra("run", model_file, "-o", root)
    with xr.open_dataset(root / "fit.nc") as fit:
        assert (fit.pair_r_min.values[np.isfinite(fit.pair_r_min)] == 2).all()


def test_lists_tell_runs_of_one_name_apart(model_file, tmp_path):
    root = tmp_path / "out"
    orchestra("run", model_file, "-o", root, "--no-plot")
    said = orchestra("run", model_file, "-o", root, "--no-plot", "--set", "t_perp=0.25")
    assert "t_perp=0.25, n_up=2, n_down=2" in said
    orchestra(
        "run", model_file, "-o", root, "--no-plot", "-b", "exact",
        "--set", "state={beta: 2.5}", "--set", "length=2",
        "--set", "layers.M.chemical_potential=-0.5",
    )  # fmt: skip
    listed = " ".join(orchestra("status", root).split())
    for words in ("t_perp=0.8", "t_perp=0.25", "beta=2.5", "M.chemical_potential=-0.5", "length=2"):
        assert words in listed


def test_what_has_no_known_owner_is_kept_too(tmp_path):
    run = tmp_path / "new-exact-0123"
    run.mkdir()
    (run / "result.nc").write_bytes(b"new")
    (tmp_path / "result.nc").write_bytes(b"no dataset")
    (tmp_path / "result.png").write_bytes(b"old picture")
    (tmp_path / "fit.png").write_bytes(b"of a fit that is gone")
    said = []
    publish(run, tmp_path, said.append)
    assert (tmp_path / "result.nc").read_bytes() == b"new"
    assert not (tmp_path / "result.png").exists()
    assert (tmp_path / "of-another-run" / "result.png").read_bytes() == b"old picture"
    assert (tmp_path / "of-another-run" / "fit.png").exists()
    assert len(said) == 2


def test_an_attribute_does_not_lead_out_of_the_directory(tmp_path):
    one = xr.Dataset(attrs={"run": "../../elsewhere"})
    assert owner(one) == "elsewhere"
    (tmp_path / "in").mkdir()
    write_atomic(one, tmp_path / "in" / "fit.nc")
    make_room(tmp_path / "in", FITS, "mine", lambda text: None)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert (tmp_path / "in" / "elsewhere" / "fit.nc").exists()


def test_results_from_before_runs_were_named_belong_to_theirs():
    attributes = {"model_name": "a", "backend": "exact", "request_hash": "0123456789abcdef"}
    assert owner(xr.Dataset(attrs=attributes)) == "a-exact-0123456789ab"


def swept(values, name="sweep"):
    points = [dataset(strings(ring_green(32, n)), "periodic") for n in (16, 10)]
    one = xr.concat(points, xr.IndexVariable("t_perp", values))
    one["t_perp"].attrs["model_path"] = "t_perp"
    one.attrs |= {"study": "", "study_name": name}
    return one


def test_fits_of_two_sweeps_do_not_replace_each_other(tmp_path):
    write_atomic(swept([0.1, 0.2]), tmp_path / "one.nc")
    write_atomic(swept([0.1, 0.3]), tmp_path / "other.nc")
    orchestra("fit", tmp_path / "one.nc", "--what", "pair")
    orchestra("fit", tmp_path / "one.nc", "--what", "pair")
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    said = orchestra("fit", tmp_path / "other.nc", "--what", "pair")
    assert "fit.nc of another run: " in said
    with xr.open_dataset(tmp_path / "fit.nc") as fit:
        assert fit["t_perp"].values.tolist() == [0.1, 0.3]
    (kept,) = tmp_path.glob("sweep-*/fit.nc")
    with xr.open_dataset(kept) as fit:
        assert fit["t_perp"].values.tolist() == [0.1, 0.2]


STUDY = """\
version: 1
name: small
model: model.yaml
axes: {t_perp: [0.5]}
backends: [exact]
"""


def test_a_picture_of_another_study_does_not_stay_beside_its_data(model_file, tmp_path):
    model_file.write_text(make_model({"n_up": 1, "n_down": 1}, 2).to_yaml())
    study, root = tmp_path / "study.yaml", tmp_path / "out"
    study.write_text(STUDY)
    orchestra("sweep", study, "-o", root)
    (root / "small.png").write_bytes(b"its picture")
    orchestra("collect", study, "-o", root)
    assert (root / "small.png").exists()
    model_file.write_text(make_model({"n_up": 1, "n_down": 1}, 3).to_yaml())
    said = orchestra("sweep", study, "-o", root)
    assert "small.nc, small.png of another run" in said
    assert not (root / "small.png").exists()
    assert (len(list(root.glob("small-*/small.nc"))), (root / "small.nc").exists()) == (1, True)


def test_what_nobody_knows_the_origin_of_is_never_replaced(tmp_path):
    run = tmp_path / "new-exact-0123"
    run.mkdir()
    (run / "result.nc").write_bytes(b"new")
    (tmp_path / "of-another-run-1").write_bytes(b"a file of the user")
    for text in (b"one", b"two", b"three"):
        (tmp_path / "result.nc").unlink(missing_ok=True)
        (tmp_path / "result.nc").write_bytes(text)
        publish(run, tmp_path, lambda line: None)
    kept = [path.read_bytes() for path in sorted(tmp_path.glob("of-another-run*/result.nc"))]
    assert kept == [b"one", b"two", b"three"]


def test_a_pipe_in_the_place_of_a_file_does_not_hold_the_program_up(tmp_path):
    run = tmp_path / "new-exact-0123"
    run.mkdir()
    (run / "result.nc").write_bytes(b"new")
    os.mkfifo(tmp_path / "result.nc")
    publish(run, tmp_path, lambda line: None)
    assert (tmp_path / "result.nc").read_bytes() == b"new"


def test_limits_of_two_sweeps_do_not_replace_each_other(tmp_path):
    for k, energies in enumerate(([-1.9, -1.6], [-3.9, -3.6])):
        data = xr.Dataset(
            {"energy": ("dtau", energies)},
            {"dtau": [0.1, 0.2]},
            {"study": "", "model": f"length: {k}", "study_name": "sweep"},
        )
        write_atomic(data, tmp_path / f"sweep{k}.nc")
        orchestra("extrapolate", tmp_path / f"sweep{k}.nc", "--model", "trotter")
    (kept,) = tmp_path.glob("sweep-*/limit.nc")
    with xr.open_dataset(kept) as first, xr.open_dataset(tmp_path / "limit.nc") as last:
        assert float(first.energy) == pytest.approx(-2.0)
        assert float(last.energy) == pytest.approx(-4.0)
