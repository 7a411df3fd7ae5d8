"""DMRG in the real ITensorMPS against exact diagonalization and reference energies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from bilayer_orchestra import dataset as labelled
from bilayer_orchestra.backends.itensor.backend import ITensorBackend
from bilayer_orchestra.engine_io import OUTPUT, load_arrays
from bilayer_orchestra.engines.julia import find_julia
from bilayer_orchestra.errors import MissingEngineError
from bilayer_orchestra.machine import thread_environment
from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.pipeline import make_request
from bilayer_orchestra.runs import RunDirectory
from tests.conftest import make_model
from tests.test_exact import assert_matches, wick

try:
    JULIA = find_julia()
except MissingEngineError as problem:
    pytest.skip(f"ITensorMPS is missing: {problem}", allow_module_level=True)

BACKEND = ITensorBackend()
OBSERVABLES = ("density", "double_occupancy", "pair", "green", "density_density", "spin_spin")

SMALL = {
    "open": make_model({"n_up": 3, "n_down": 3}),
    "periodic": make_model({"n_up": 3, "n_down": 3}, boundary="periodic", t_perp=0.7),
    "polarized": make_model({"n_up": 3, "n_down": 1}),
    "polarized ring": make_model({"n_up": 4, "n_down": 3}, boundary="periodic", P={"hopping": 0.2}),
    "P hops": make_model({"n_up": 2, "n_down": 2}, P={"hopping": 0.3}),
    "tilted": make_model(
        {"n_up": 2, "n_down": 2}, P={"chemical_potential": -1.1}, M={"chemical_potential": 0.7}
    ),
    "repulsive metal": make_model({"n_up": 3, "n_down": 3}, 3, M={"interaction": 2.0}),
    "gap 1.5e-4": make_model({"n_up": 3, "n_down": 3}, t_perp=0.3),
    "two sites": make_model({"n_up": 1, "n_down": 1}, 1),
    "one spin": make_model({"n_up": 3, "n_down": 0}, 3),
}
FREE = make_model({"n_up": 3, "n_down": 2}, 3, P={"interaction": 0.0, "hopping": 0.2})
CLOSE = make_model(
    {"n_up": 3, "n_down": 3}, t_perp=0.3, P={"interaction": -6.0}, observables=("pair",)
)
TRUNCATED = make_model(
    {"n_up": 3, "n_down": 3},
    6,
    observables=("pair",),
    numerics={"itensor": {"max_bond_dimension": 16, "initial_bond_dimension": 8}},
)
FULL = make_model({"n_up": 4, "n_down": 0}, 2)
LONG = make_model({"n_up": 3, "n_down": 3}, 8, t_perp=0.8)
IN_ONE_GO = [*SMALL.values(), FREE, CLOSE, TRUNCATED, FULL, LONG]


def write_job(model: Model, directory: Path) -> Path:
    run = RunDirectory(directory)
    run.write_job(BACKEND.render(make_request(model, BACKEND)), model.to_yaml())
    return run.job


def read_job(model: Model, directory: Path) -> xr.Dataset:
    request = make_request(model, BACKEND)
    averages = BACKEND.parse(directory, request)
    built = labelled.build(request.terms, averages, request.observables)
    built.attrs |= {"converged": averages.converged, "converged_reason": averages.reason}
    return built


def julia(*arguments: str | Path, cwd: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **thread_environment(1), **JULIA.environment}
    command = [str(JULIA.binary), "--startup-file=no", *map(str, arguments)]
    return subprocess.Popen(command, cwd=cwd, env=environment, stderr=subprocess.PIPE)


@pytest.fixture(scope="module")
def solved(tmp_path_factory: pytest.TempPathFactory) -> dict[int, xr.Dataset]:
    """All models through the engine's one entry function, in one Julia as a worker would do."""
    root = tmp_path_factory.mktemp("jobs")
    jobs = [write_job(model, root / str(k)) for k, model in enumerate(IN_ONE_GO)]
    process = julia("-e", "using OrchestraITensor; OrchestraITensor.run.(ARGS)", *jobs, cwd=root)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    return {id(m): read_job(m, job) for m, job in zip(IN_ONE_GO, jobs, strict=True)}


@pytest.mark.parametrize("model", SMALL.values(), ids=SMALL.keys())
def test_every_observable_against_exact(solved, solve, model):
    dmrg, exact = solved[id(model)], solve(model, "exact")
    assert dmrg.attrs["converged"], dmrg.attrs["converged_reason"]
    for name in ("energy", "kinetic_energy", "interaction_energy", *OBSERVABLES):
        np.testing.assert_allclose(dmrg[name], exact[name], atol=1e-6, err_msg=name)
    assert float(dmrg.gap) == pytest.approx(float(exact.gap), rel=0.01)
    error = np.abs(dmrg.pair - exact.pair).max()
    assert float(error) < max(10 * float(np.abs(dmrg.pair_bias).max()), 1e-7)


def test_free_fermions(solved):
    filled = {0: 3, 1: 2}
    expected = wick(FREE.terms(), lambda levels, s: np.arange(len(levels)) < filled[s])
    assert_matches(solved[id(FREE)], expected, 1e-6)


def test_reference_energy(solved):
    assert float(solved[id(LONG)].energy) == pytest.approx(-13.3084592552, abs=1e-9)


def test_a_sector_of_one_state(solved):
    """Every site holds one up electron: nothing to search and nothing orthogonal to it."""
    full = solved[id(FULL)]
    assert full.attrs["converged"], full.attrs["converged_reason"]
    np.testing.assert_allclose(full.density.sel(spin="up"), 1.0, atol=1e-12)
    assert float(full.energy) == pytest.approx(0.0, abs=1e-12)


def test_states_too_close_to_tell_apart_are_not_called_converged(solved, solve):
    """Gap 1.2e-6 (exact): the energy is right, the correlators are anybody's guess."""
    dmrg, exact = solved[id(CLOSE)], solve(CLOSE, "exact")
    assert float(dmrg.energy) == pytest.approx(float(exact.energy), abs=1e-8)
    assert not dmrg.attrs["converged"]
    assert "correlators are not determined" in dmrg.attrs["converged_reason"]


def test_too_small_a_bond_dimension_is_not_called_converged(solved, solve):
    dmrg, exact = solved[id(TRUNCATED)], solve(TRUNCATED, "exact")
    assert not dmrg.attrs["converged"]
    assert "max_bond_dimension" in dmrg.attrs["converged_reason"]
    assert abs(float(dmrg.energy - exact.energy)) < 3 * abs(float(dmrg.energy_bias))


def test_script_from_a_hostile_path_killed_and_resumed(tmp_path):
    """`julia dmrg.jl` alone, kill -9 in the middle, and again: the numbers of a quiet run."""
    model = make_model({"n_up": 3, "n_down": 2}, 5, t_perp=0.4, observables=("pair",))
    hostile = tmp_path / 'it\'s "$(rm x)" $HOME \\ é'
    killed, quiet = write_job(model, hostile / "killed"), write_job(model, hostile / "quiet")
    process = julia("dmrg.jl", cwd=killed)
    progress = killed / "progress.jsonl"
    try:
        while not progress.exists() or progress.read_text().count('"step": "sweep"') < 4:
            assert process.poll() is None, process.communicate()[1].decode()
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not (killed / OUTPUT).exists()
    for place in (killed, quiet):
        process = julia("dmrg.jl", cwd=place)
        assert process.communicate()[1] == b""
        assert process.returncode == 0
    events = [json.loads(line) for line in progress.read_text().splitlines()]
    resumed = [event for event in events if event["step"] == "resumed"]
    assert len(resumed) == 1
    assert resumed[0]["sweep"] >= 3
    expected, actual = load_arrays(quiet / OUTPUT), load_arrays(killed / OUTPUT)
    assert expected.keys() == actual.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, err_msg=name)
    assert not list(killed.glob("*.tmp"))


def test_the_whole_way_and_back(solve):
    """Through the run directory and the local runtime, as the command line does."""
    dataset = solve(make_model({"n_up": 1, "n_down": 1}, 2, t_perp=0.8), "itensor")
    assert float(dataset.energy) == pytest.approx(-4.354554895800679, abs=1e-10)
    assert "ITensorMPS" in dataset.attrs["engine"]


def test_an_engine_that_fails_is_quoted(tmp_path):
    job = write_job(make_model({"n_up": 1, "n_down": 1}, 2), tmp_path)
    (job / "job.toml").write_text("n_up = ")
    process = julia("dmrg.jl", cwd=job)
    assert b"TOML Parser error" in process.communicate()[1]
    assert process.returncode != 0


@pytest.mark.slow
def test_beyond_the_dense_blocks(tmp_path, solve):
    """Large bond dimensions go through ITensorMPS's own contractions; here all do."""
    model = SMALL["polarized ring"]
    job = write_job(model, tmp_path)
    with (job / "job.toml").open("a") as settings:
        settings.write("dense_bond = 0\n")
    process = julia("dmrg.jl", cwd=job)
    assert process.communicate()[1] == b""
    dmrg, exact = read_job(model, job), solve(model, "exact")
    assert dmrg.attrs["converged"], dmrg.attrs["converged_reason"]
    for name in OBSERVABLES:
        np.testing.assert_allclose(dmrg[name], exact[name], atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_against_block2_on_sixteen_rungs(solve):
    pytest.importorskip("block2", reason="block2 is missing: pip install block2")
    model = make_model({"n_up": 12, "n_down": 12}, 16)
    ours, other = solve(model, "itensor"), solve(model, "block2")
    allowed = 3 * (abs(float(ours.energy_bias)) + abs(float(other.energy_bias))) + 1e-7
    assert abs(float(ours.energy - other.energy)) < allowed
    np.testing.assert_allclose(ours.pair, other.pair, atol=1e-3)
