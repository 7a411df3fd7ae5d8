"""What docs/quickstart.md says to type, typed in that order."""

from __future__ import annotations

import re
import shlex
import shutil

import pytest
import xarray as xr

from tests.support.commands import orchestra
from tests.support.paths import ROOT


def commands():
    """Every line of the quickstart that begins with `orchestra`, without its comment."""
    text = (ROOT / "docs" / "quickstart.md").read_text()
    return re.findall(r"^    (orchestra .*?)(?:\s+#.*)?$", text, re.MULTILINE)


def test_every_command_of_the_quickstart_works_in_order(tmp_path):
    pytest.importorskip("block2")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    # to be quick: four electrons instead of six, one point of a study instead of twelve
    for file, changes in {
        "bilayer": {"{n_up: 3, n_down: 3}": "{n_up: 2, n_down: 2}"},
        "study": {"[0.2, 0.5, 0.8]": "[0.5]", "[-2, -4]": "[-4]", "[2, 3]": "[2]"},
    }.items():
        path = tmp_path / "examples" / f"{file}.yaml"
        text = path.read_text()
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        path.write_text(text)
    typed = commands()
    assert len(typed) >= 7
    for command in typed:
        done = orchestra(*shlex.split(command)[1:], cwd=tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert done.stderr == "", command
    root = tmp_path / "runs" / "doped-bilayer"
    with xr.open_dataset(root / "result.nc") as result:
        own = root / result.attrs["run"]
    # what lies beside each other is of one run; the fit of the first is with the first
    for name in ("result.nc", "result.png"):
        assert (root / name).read_bytes() == (own / name).read_bytes()
    assert not (root / "fit.nc").exists()
    (fit,) = root.glob("*/fit.nc")
    assert {"fit.png", "result.nc"} <= {path.name for path in fit.parent.iterdir()}
    with xr.open_dataset(fit) as fitted, xr.open_dataset(fit.with_name("result.nc")) as first:
        assert fitted.attrs["run"] == first.attrs["run"] == fit.parent.name
        assert fitted.attrs["model"] == first.attrs["model"]
