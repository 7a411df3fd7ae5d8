"""What the version before the redesign computed is read, reused and judged the same.

`tests/data/golden` holds run directories of version 0.1 with its engines' output, and what it said
of them. Versions of the engines are those of the records, whatever is installed here.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from bilayer_orchestra.checking.plan import Check, _sector_engine, compare_files, usable_engines
from bilayer_orchestra.dataset.reading import is_stochastic, systematics_of
from bilayer_orchestra.dataset.schema import open_result
from bilayer_orchestra.engines.registry import get_engine
from bilayer_orchestra.errors import OrchestraError, OtherVersionError
from bilayer_orchestra.model.spec import load_model
from bilayer_orchestra.observables import FITTED
from bilayer_orchestra.running.directory import find_runs, request_hash
from bilayer_orchestra.running.point import Runner, make_request
from bilayer_orchestra.runtimes.base import AttachedRuntime
from bilayer_orchestra.tuning.point import run_model

GOLDEN = Path(__file__).parent / "data" / "golden"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
RUNS = [key for key in EXPECTED if "/" in key]
CHECKS = [key for key in EXPECTED if "/" not in key]


class NoRuntime(AttachedRuntime):
    """Nothing is computed again."""

    name = "none"

    def execute(self, *arguments):
        raise AssertionError("computed again")


@pytest.fixture(params=RUNS)
def run(request, monkeypatch):
    """(case, model, engine of that version, what was expected)."""
    case, name = request.param.split("/")
    engine, expected = get_engine(name), EXPECTED[request.param]
    monkeypatch.setattr(engine, "version", lambda: expected["version"])
    return case, load_model(GOLDEN / f"{case}.json"), engine, expected


def test_identities_are_the_same(run):
    case, model, engine, expected = run
    assert request_hash(model, engine) == expected["hash"]
    assert Runner(GOLDEN / case).run_directory(model, engine).path.name == expected["run"]


def test_results_are_reused(run, tmp_path):
    case, model, engine, expected = run
    shutil.copytree(GOLDEN / case, tmp_path / "runs")
    outcome = run_model(model, engine, Runner(tmp_path / "runs", NoRuntime()))
    assert outcome.reused
    assert float(outcome.dataset["energy"]) == expected["energy"]
    assert int(outcome.dataset.attrs["converged"]) == expected["converged"]


def test_engine_output_is_read_the_same(run):
    case, model, engine, expected = run
    if getattr(model, "filling", None) is not None:
        pytest.skip("a search has the output of its steps")
    directory = GOLDEN / case / expected["run"]
    dataset = open_result(directory / "result.nc")
    averages = model.reported(engine.parse(directory / "job", make_request(model, engine)))
    assert averages.converged == expected["converged"]
    for name, value in averages.values.items():
        if name in dataset and np.ndim(value) == 0:
            assert float(value) == pytest.approx(float(dataset[name]), abs=1e-12)
            bias = float(dataset[f"{name}_bias"])
            np.testing.assert_allclose(averages.bias.get(name, np.nan), bias, rtol=1e-6)


@pytest.mark.parametrize("case", CHECKS)
def test_verdicts_are_the_same(case):
    order = ("exact", "block2", "itensor", "alf")  # as they were compared
    names = [name for name in order if f"{case}/{name}" in EXPECTED]
    results = {
        name: open_result(GOLDEN / case / EXPECTED[f"{case}/{name}"]["run"] / "result.nc")
        for name in names
    }
    outcome = compare_files(results, case)
    assert outcome.word == EXPECTED[case]["word"]
    said = {
        f"{pair.first} {pair.second}": [pair.word, {f.name: f.word for f in pair.findings}]
        for pair in outcome.verdicts
    }
    assert said == EXPECTED[case]["pairs"]


def test_old_files_get_the_statement_of_the_engine_that_wrote_them():
    for key in RUNS:
        case, name = key.split("/")
        dataset = open_result(GOLDEN / case / EXPECTED[key]["run"] / "result.nc")
        engine = get_engine(name)
        assert is_stochastic(dataset) == engine.stochastic
        assert systematics_of(dataset) == engine.systematics


def test_runs_are_listed():
    for case in {key.split("/")[0] for key in RUNS}:
        assert {run.status()[0] for run in find_runs(GOLDEN / case)} == {"finished"}


def test_another_version_is_named_and_offered_and_never_computed_again_in_silence(run, monkeypatch):
    case, model, engine, expected = run
    monkeypatch.setattr(engine, "version", lambda: "another version")
    with pytest.raises(OrchestraError, match="computed with ") as caught:
        Runner(GOLDEN / case, any_version=None).run_directory(model, engine)
    assert expected["version"] in str(caught.value)
    for taken in (True, False):
        runner = Runner(GOLDEN / case, any_version=taken)
        name = runner.run_directory(model, engine).path.name
        assert (name == expected["run"]) == taken


@pytest.mark.parametrize("case", ["ring", "thermal", "anderson"])
def test_a_check_asks_as_well(case, tmp_path, monkeypatch):
    """Without the choice `check` computed again in silence, or went on without the engine."""
    model = load_model(GOLDEN / f"{case}.json")
    names = [key.split("/")[1] for key in RUNS if key.startswith(f"{case}/")]
    for name in names:
        monkeypatch.setattr(get_engine(name), "version", lambda: "another version")
    shutil.copytree(GOLDEN / case, tmp_path / "runs")

    def check(any_version):
        one = Check(model, names, tmp_path / "runs", lambda line: None, any_version=any_version)
        one.runtime = NoRuntime()
        return one

    with pytest.raises(OtherVersionError, match="--any-version takes it"):
        check(None).run()
    with pytest.raises(AssertionError, match="computed again"):
        check(False).run()
    if case == "thermal":  # a ground state's check looks at more than what is stored
        assert check(True).run().word == EXPECTED[case]["word"]


@pytest.fixture
def all_installed(monkeypatch):
    for name in ("exact", "block2", "itensor", "alf"):
        monkeypatch.setattr(get_engine(name), "version", lambda: "some version")


@pytest.mark.usefixtures("all_installed")
def test_a_check_has_the_order_that_it_had():
    """The first engine tunes a filling: with another one, every potential and run is new."""
    model = load_model(GOLDEN / "ground.json")
    assert usable_engines(model)[0] == ["exact", "block2", "itensor", "alf"]


@pytest.mark.usefixtures("all_installed")
def test_sectors_are_solved_by_the_engine_that_solved_them():
    base = load_model(GOLDEN / "ground.json").replace(length=6)
    solved = {
        electrons: _sector_engine(
            base.replace(state={"n_up": electrons[0], "n_down": electrons[1]})
        ).name
        for electrons in ((4, 4), (5, 4), (5, 5))
    }
    assert solved == {(4, 4): "exact", (5, 4): "exact", (5, 5): "block2"}


def test_fits_have_the_order_that_they_had():
    assert list(FITTED) == ["pair", "density", "green"]
