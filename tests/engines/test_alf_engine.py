"""The real ALF: kills, damage, refusals, and numbers against exact diagonalization.

Everything with numbers has fixed seeds and fixed sweeps, so a test gives the same result each time.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bilayer_orchestra.averages import Averages
from bilayer_orchestra.engines.alf.installation import find_alf, probe
from bilayer_orchestra.engines.alf.projection import not_projected
from bilayer_orchestra.engines.registry import get_engine
from bilayer_orchestra.errors import EngineError, MissingEngineError
from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.running.directory import RunDirectory
from bilayer_orchestra.running.point import Runner, make_request, run_point
from bilayer_orchestra.terms import Terms
from bilayer_orchestra.testing.statistics import chi_squared
from tests.support.alf import chain_bytes, missing_alf, segments
from tests.support.discretized import averages
from tests.support.models import make_model
from tests.support.paths import DATA
from tests.support.processes import kill_when

WHY_NOT = missing_alf()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=f"{WHY_NOT}")

BACKEND = get_engine("alf")
FILES = ("Pair_eq", "Green_eq", "Den_eq", "SpinXY_eq", "Kin_scal", "Ener_scal")


def model_of(state: dict[str, object], length: int, alf: dict[str, object], **changes) -> Model:
    return make_model(state, length, numerics={"alf": {"chains": 2, **alf}}, **changes)


def job_of(model: Model, path: Path) -> Path:
    """Write a job and return its directory."""
    run = RunDirectory(path)
    run.write_job(BACKEND.render(make_request(model, BACKEND)), model.to_yaml())
    # short first segments, so that a small job has several
    script = run.job / "run.sh"
    script.write_text(re.sub(r"first_(\d)=\d+", r"first_\1=5", script.read_text()))
    return run.job


def start(job: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **BACKEND.tools().environment}
    return subprocess.Popen(
        ["sh", "run.sh"], cwd=job, env=environment, stderr=subprocess.PIPE, start_new_session=True
    )


def finish(job: Path) -> str:
    """Run a job to its end and return what it wrote to stderr."""
    process = start(job)
    _, text = process.communicate(timeout=300)
    assert process.returncode == 0, text.decode()
    return text.decode()


def small(**alf) -> Model:
    """A job of about two seconds with several segments."""
    settings = {"dtau": [0.2, 0.1], "sweeps": 4000, "sweeps_per_bin": 50, **alf}
    return model_of({"beta": 2.0}, 3, settings, t_perp=0.8)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A job that was never interrupted."""
    job = job_of(small(), tmp_path_factory.mktemp("whole"))
    finish(job)
    return job


def assert_same_bins(job: Path, whole: Path) -> None:
    for step in (0, 1):
        for chain in (0, 1):
            for name in FILES:
                assert chain_bytes(job, name, step, chain) == chain_bytes(whole, name, step, chain)
    assert not list(job.rglob("*.part"))


def test_the_binary_found_here_works():
    assert probe(find_alf().binary) is None


def test_wanted_sweeps_are_done_and_chains_differ(whole):
    for step in (0, 1):
        bins = [
            sum(int((s / "bins").read_text()) for s in segments(whole, step, c)) for c in (0, 1)
        ]
        assert bins == [80, 80]
    first = [chain_bytes(whole, "Pair_eq", 0, chain) for chain in (0, 1)]
    assert first[0] != first[1]


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_killed_and_resumed_chains_have_the_same_bins(tmp_path, whole, sign):
    """Killed again and again, in the middle of segments, by a signal to the script alone."""
    job = job_of(small(), tmp_path / "run")
    for more in (0, 1, 3, 2):

        def finished() -> int:
            return len([path for path in job.glob("*/*/seg-*") if path.suffix != ".part"])

        wanted = finished() + more
        kill_when(
            lambda wanted=wanted: finished() >= wanted and any(job.glob("*/*/seg-*.part")),
            start(job),
            sign,
        )
    assert finished() < len(list(whole.rglob("seg-*")))
    finish(job)
    assert_same_bins(job, whole)


def test_orchestrator_killed_hard_leaves_no_child_and_resumes(tmp_path, whole):
    """kill -9 of `orchestra run`; the next one takes over, with the same bins."""
    file = tmp_path / "model.yaml"
    file.write_text(small().to_yaml())
    command = [sys.executable, "-m", "bilayer_orchestra.cli.main", "run", str(file)]
    command += ["--backend", "alf", "--output", str(tmp_path / "out"), "--no-plot"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    kill_when(lambda: list(tmp_path.glob("out/*/job/dtau-*/chain-*/seg-*")), process)
    done = subprocess.run(command, stdout=subprocess.DEVNULL, timeout=60, check=False)
    assert done.returncode == 0
    (run,) = (tmp_path / "out").glob("*/job")
    assert_same_bins(run, whole)


def test_stale_running_file_is_understood(tmp_path, whole):
    """ALF refuses to start where RUNNING is; a killed segment leaves one behind."""
    job = job_of(small(), tmp_path / "run")
    part = job / "dtau-0" / "chain-0" / "seg-0001.part"
    part.mkdir()
    (part / "RUNNING").touch()
    (part / "Pair_eq").write_text("half a bin of a run that was killed")
    finish(job)
    assert_same_bins(job, whole)


def test_damaged_bins_are_computed_again(tmp_path, whole):
    """A changed digit, a missing segment, a truncated file: found on resuming, by checksum."""
    job = tmp_path / "job"
    shutil.copytree(whole, job)
    digit = segments(job, 1, 0)[1] / "Pair_eq"
    text = bytearray(digit.read_bytes())
    text[-100:-99] = b"7" if text[-100:-99] != b"7" else b"3"
    digit.write_bytes(text)
    shutil.rmtree(segments(job, 0, 0)[0])
    cut = segments(job, 0, 1)[-1] / "confout_0"
    cut.write_bytes(cut.read_bytes()[:40])
    said = finish(job)
    assert "dtau-1/chain-0/seg-0002 is damaged" in said
    assert_same_bins(job, whole)


def test_a_finished_job_is_not_run_again(tmp_path, whole):
    job = tmp_path / "job"
    shutil.copytree(whole, job)
    before = sorted(job.rglob("*"))
    finish(job)
    assert sorted(job.rglob("*")) == before


def test_failure_shows_what_alf_said(tmp_path):
    """Parameters that ALF refuses: its message, no later segment, no stale state."""
    job = job_of(small(), tmp_path / "run")
    parameters = job / "dtau-1" / "parameters"
    parameters.write_text(parameters.read_text().replace("beta = 2.0", "beta = 2.05"))
    process = start(job)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"beta is not a whole number of steps" in text
    assert b"exit code 6" in text
    assert not segments(job, 1)
    parameters.write_text(parameters.read_text().replace("beta = 2.05", "beta = 2.0"))
    finish(job)  # mended: it goes on


def test_missing_binary_is_one_clear_message(tmp_path, monkeypatch):
    monkeypatch.setenv("ORCHESTRA_ALF", str(tmp_path / "nothing"))
    with pytest.raises(MissingEngineError, match="does not exist; build it"):
        run_point(small(), BACKEND, Runner(tmp_path))


def test_wrong_binary_is_one_clear_message(tmp_path, monkeypatch):
    monkeypatch.setenv("ORCHESTRA_ALF", shutil.which("false"))
    with pytest.raises(EngineError, match="exit code 1"):
        run_point(small(), BACKEND, Runner(tmp_path))
    assert "exit code 1" in (probe(Path(shutil.which("false"))) or "")


def test_time_budget_ends_the_run_and_counts_over_resumes(tmp_path):
    settings = {"time_budget": 4.0, "dtau": 0.2}
    model = model_of({"beta": 2.0}, 3, settings, t_perp=0.8)
    job = job_of(model, tmp_path / "run")

    def spent() -> list[int]:
        return [
            sum(int((s / "milliseconds").read_text()) for s in segments(job, 0, c)) for c in (0, 1)
        ]

    kill_when(lambda: min(spent()) > 1500, start(job))
    before = spent()
    finish(job)
    # without what was spent before the kill it would be 5500 at least
    assert all(3000 <= milliseconds <= 5000 for milliseconds in spent())
    assert all(now > then for now, then in zip(spent(), before, strict=True))
    done = segments(job, 0, 0) + segments(job, 0, 1)
    finish(job)  # nothing left to do
    assert segments(job, 0, 0) + segments(job, 0, 1) == done


def test_run_stops_at_its_target(tmp_path):
    settings = {"time_budget": 120.0, "dtau": 0.2, "target_stderr": {"pair": 0.01}}
    model = model_of({"beta": 2.0}, 2, settings, t_perp=0.8, observables=["pair"])
    lines: list[str] = []
    outcome = run_point(model, BACKEND, Runner(tmp_path, tell=lines.append))
    assert "target reached, stopping" in lines[-1]
    assert float(outcome.dataset.pair_stderr.max()) < 0.01
    assert any("acceptance" in line and "target 0.01" in line for line in lines)


# ---- numbers ----------------------------------------------------------------------------------
#
# chi^2/dof of one matrix of p elements scatters by sqrt(2/p) and more (its covariance is measured
# too): one run of a correct program is outside 0.6 ... 1.5 every fourth time for p = 10. So every
# case is run with several seeds, each run with its own covariance, and the mean of their chi^2/dof
# is judged. With 6 seeds at p = 36, or 16 at p = 10, and about 120 degrees of freedom in each
# covariance, noise alone leaves the bounds with a probability of 1e-4 per matrix (Hotelling's
# distribution), 1e-3 for all of them. Short runs with many seeds are sharper than a long one: the
# covariances are tested as often as there are seeds, and what is left of dtau^4 stays below the
# errors. Seeds and bins are fixed, so that a machine gives the same numbers each time.

UNEQUAL = {"P": {"chemical_potential": -2.2}, "M": {"chemical_potential": -0.5}}
MATRICES = ("pair", "green", "density_density", "spin_spin")
RECORDED = DATA / "exact_four_rungs.json"


def averages_of(model: Model, backend: str, path: Path) -> Averages:
    """Run a model as the command line does and return what its backend read."""
    run = run_point(model, get_engine(backend), Runner(path)).run
    return get_engine(backend).parse(run.job, make_request(model, get_engine(backend)))


def with_seeds(count: int, model: Callable[[int], Model], path: Path) -> list[Averages]:
    return [averages_of(model(seed), "alf", path) for seed in range(1, count + 1)]


def chi2_of(found: Averages, name: str, expected: np.ndarray) -> float:
    """chi^2/dof of a matrix with its whole covariance."""
    plane = (0,) if name == "green" else ()
    upper = np.triu_indices(expected.shape[-1])
    deviations = found.deviations[name][(slice(None), *plane)][:, upper[0], upper[1]]
    difference = (found.values[name] - expected)[plane][upper]
    degrees = found.attributes[name]["covariance_degrees_of_freedom"]
    return chi_squared(difference, deviations, degrees)


def assert_agree(found: list[Averages], exact: dict[str, np.ndarray]) -> None:
    """Every element of the mean over seeds within 4 sigma, and chi^2/dof of the matrices near 1."""
    for name, expected in exact.items():
        difference = np.mean([one.values[name] for one in found], axis=0) - expected
        error = np.sqrt(np.mean([one.stderr[name] ** 2 for one in found], axis=0) / len(found))
        moving = error > 1e-12
        score = np.abs(difference[moving]) / error[moving]
        assert score.max(initial=0.0) < 4, (name, score.max())
        assert np.abs(difference[~moving]).max(initial=0.0) < 1e-8, name
    for name in MATRICES:
        chi2 = np.mean([chi2_of(one, name, exact[name]) for one in found])
        assert 0.6 < chi2 < 1.5, (name, chi2)


def recorded(boundary: str, model: Model) -> dict[str, np.ndarray]:
    """Exact thermal averages of 65 536 states, which take minutes to compute."""
    record = json.loads(RECORDED.read_text())[boundary]
    assert record["terms"] == json.loads(json.dumps(model.terms().to_dict()))
    return {name: np.array(value) for name, value in record["values"].items()}


def four_rungs(boundary: str, seed: int = 1) -> Model:
    settings = {"dtau": [0.1, 0.05], "sweeps": 2000, "sweeps_per_bin": 4, "seed": seed}
    return model_of({"beta": 4.0}, 4, settings, **UNEQUAL, boundary=boundary)


@pytest.mark.slow
@pytest.mark.parametrize("boundary", ["open", "periodic"])
def test_four_rungs_with_unequal_potentials_against_exact(tmp_path, boundary):
    found = with_seeds(6, lambda seed: four_rungs(boundary, seed), tmp_path)
    assert_agree(found, recorded(boundary, four_rungs(boundary)))


@pytest.mark.slow
@pytest.mark.parametrize("boundary", ["open", "periodic"])
def test_recorded_averages_are_exact(tmp_path, boundary):
    model = four_rungs(boundary)
    exact = averages_of(model, "exact", tmp_path).values
    record = recorded(boundary, model)
    assert record.keys() == exact.keys()
    for name, value in exact.items():
        np.testing.assert_allclose(record[name], value, atol=1e-9)


@pytest.mark.slow
def test_strong_attraction_at_low_temperature_against_exact(tmp_path):
    def model(seed: int) -> Model:
        settings = {"dtau": [0.1, 0.05], "sweeps": 800, "sweeps_per_bin": 2, "seed": seed}
        layers = {"P": {"interaction": -8.0, "chemical_potential": -4.3}}
        return model_of({"beta": 10.0}, 2, settings, **layers, t_perp=0.8)

    exact = averages_of(model(1), "exact", tmp_path).values
    assert_agree(with_seeds(16, model, tmp_path), exact)


@pytest.mark.slow
def test_projector_against_exact(tmp_path):
    def model(seed: int) -> Model:
        settings = {"dtau": [0.2, 0.1], "sweeps": 800, "sweeps_per_bin": 4, "seed": seed}
        settings["projection_time"] = 8.0
        return model_of({"n_up": 2, "n_down": 2}, 2, settings, t_perp=1.2)

    exact = averages_of(model(1), "exact", tmp_path).values
    assert_agree(with_seeds(16, model, tmp_path), exact)


@pytest.mark.slow
def test_one_coarse_step_against_its_own_exact_ensemble(tmp_path):
    """A single step samples the discretized weight, which four sites allow to sum exactly.

    No extrapolation stands between: statistics and discretization are told apart.
    """

    def model(seed: int) -> Model:
        settings = {"dtau": 0.125, "sweeps": 4000, "sweeps_per_bin": 10, "seed": seed}
        layers = {"P": {"hopping": 0.4, **UNEQUAL["P"]}, "M": UNEQUAL["M"]}
        return model_of({"beta": 2.0}, 2, settings, **layers, t_perp=0.8)

    terms = model(1).terms()
    exact, limit = discretized(terms, 0.125), discretized(terms, 0.0)
    found = with_seeds(16, model, tmp_path)
    assert_agree(found, exact)
    with pytest.raises(AssertionError):  # sharp enough to see the discretization
        assert_agree(found, limit)


def discretized(terms: Terms, dtau: float) -> dict[str, np.ndarray]:
    """Matrices of the discretized ensemble; see tests/support/discretized.py."""
    raw = averages(terms, dtau).reshape(-1, len(MATRICES))
    matrices = np.zeros((len(MATRICES), 4, 4))
    for k, (i, j) in enumerate(zip(*np.triu_indices(4), strict=True)):
        matrices[:, i, j] = matrices[:, j, i] = raw[k]
    pair, green, density, spin = matrices
    n = 2 * green.diagonal()
    return {
        "pair": pair,
        "green": np.stack([green, green]),
        "density_density": density - np.outer(n, n),
        "spin_spin": spin,
    }


def test_short_projection_is_seen(tmp_path):
    """A gap of 0.11 needs a projection time of 40; 5 is off by 0.2 in the pair correlation."""
    settings = {"dtau": 0.2, "sweeps": 2000, "sweeps_per_bin": 20, "projection_time": 5.0}
    changes = {"t_perp": 1.0, "boundary": "periodic", "observables": ["pair"]}
    model = model_of({"n_up": 2, "n_down": 2}, 4, settings, **changes)
    outcome = run_point(model, BACKEND, Runner(tmp_path))
    assert not outcome.dataset.attrs["converged"]
    reason = outcome.dataset.attrs["converged_reason"]
    assert "computed exactly in this sector of 784 states" in reason
    # and without any exact state, by half of the time
    alone = not_projected(outcome.run.job / "dtau-0", model.terms().n_sites, 5.0)
    assert re.search(r"pair still changes .* between projection times 2.5 and 5", alone)


@pytest.mark.parametrize("length", [3, 4])
def test_a_degenerate_level_is_not_determined_whatever_the_error_bars(tmp_path, length):
    number = length - 1
    model = model_of(
        {"n_up": number, "n_down": number}, length, {"dtau": [0.2, 0.1], "sweeps": 200}, t_perp=0.0
    )
    dataset = run_point(model, BACKEND, Runner(tmp_path)).dataset
    assert float(dataset.pair_stderr.max()) < 1e-12
    assert not dataset.attrs["converged"]
    assert "correlators are not determined" in dataset.attrs["converged_reason"]
    exact = run_point(model, get_engine("exact"), Runner(tmp_path)).dataset
    error = np.abs(dataset.pair - exact.pair)
    assert float(error.max()) == pytest.approx(number / length, abs=1e-6)
    assert (error <= 1.001 * dataset.pair_bias + 1e-9).all()


@pytest.mark.parametrize("state", [{"beta": 2.0}, {"n_up": 2, "n_down": 2}], ids=["T > 0", "T = 0"])
def test_free_electrons_are_exact_and_converged(tmp_path, state):
    """Neither noise nor a Trotter error: what is left is rounding, and no reason against."""
    model = model_of(state, 3, {"sweeps": 400}, P={"interaction": 0.0})
    dataset = run_point(model, BACKEND, Runner(tmp_path)).dataset
    assert dataset.attrs["converged"], dataset.attrs["converged_reason"]
    exact = run_point(model, get_engine("exact"), Runner(tmp_path)).dataset
    for name in ("energy", *MATRICES):
        error = np.abs(dataset[name] - exact[name])
        assert (error <= dataset[f"{name}_bias"]).all(), name
        assert float(dataset[f"{name}_bias"].max()) < 1e-9, name


def out_of_reach(monkeypatch, state: dict[str, object], length: int, t_perp: float, path: Path):
    """Run where no sector is small enough for the exact check; return the dataset."""
    monkeypatch.setattr("bilayer_orchestra.engines.alf.trial.MAX_DIMENSION", 1)
    settings = {"dtau": 0.2, "sweeps": 600, "sweeps_per_bin": 10, "projection_time": 20.0}
    model = model_of(state, length, settings, t_perp=t_perp, observables=["pair"])
    return run_point(model, BACKEND, Runner(path)).dataset


def test_another_trial_state_sees_what_half_the_time_does_not(tmp_path, monkeypatch):
    """A gap of 1.7e-3: theta = 20 is off by 0.30, and differs from theta = 10 by 0.017."""
    dataset = out_of_reach(monkeypatch, {"n_up": 3, "n_down": 3}, 4, 0.5, tmp_path)
    assert not dataset.attrs["converged"]
    reason = dataset.attrs["converged_reason"]
    assert "after projection time 20 another trial state gives" in reason
    assert float(re.search(r"differs by up to (\S+) \(", reason)[1]) > 0.3


def test_another_trial_state_sees_a_degenerate_level(tmp_path, monkeypatch):
    dataset = out_of_reach(monkeypatch, {"n_up": 2, "n_down": 2}, 3, 0.0, tmp_path)
    assert not dataset.attrs["converged"]
    assert "unless the ground level is degenerate" in dataset.attrs["converged_reason"]


def test_another_trial_state_agrees_where_the_gap_is_large(tmp_path, monkeypatch):
    dataset = out_of_reach(monkeypatch, {"n_up": 2, "n_down": 2}, 2, 1.2, tmp_path)
    assert dataset.attrs["converged"], dataset.attrs["converged_reason"]
    assert "and so does another trial state" in dataset.attrs["converged_reason"]


def test_resonant_step_is_not_believed(tmp_path):
    """Its own bins do not show it: docs/decisions/0016."""
    settings = {"dtau": 0.15, "sweeps": 4000, "sweeps_per_bin": 40}
    layer = {"interaction": -4.845, "chemical_potential": -2.458}
    model = model_of({"beta": 3.0}, 2, settings, P=layer, t_perp=0.33)
    dataset = run_point(model, BACKEND, Runner(tmp_path)).dataset
    assert not dataset.attrs["converged"]
    assert "dtau = 0.15 is a resonance" in dataset.attrs["converged_reason"]


@pytest.mark.slow
def test_projector_on_four_rungs(tmp_path):
    def model(seed: int) -> Model:
        settings = {"dtau": [0.2, 0.1], "sweeps": 800, "sweeps_per_bin": 4, "seed": seed}
        changes = {"t_perp": 1.0, "boundary": "periodic"}
        return model_of({"n_up": 3, "n_down": 3}, 4, settings, **changes)

    exact = averages_of(model(1), "exact", tmp_path).values
    assert_agree(with_seeds(6, model, tmp_path), exact)
