"""Options and shared helpers of the test suite."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from bilayer_orchestra.backends.registry import get_backend
from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.pipeline import run_point
from bilayer_orchestra.runtimes.local import LocalRuntime


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests that take minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # one test there takes minutes: at the end it would run alone
    items.sort(key=lambda item: item.path.name != "test_image_builds.py")
    if config.getoption("--slow"):
        return
    seen: Counter[str] = Counter()
    for item in items:
        if cases := item.get_closest_marker("cases"):
            test = item.nodeid.partition("[")[0]
            seen[test] += 1
            if seen[test] > cases.args[0]:
                item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="takes minutes; run with --slow"))


def make_model(state: dict[str, Any], length: int = 4, **changes: Any) -> Model:
    """Return a bilayer with U_P = -4, t_M = 1, t_perp = 0.5 and the given changes.

    ``P`` and ``M`` update a layer; every other key replaces one of the file.
    """
    data: dict[str, Any] = {
        "version": 1,
        "name": "test",
        "model": "bilayer",
        "length": length,
        "boundary": "open",
        "layers": {
            "P": {"hopping": 0.0, "interaction": -4.0, "chemical_potential": 0.0},
            "M": {"hopping": 1.0, "interaction": 0.0, "chemical_potential": 0.0},
        },
        "t_perp": 0.5,
        "state": state,
    }
    for layer in ("P", "M"):
        data["layers"][layer] |= changes.pop(layer, {})
    return Model.model_validate(data | changes)


@pytest.fixture
def solve(tmp_path: Path) -> Callable[[Model, str], xr.Dataset]:
    """Run a model on a backend, as the command line does, and return its dataset."""

    def run(model: Model, backend: str) -> xr.Dataset:
        return run_point(model, get_backend(backend), LocalRuntime(), tmp_path / "runs").dataset

    return run


def site_matrix(dataset: xr.Dataset, name: str) -> Any:
    """Return a two-point function as a matrix over sites ordered P0 M0 P1 M1 ..."""
    stacked = dataset[name].stack(i=("x", "layer"), j=("x_", "layer_"))
    order = [(x, layer) for x in dataset.x.values for layer in ("P", "M")]
    return stacked.sel(i=order, j=order).transpose(..., "i", "j").values


def no_locks(folder: Path, number: int) -> dict[str, str]:
    """Return an environment in which flock answers ``number``, as on a file system without locks.

    With a C compiler for everything, HDF5 and flock(1) included, else for Python alone.
    """
    words = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(folder / "no_locks.so")]
    code = f"#include <errno.h>\nint flock(int fd, int how) {{ errno = {number}; return -1; }}\n"
    if shutil.which("cc"):
        subprocess.run(words, input=code, text=True, check=True)
        return os.environ | {"LD_PRELOAD": str(folder / "no_locks.so")}
    (folder / "sitecustomize.py").write_text(
        "import fcntl\ndef flock(*_):\n"
        f"    raise OSError({number}, 'no locks')\nfcntl.flock = flock\n"
    )
    return os.environ | {"PYTHONPATH": str(folder)}
