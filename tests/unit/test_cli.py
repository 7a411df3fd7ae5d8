"""The command line as a user sees it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import xarray as xr

from bilayer_orchestra.engines.registry import get_engine
from bilayer_orchestra.errors import MissingEngineError
from bilayer_orchestra.running.choice import AUTO, engine_for
from tests.support.commands import orchestra
from tests.support.models import make_model


@pytest.fixture
def model_file(tmp_path):
    path = tmp_path / "model.yaml"
    path.write_text(make_model({"n_up": 1, "n_down": 1}, 2, t_perp=0.8).to_yaml())
    return path


def test_run_prints_a_table_and_leaves_dataset_and_picture(model_file, tmp_path):
    done = orchestra("run", model_file, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for text in ("-4.3545548958", "density per site", "converged", "runs/test/result.nc"):
        assert text in done.stdout
    assert (tmp_path / "runs/test/result.png").read_bytes().startswith(b"\x89PNG")
    assert "stored" not in done.stdout
    again = orchestra("run", model_file, cwd=tmp_path)
    assert "stored" in again.stdout


def test_set_makes_another_run_beside_the_first(model_file, tmp_path):
    assert orchestra("run", model_file, "-o", tmp_path / "out", "--no-plot").returncode == 0
    changed = orchestra("run", model_file, "-o", tmp_path / "out", "--no-plot", "--set", "t_perp=0")
    assert changed.returncode == 0, changed.stderr
    assert len(list((tmp_path / "out").glob("test-exact-*/result.nc"))) == 2
    published = xr.load_dataset(tmp_path / "out" / "result.nc")
    assert "t_perp: 0.0" in published.attrs["model"]


def test_render_writes_what_would_run_and_runs_nothing(model_file, tmp_path):
    done = orchestra("render", model_file, "-b", "exact", "-o", tmp_path / "job")
    assert done.returncode == 0, done.stderr
    job = json.loads((tmp_path / "job/job/job.json").read_text())
    assert job["terms"]["state"] == {"n_up": 1, "n_down": 1}
    assert (tmp_path / "job/model.yaml").exists()
    assert not list((tmp_path / "job").rglob("output.npz"))
    command = done.stdout.split("by hand:")[1].strip()
    by_hand = command.replace(" python ", f" {sys.executable} ")
    subprocess.run(["/bin/sh", "-c", by_hand], check=True, cwd=tmp_path)
    assert (tmp_path / "job/job/output.npz").exists()


def test_status_lists_runs(model_file, tmp_path):
    orchestra("run", model_file, "-o", tmp_path / "out", "--no-plot")
    done = orchestra("status", tmp_path / "out")
    assert "finished" in done.stdout
    empty = orchestra("status", tmp_path / "nothing")
    assert (empty.returncode, "no runs" in empty.stderr) == (1, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "MODEL", "-b", "magic"),
        ("run", "MODEL", "--runtime", "cloud"),
        ("run", "none.yaml"),
        ("run", "MODEL", "-b", "block2", "--set", "state={beta: 2.0}"),
        ("run", "MODEL", "-b", "exact", "--set", "length=6", "--set", "state={beta: 2.0}"),
        ("run", "MODEL", "-b", "exact", "--set", "length=50"),
    ],
)
def test_failures_are_one_message_without_traceback(arguments, model_file, tmp_path):
    done = orchestra(*(model_file if a == "MODEL" else a for a in arguments), cwd=tmp_path)
    assert done.returncode != 0
    assert done.stderr.startswith("orchestra: ")
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.lowest
def test_usage_errors_and_version():
    assert orchestra("run").returncode == 2
    assert orchestra("nonsense").returncode == 2
    assert orchestra("--version").stdout.startswith("orchestra ")


def test_help_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['orchestra', '--help']\n"
        "from bilayer_orchestra.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', "
        "'scipy', 'xarray', 'matplotlib', 'pydantic', 'block2'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_auto_picks_what_fits():
    assert engine_for(make_model({"n_up": 1, "n_down": 1}, 2), AUTO).name == "exact"
    assert engine_for(make_model({"beta": 2.0}, 4), AUTO).name == "exact"
    pytest.importorskip("block2", reason="block2 is missing: pip install block2")
    assert engine_for(make_model({"n_up": 8, "n_down": 8}, 16), AUTO).name == "block2"


def test_auto_names_what_is_missing(monkeypatch):
    def missing():
        raise MissingEngineError("no ALF here")

    monkeypatch.setattr(get_engine("alf"), "version", missing)
    with pytest.raises(MissingEngineError, match="no ALF here"):
        engine_for(make_model({"beta": 2.0}, 12), AUTO)
