"""Options and fixtures of all tests; what they share besides is in tests/support."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr
from hypothesis import settings

from bilayer_orchestra.engines.registry import get_engine
from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.running.point import Runner
from bilayer_orchestra.tuning.point import run_model

# how long an example takes says nothing here: other things run on the machine as well
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests that take minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
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


@pytest.fixture
def solve(tmp_path: Path) -> Callable[[Model, str], xr.Dataset]:
    """Run a model on a backend, as the command line does, and return its dataset."""

    def run(model: Model, backend: str) -> xr.Dataset:
        return run_model(model, get_engine(backend), Runner(tmp_path / "runs")).dataset

    return run
