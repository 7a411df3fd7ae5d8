"""DMRG in the real ITensorMPS against exact diagonalization and reference energies."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from bilayer_orchestra.dataset import schema as labelled
from bilayer_orchestra.engine_side.files import OUTPUT, load_arrays
from bilayer_orchestra.engines.itensor.engine import ITensorEngine
from bilayer_orchestra.engines.itensor.julia import find_julia, juliacall_problem
from bilayer_orchestra.errors import EngineError, Interrupted, MissingEngineError
from bilayer_orchestra.machine import thread_environment
from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.running.directory import RunDirectory
from bilayer_orchestra.running.point import Runner, make_request
from bilayer_orchestra.runtimes.child import LOG
from bilayer_orchestra.runtimes.local import LocalRuntime
from bilayer_orchestra.tuning.point import run_model
from tests.support.brute_force import assert_entropies
from tests.support.datasets import assert_matches
from tests.support.free_fermions import free_entropies, wick
from tests.support.models import make_model
from tests.support.processes import kill_when

try:
    JULIA = find_julia()
except MissingEngineError as problem:
    pytest.skip(f"ITensorMPS is missing: {problem}", allow_module_level=True)

BACKEND = ITensorEngine()
OBSERVABLES = ("density", "double_occupancy", "pair", "green", "density_density", "spin_spin")

SMALL = {
    "periodic": make_model({"n_up": 3, "n_down": 3}, boundary="periodic", t_perp=0.7),
    "polarized": make_model({"n_up": 3, "n_down": 1}),
    "polarized ring": make_model(
        {"n_up": 3, "n_down": 2}, 3, boundary="periodic", P={"hopping": 0.2}
    ),
    "P hops": make_model({"n_up": 2, "n_down": 2}, P={"hopping": 0.3}),
    "tilted": make_model(
        {"n_up": 2, "n_down": 2}, P={"chemical_potential": -1.1}, M={"chemical_potential": 0.7}
    ),
    "repulsive metal": make_model({"n_up": 3, "n_down": 3}, 3, M={"interaction": 2.0}),
    "two sites": make_model({"n_up": 1, "n_down": 1}, 1),
    "one spin": make_model({"n_up": 3, "n_down": 0}, 3),
}
FREE = make_model({"n_up": 3, "n_down": 2}, 3, P={"interaction": 0.0, "hopping": 0.2})
FREE_LONG = make_model(
    {"n_up": 3, "n_down": 2}, 8, P={"interaction": 0.0, "hopping": 0.2}, observables=("pair",)
)
CLOSE = make_model(
    {"n_up": 3, "n_down": 3}, t_perp=0.3, P={"interaction": -6.0}, observables=("pair",)
)
TRUNCATED = make_model(
    {"n_up": 3, "n_down": 3},
    5,
    observables=("pair",),
    numerics={"itensor": {"max_bond_dimension": 16, "initial_bond_dimension": 8}},
)
FULL = make_model({"n_up": 4, "n_down": 0}, 2)
LARGE_GAPS = [
    make_model({"n_up": 4, "n_down": 4}, M={"chemical_potential": 50.0}),
    make_model({"n_up": 4, "n_down": 4}, M={"chemical_potential": 200.0}),
]
MOVED = make_model(
    {"n_up": 3, "n_down": 3}, P={"chemical_potential": 100.0}, M={"chemical_potential": 100.0}
)
#: Where ITensorMPS with its own local solver ends in wrong states: (t_perp, electrons per spin).
FREEZING = {
    (t_perp, number): make_model({"n_up": number, "n_down": number}, t_perp=t_perp)
    for t_perp in (0.5, 0.3)
    for number in (2, 3)
}
UNPROVEN = make_model(
    {"n_up": 1, "n_down": 1}, 2, t_perp=0.8, numerics={"itensor": {"proof": False}}
)


def random_model(seed: int) -> Model:
    """Return a model of two to five rungs: any boundary, filling, polarization and couplings."""
    rng = np.random.default_rng(seed)
    length = int(rng.integers(2, 6))
    sites = 2 * length
    n_up = int(rng.integers(1, sites))
    n_down = n_up if rng.random() < 0.4 else int(rng.integers(0, sites))

    def between(low: float, high: float) -> float:
        return round(float(rng.uniform(low, high)), 3)

    return make_model(
        {"n_up": n_up, "n_down": n_down},
        length,
        boundary="periodic" if length > 2 and rng.random() < 0.5 else "open",
        t_perp=between(0.2, 1.2),
        P={
            "hopping": float(rng.choice([0.0, between(0.05, 0.6)])),
            "interaction": between(-8, -1),
            "chemical_potential": between(-1.5, 1.5),
        },
        M={
            "interaction": float(rng.choice([0.0, between(-3, -0.5), between(0.5, 4)])),
            "chemical_potential": between(-1.5, 1.5),
        },
    )


RANDOM = {seed: random_model(seed) for seed in range(100, 124)}
#: The others take seconds each.
QUICK = {seed: model for seed, model in RANDOM.items() if model.length <= 3}
LONG_TABLE = [
    # t_perp, energy, pair between the outer P sites: block2 (see docs/decisions/0006)
    (0.5, -24.894791, 0.2773),
    (0.3, -24.316569, 0.0243),
]
IN_ONE_GO = [*SMALL.values(), FREE, FREE_LONG, CLOSE, TRUNCATED, FULL, *FREEZING.values(), UNPROVEN]
IN_ONE_GO += [*LARGE_GAPS, MOVED]
IN_ONE_GO += QUICK.values()


HOSTILE = 'it\'s "$(rm x)" $HOME \\ é'
#: Takes long enough to be stopped in the middle.
STOPPED = make_model(
    {"n_up": 3, "n_down": 2},
    5,
    t_perp=0.4,
    observables=("pair",),
    numerics={"itensor": {"max_bond_dimension": 100}},
)


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


def solve_all(models: list[Model], root: Path) -> dict[int, xr.Dataset]:
    """All models through the engine's one entry function, in one Julia as a worker would do."""
    jobs = [write_job(model, root / str(k)) for k, model in enumerate(models)]
    process = julia("-e", "using OrchestraITensor; OrchestraITensor.run.(ARGS)", *jobs, cwd=root)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    return {id(m): read_job(m, job) for m, job in zip(models, jobs, strict=True)}


@pytest.fixture(scope="module")
def solved(tmp_path_factory: pytest.TempPathFactory) -> dict[int, xr.Dataset]:
    return solve_all(IN_ONE_GO, tmp_path_factory.mktemp("jobs"))


def assert_right_or_undetermined(dmrg: xr.Dataset, exact: xr.Dataset) -> None:
    """Every number within 1e-6 of exact; where the ground state is no single one, that is said."""
    for name in ("energy", "gap"):
        if int(exact.degeneracy) == 1 or name == "energy":
            np.testing.assert_allclose(dmrg[name], exact[name], atol=1e-6, err_msg=name)
    if int(exact.degeneracy) > 1 or float(exact.gap) < 1e-5:
        assert not dmrg.attrs["converged"]
        assert "not determined" in dmrg.attrs["converged_reason"]
        return
    assert dmrg.attrs["converged"], dmrg.attrs["converged_reason"]
    for name in ("kinetic_energy", "interaction_energy", *OBSERVABLES):
        np.testing.assert_allclose(dmrg[name], exact[name], atol=1e-6, err_msg=name)


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


@pytest.mark.parametrize("seed", QUICK)
def test_random_models(solved, solve, seed):
    assert_right_or_undetermined(solved[id(RANDOM[seed])], solve(RANDOM[seed], "exact"))


@pytest.mark.slow
def test_more_random_models(tmp_path, solve):
    models = [model for seed, model in RANDOM.items() if seed not in QUICK]
    for number, dmrg in solve_all(models, tmp_path).items():
        (model,) = (m for m in models if id(m) == number)
        assert_right_or_undetermined(dmrg, solve(model, "exact"))


@pytest.mark.parametrize("model", FREEZING.values(), ids=map(str, FREEZING))
def test_it_does_not_freeze(solved, solve, model):
    """Pairs that tunnel slowly: the usual local solver leaves them where they were."""
    dmrg, exact = solved[id(model)], solve(model, "exact")
    assert_right_or_undetermined(dmrg, exact)
    assert float(exact.gap) < 0.01
    assert dmrg.attrs["converged"]
    assert float(dmrg.energy_variance) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize(("t_perp", "energy", "pair"), LONG_TABLE)
def test_it_does_not_freeze_on_eight_rungs(solve, t_perp, energy, pair):
    long = solve(make_model({"n_up": 6, "n_down": 6}, 8, t_perp=t_perp), "itensor")
    assert long.attrs["converged"], long.attrs["converged_reason"]
    assert float(long.energy) == pytest.approx(energy, abs=1e-6)
    ends = {"x": 0, "layer": "P", "x_": 7, "layer_": "P"}
    assert float(long.pair.sel(ends)) == pytest.approx(pair, abs=2e-4)


@pytest.mark.slow
def test_reference_energy(solve):
    long = solve(make_model({"n_up": 3, "n_down": 3}, 8, t_perp=0.8), "itensor")
    assert float(long.energy) == pytest.approx(-13.3084592552, abs=1e-9)


@pytest.mark.parametrize(
    "name", ["polarized ring", "repulsive metal", "two sites", "polarized", "P hops", "tilted"]
)
def test_entanglement_entropy(solved, name):
    """Cuts between rungs and within them, from the Schmidt values of the exact ground state."""
    assert_entropies(solved[id(SMALL[name])], SMALL[name])


def test_entanglement_entropy_of_free_fermions(solved):
    green = wick(FREE_LONG.terms(), lambda levels, s: np.arange(len(levels)) < (3, 2)[s])["green"]
    free = free_entropies(green)  # the chain's order is that of the sites, rung by rung
    np.testing.assert_allclose(solved[id(FREE_LONG)].entanglement_entropy, free, atol=1e-6)
    assert free.max() > 1.0


def test_without_the_proof_nothing_is_called_converged(solved):
    unproven = solved[id(UNPROVEN)]
    assert float(unproven.energy) == pytest.approx(-4.354554895800679, abs=1e-10)
    assert not unproven.attrs["converged"]
    assert "not proven" in unproven.attrs["converged_reason"]


def test_a_sector_of_one_state(solved):
    """Every site holds one up electron: nothing to search and nothing orthogonal to it."""
    full = solved[id(FULL)]
    assert full.attrs["converged"], full.attrs["converged_reason"]
    np.testing.assert_allclose(full.density.sel(spin="up"), 1.0, atol=1e-12)
    assert float(full.energy) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("model", LARGE_GAPS)
def test_the_gap_is_none_of_the_penalty(solved, solve, model):
    dmrg, exact = solved[id(model)], solve(model, "exact")
    assert float(dmrg.gap) == pytest.approx(float(exact.gap), rel=1e-6)


def test_a_constant_in_the_chemical_potentials_changes_nothing(solved):
    for name in ("energy", "gap", "pair", "pair_bias"):
        np.testing.assert_array_equal(solved[id(MOVED)][name], solved[id(FREEZING[0.5, 3])][name])


@pytest.mark.parametrize("name", ["periodic", "polarized ring", "P hops", "tilted"])
def test_the_bias_covers_what_the_solver_leaves_where_nothing_is_truncated(solved, solve, name):
    dmrg, exact = solved[id(SMALL[name])], solve(SMALL[name], "exact")
    assert float(dmrg.discarded_weight) < 1e-14
    for observable in ("energy", "kinetic_energy", "interaction_energy", *OBSERVABLES):
        error, bias = np.abs(dmrg[observable] - exact[observable]), dmrg[f"{observable}_bias"]
        assert (bias > 0).all(), observable
        assert (error <= bias).all(), (observable, float((error / bias).max()))


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


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `julia dmrg.jl` alone has solved STOPPED, in a path that tempts a shell and Julia."""
    job = write_job(STOPPED, tmp_path_factory.mktemp("script") / HOSTILE)
    process = julia("dmrg.jl", cwd=job)
    assert process.communicate()[1] == b""
    assert process.returncode == 0
    return job


def test_script_killed_and_resumed(tmp_path, script):
    """kill -9 in the middle, and again: the numbers of a quiet run."""
    killed = write_job(STOPPED, tmp_path / HOSTILE)
    process = julia("dmrg.jl", cwd=killed)
    progress = killed / "progress.jsonl"
    kill_when(
        lambda: progress.exists() and progress.read_text().count('"step": "sweep"') >= 4, process
    )
    assert not (killed / OUTPUT).exists()
    process = julia("dmrg.jl", cwd=killed)
    assert process.communicate()[1] == b""
    assert process.returncode == 0
    events = [json.loads(line) for line in progress.read_text().splitlines()]
    resumed = [event for event in events if event["step"] == "resumed"]
    assert len(resumed) == 1
    assert resumed[0]["sweep"] >= 3
    expected, actual = load_arrays(script / OUTPUT), load_arrays(killed / OUTPUT)
    assert expected.keys() == actual.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, err_msg=name)
    assert not list(killed.glob("*.tmp"))


def test_the_whole_way_and_back(solve):
    """Through the run directory and the local runtime, as the command line does."""
    dataset = solve(make_model({"n_up": 1, "n_down": 1}, 2, t_perp=0.8), "itensor")
    assert float(dataset.energy) == pytest.approx(-4.354554895800679, abs=1e-10)
    assert "ITensorMPS" in dataset.attrs["engine"]


needs_juliacall = pytest.mark.skipif(
    juliacall_problem(JULIA) is not None, reason=str(juliacall_problem(JULIA))
)


class Hosted:
    """Jobs in one worker, as a sweep runs them."""

    def __init__(self) -> None:
        self.runtime = LocalRuntime(many=True)

    def run(self, job: Path, on_poll=lambda: None) -> str:
        """Solve what is in ``job``; return the process number of the worker."""
        rendered = BACKEND.render(make_request(SMALL["two sites"], BACKEND))
        with (job.parent / "lock").open("w") as lock:
            self.runtime.execute(rendered, BACKEND.tools(), job, lock.fileno(), on_poll)
        return re.findall(r"--- worker (\d+)", (job / LOG).read_text())[-1]


@pytest.fixture(scope="module")
def hosted():
    made = Hosted()
    yield made
    made.runtime.close()


@needs_juliacall
def test_one_julia_serves_many_points_and_leaves_the_files_of_the_script(tmp_path, hosted, script):
    """Also around a point that fails, and one that is interrupted and resumed."""
    first, broken, interrupted = (
        write_job(STOPPED, tmp_path / name) for name in (HOSTILE, "x", "y")
    )
    second = write_job(SMALL["two sites"], tmp_path / "second")
    worker = hosted.run(first)
    assert hosted.run(second) == worker
    (broken / "job.toml").write_text("n_up = ")
    with pytest.raises(EngineError, match="TOML Parser error"):
        hosted.run(broken)

    progress = interrupted / "progress.jsonl"

    def stop_after_three_sweeps() -> None:
        if progress.exists() and progress.read_text().count('"step": "sweep"') >= 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        hosted.run(interrupted, stop_after_three_sweeps)
    assert not (interrupted / OUTPUT).exists()
    hosted.run(interrupted)
    assert '"step": "resumed"' in progress.read_text()
    for job in (first, interrupted):
        assert (job / OUTPUT).read_bytes() == (script / OUTPUT).read_bytes(), job
    assert read_job(SMALL["two sites"], second).attrs["converged"]


@needs_juliacall
def test_densities_are_found(tmp_path, hosted):
    model = Model.model_validate(
        make_model({"n_up": 1, "n_down": 1}, 2, observables=("density",)).model_dump(
            exclude={"state"}, exclude_unset=True
        )
        | {"filling": {"P": 0.75, "M": 0.25}}
    )
    tuned = run_model(model, BACKEND, Runner(tmp_path, hosted.runtime)).dataset
    layers = tuned.density.sum("spin").mean("x")
    np.testing.assert_allclose(layers.sel(layer=["P", "M"]), [0.75, 0.25], atol=1e-5)


@pytest.mark.slow
def test_an_engine_that_fails_is_quoted(tmp_path):
    job = write_job(make_model({"n_up": 1, "n_down": 1}, 2), tmp_path)
    (job / "job.toml").write_text("n_up = ")
    process = julia("dmrg.jl", cwd=job)
    assert b"TOML Parser error" in process.communicate()[1]
    assert process.returncode != 0


@pytest.mark.slow
def test_beyond_the_dense_blocks(tmp_path, solve):
    """Large bond dimensions go through ITensorMPS's own contractions; here all do."""
    model = make_model({"n_up": 4, "n_down": 3}, boundary="periodic", P={"hopping": 0.2})
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
