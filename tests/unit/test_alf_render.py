"""ALF jobs without ALF: golden files, refusals, time steps, effort, and the script itself."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bilayer_orchestra.analysis.trotter import limit_weights
from bilayer_orchestra.checking.ladder import projection_time
from bilayer_orchestra.engines.alf.effort import plan_effort, sweep_seconds
from bilayer_orchestra.engines.alf.monitor import Monitor
from bilayer_orchestra.engines.alf.render import chain_seeds, render_files
from bilayer_orchestra.engines.alf.settings import ALFNumerics
from bilayer_orchestra.engines.alf.steps import (
    divides,
    nearest,
    time_steps,
)
from bilayer_orchestra.engines.alf.trial import needs_probe, probe_orbitals, trial_orbitals
from bilayer_orchestra.engines.base import Request
from bilayer_orchestra.engines.registry import get_engine
from bilayer_orchestra.errors import OrchestraError, SpecError
from bilayer_orchestra.model.spec import Model, parse_model
from bilayer_orchestra.resources import resource
from bilayer_orchestra.running.point import checked_request, make_request
from bilayer_orchestra.terms import Canonical, GrandCanonical, Site, Terms
from tests.support.models import make_model
from tests.support.paths import DATA

GOLDEN = DATA / "alf_render"
BACKEND = get_engine("alf")


def with_alf(state: dict[str, object], length: int = 2, alf: object = None, **changes) -> Model:
    return make_model(state, length, numerics={"alf": alf or {}}, **changes)


GOLDEN_CASES = {
    "thermal": with_alf(
        {"beta": 2.0},
        alf={"dtau": [0.2, 0.1], "time_budget": 60.0, "chains": 2, "pair_susceptibility": True},
        P={"chemical_potential": -2.2},
        M={"chemical_potential": -0.5},
        boundary="periodic",
    ),
    "projector": with_alf(
        {"n_up": 1, "n_down": 1},
        alf={
            "dtau": 0.1,
            "projection_time": 8.0,
            "sweeps": 1000,
            "seed": 7,
            "chains": 1,
            "ranks": 2,
        },
        observables=["pair", "density_density"],
    ),
}


def rendered(model: Model) -> dict[str, str]:
    request = make_request(model, BACKEND)
    assert isinstance(request.numerics, ALFNumerics)
    return render_files(request, cores=2)


@pytest.mark.parametrize("name", GOLDEN_CASES)
def test_golden_files(name):
    """Every byte of a job; after a wanted change run with ORCHESTRA_UPDATE_GOLDEN=1 and read it."""
    files = rendered(GOLDEN_CASES[name])
    folder = GOLDEN / name
    files.pop("run.sh")  # its template, plus the head tested below
    if os.environ.get("ORCHESTRA_UPDATE_GOLDEN"):
        shutil.rmtree(folder, ignore_errors=True)
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
    for path, text in files.items():
        stored_text = (folder / path).read_text()
        if path == "trial.dat":  # the last digits are the linear algebra library's
            words = [word.split() for word in (stored_text, text)]
            assert len(words[0]) == len(words[1])
            numbers = [[float(w) for w in side if w[-1].isdigit()] for side in words]
            np.testing.assert_allclose(*numbers, atol=1e-12)
        else:
            assert stored_text == text, path
    stored = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert stored == set(files)


def test_script_differs_from_its_template_only_in_numbers():
    template = resource("templates", "alf", "run.sh").read_text().splitlines()
    script = rendered(GOLDEN_CASES["thermal"])["run.sh"].splitlines()
    same = [line for line in template if "@NBIN@" in line or not re.search("@[A-Z]+@", line)]
    added = [line.split(" ")[0] for line in script if line not in same]
    numbers = ["chains=2", "steps=2", "ranks=1", "sites=4", "budget=60", "target=3", "enough=80"]
    assert added[:7] == numbers
    assert [text.split("=")[0] for text in added[7:]] == ["first_0", "first_1"]


def test_script_is_posix_shell():
    script = rendered(GOLDEN_CASES["projector"])["run.sh"]
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
    subprocess.run(["bash", "--posix", "-n"], input=script, text=True, check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "-s", "sh", "-"], input=script, text=True, check=True)


@pytest.mark.parametrize(
    ("alone", "expected"), [(False, "Ener_scal has"), (True, "ALF ran with 1 instead of 2 ranks")]
)
def test_ranks_that_do_not_find_each_other_are_not_believed(tmp_path, alone, expected):
    """An MPI that the launcher does not know makes a serial run of every rank, without an error."""
    for name, text in rendered(GOLDEN_CASES["projector"]).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    alf = tmp_path / "alf"
    ranks = "0" if alone else "0 1"
    alf.write_text(f"#!/bin/sh\nfor k in {ranks}; do echo 1 >confout_$k; done; : >Ener_scal\n")
    alf.chmod(0o755)
    variables = {"ORCHESTRA_ALF": str(alf), "ORCHESTRA_ALF_LAUNCHER": "env"}
    done = subprocess.run(
        ["sh", "run.sh"],
        cwd=tmp_path,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert expected in done.stderr


def test_an_end_that_is_asked_for_waits_for_a_segment_of_every_step(tmp_path):
    """What was stopped before could never be finished: the file `stop` would stay."""
    for name, text in rendered(GOLDEN_CASES["thermal"]).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(re.sub(r"first_(\d)=\d+", r"first_\1=1", text))
    alf = tmp_path / "alf"
    alf.write_text("#!/bin/sh\necho 1 >confout_0\necho 1 >data.h5\n")
    alf.chmod(0o755)
    (tmp_path / "stop").touch()
    variables = {**os.environ, "ORCHESTRA_ALF": str(alf)}
    subprocess.run(["sh", "run.sh"], cwd=tmp_path, env=variables, check=True, timeout=60)
    for step in (0, 1):
        assert len(list(tmp_path.glob(f"dtau-{step}/chain-0/seg-*"))) == 1


def test_the_time_that_is_left_and_how_to_end_sooner_are_said(tmp_path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    settings = {"alf": {"time_budget": 600, "target_stderr": {"pair": 0.1}}}
    model = make_model({"beta": 2.0}, 2, numerics=settings, observables=["pair"])
    request = make_request(model, get_engine("alf"))
    for name, milliseconds in (("0/seg-0001", 60_000), ("1/seg-0001", 30_000), ("1/seg-0002", 1)):
        segment = tmp_path / "a job" / f"dtau-0/chain-{name}"
        segment.mkdir(parents=True)
        (segment / "milliseconds").write_text(str(milliseconds))
    error = [0.5]
    monkeypatch.setattr("bilayer_orchestra.engines.alf.results.quick_error", lambda *_: error[0])
    monitor = Monitor(tmp_path / "a job", request)

    def text(later: float) -> str:
        clock[0] += later
        (line,) = monitor.lines()
        return line

    stop = tmp_path / "a job" / "stop"
    assert "9.0 of 10 min left (time_budget)" in text(0)
    assert text(120).splitlines()[0].endswith("  7.0 of 10 min left (time_budget)")
    assert text(1200).splitlines()[1] == f"to end it now, with what it has: touch '{stop}'"
    assert "0.0 of 10 min left" in text(60)
    assert not monitor.reached()
    error[0] = 0.01
    clock[0] += 600
    assert monitor.reached()
    assert not stop.exists()  # who started the job leaves it
    stop.touch()
    assert text(600).endswith("target reached, stopping")
    error[0] = 0.5
    again = Monitor(tmp_path / "a job", request)
    assert again.lines()[0].endswith("  stopping")
    assert "target" not in again.lines()[0]


def test_nothing_of_a_model_file_reaches_shell_or_namelist():
    """A name is the only free text; numbers go through float and int."""
    for text in rendered(GOLDEN_CASES["thermal"]).values():
        assert "test" not in text.replace("latest", "")
    for bad in ("$(touch x)", "a b", "x'; rm", "..", "-n"):
        with pytest.raises(ValidationError, match="name"):
            make_model({"beta": 2.0}, name=bad)


def test_terms_file_restores_every_number_exactly():
    rng = np.random.default_rng(1)
    h = rng.normal(size=(3, 3)) * 10.0 ** rng.integers(-9, 3, size=(3, 3))
    terms = Terms(
        tuple(Site("A", x) for x in range(3)),
        h + h.T,
        -np.abs(rng.normal(size=3)),
        rng.normal(size=3),
        GrandCanonical(1.0),
    )
    files = render_files(Request(terms, ("pair",), ALFNumerics(chains=1), "three sites"), 1)
    lines = files["terms.dat"].splitlines()
    assert lines[:3] == ["orchestra-terms 1", "sites 3", "onsite"]
    onsite = np.array([line.split() for line in lines[3:6]], dtype=float)
    np.testing.assert_array_equal(onsite[:, 1:].T, [terms.interaction, terms.chemical_potential])
    matrix = np.array([line.split() for line in lines[7:10]], dtype=float)
    np.testing.assert_array_equal(matrix, terms.one_body)
    assert lines[10] == "end"


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (with_alf({"beta": 2.0}, M={"interaction": 2.0}), ["(M, 0)", "repulsive", "sign problem"]),
        (with_alf({"n_up": 2, "n_down": 1}), ["n_up = 2", "n_down = 1", "block2"]),
        (with_alf({"n_up": 0, "n_down": 0}), ["no electrons", "exact"]),
        (with_alf({"n_up": 4, "n_down": 4}), ["every site is full", "exact"]),
        (
            with_alf({"n_up": 1, "n_down": 1}, alf={"pair_susceptibility": True}),
            ["pair_susceptibility", "beta"],
        ),
        (
            with_alf({"beta": 2.0}, alf={"target_stderr": {"green": 0.1}}, observables=["pair"]),
            ["target_stderr", "`green`"],
        ),
        (
            with_alf({"beta": 4.0}, alf={"dtau": 0.15}),
            ["dtau = 0.15", "beta = 4", "0.125 (32 steps)", "0.16 (25 steps)"],
        ),
        (with_alf({"beta": 4.0}, alf={"dtau": [0.2, 0.3]}), ["dtau = 0.3"]),
        (
            with_alf({"n_up": 1, "n_down": 1}, alf={"dtau": 0.3, "projection_time": 10.0}),
            ["projection_time = 10", "0.25 (40 steps)"],
        ),
    ],
)
def test_refusals_say_why(model, words):
    with pytest.raises(OrchestraError) as refusal:
        BACKEND.check(make_request(model, BACKEND))
    for word in words:
        assert word in str(refusal.value)


def test_a_model_in_small_units_is_projected_for_as_long_as_its_gap_asks():
    unit = 1e-3
    layers = {"P": {"interaction": -4 * unit}, "M": {"hopping": unit}}
    model = with_alf({"n_up": 1, "n_down": 1}, t_perp=0.5 * unit, **layers)
    wanted = projection_time(model, BACKEND, 0.1 * unit)
    assert wanted > 2e4
    settings = BACKEND.with_projection_time(model.settings("alf"), wanted)
    checked_request(parse_model(model.with_settings("alf", settings).to_yaml()), BACKEND)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("target_stderr: {pairs: 0.1}", "did you mean `pair`"),
        ("target_stderr: {pair: 0}", "greater than 0"),
        ("dtau: [0.1, 0.1]", "twice"),
        ("dtau: []", "at least 1"),
        ("dtau: 2.0", "less than or equal to 1"),
        ("time_budget: 20 minutes", "20 min"),
        ("sweeps: 0", "greater than or equal to 1"),
        ("warmup: 100", "unknown key"),
    ],
)
def test_bad_settings_are_refused_in_the_file(line, word):
    text = GOLDEN_CASES["thermal"].to_yaml().split("numerics:")[0]
    with pytest.raises(SpecError) as refusal:
        parse_model(f"{text}numerics:\n  alf:\n    {line}\n")
    assert word in str(refusal.value)
    assert refusal.value.problems[0].startswith("line ")


@given(
    step=st.floats(0.011, 0.99),
    total=st.one_of(st.integers(1, 400).map(float), st.floats(1.0, 50.0)),
)
def test_nearest_steps_divide_and_are_near(step, total):
    for text in nearest(step, total):
        value, count = text.split(" (")
        assert divides(float(value), total)
        assert round(total / float(value)) == int(count.split()[0])
        assert 0.4 * step < float(value) < 2.5 * step or total / step < 3


@settings(deadline=None)
@given(beta=st.floats(0.3, 60.0), interaction=st.floats(-20.0, 0.0))
def test_automatic_steps_divide_and_shrink_with_the_interaction(beta, interaction):
    model = with_alf({"beta": beta}, alf={"dtau": "auto"}, P={"interaction": interaction})
    coarse, middle, fine = time_steps(model.terms(), model.numerics.alf)
    assert all(divides(step, beta) for step in (coarse, middle, fine))
    assert coarse == pytest.approx(2 * middle) == pytest.approx(4 * fine)
    assert fine <= 0.1 + 1e-12
    assert fine * max(abs(interaction), 1) <= 0.4 * (1 + 1e-9)


def test_automatic_steps_at_the_measured_points():
    for interaction, steps in ((-4.0, (0.4, 0.2, 0.1)), (-8.0, (0.2, 0.1, 0.05))):
        model = with_alf({"beta": 10.0}, alf={"dtau": "auto"}, P={"interaction": interaction})
        assert time_steps(model.terms(), model.numerics.alf) == pytest.approx(steps)


def test_extrapolation_weights_remove_the_first_orders():
    assert limit_weights(np.array([0.1]), np.ones(1)) == pytest.approx([1])
    assert limit_weights(np.array([0.2, 0.1]), np.ones(2)) == pytest.approx([-1 / 3, 4 / 3])
    steps = np.array([0.3, 0.2, 0.15, 0.1])
    weights = limit_weights(steps, np.ones(4))
    assert weights.sum() == pytest.approx(1)
    assert weights @ steps**2 == pytest.approx(0, abs=1e-12)
    assert weights @ steps**4 == pytest.approx(0, abs=1e-12)


def test_seeds_are_distinct_reproducible_and_stable():
    table = chain_seeds(1, 3, 50, 4)
    flat = [value for step in table for chain in step for value in chain]
    assert len(set(flat)) == len(flat) == 600
    assert all(1 <= value < 2**31 for value in flat)
    assert chain_seeds(1, 2, 10, 4) == [step[:10] for step in table[:2]]
    assert chain_seeds(2, 1, 1, 1) != chain_seeds(1, 1, 1, 1)


def test_effort_follows_from_the_request_alone():
    numerics = ALFNumerics(sweeps=10_000)
    plans, _ = plan_effort(16, (0.2, 0.1), [20, 40], numerics, 4)
    for plan in plans:
        assert plan.bins * plan.sweeps_per_bin >= 10_000
        assert 40 <= plan.bins <= 1000
    assert plans[1].share > 5 * plans[0].share  # the finer step carries the extrapolation
    assert sum(plan.share for plan in plans) == pytest.approx(1000, abs=2)


@pytest.mark.parametrize(("sites", "slices"), [(4, 40), (16, 100), (64, 200), (256, 400)])
@pytest.mark.parametrize("budget", [20.0, 600.0, 36_000.0])
def test_bins_are_many_but_not_too_many(sites, slices, budget):
    (plan,), _ = plan_effort(sites, (0.1,), [slices], ALFNumerics(time_budget=budget), 4)
    bins = budget / (plan.sweeps_per_bin * sweep_seconds(sites, slices, False))
    assert bins < 15_000
    assert bins >= 30 or plan.sweeps_per_bin <= 5  # nothing helps if a sweep takes that long
    assert bins * 4 * 54 * sites**2 < 3e9 or plan.sweeps_per_bin * bins < 100


def test_job_record_says_what_was_run():
    job = json.loads(rendered(GOLDEN_CASES["thermal"])["job.json"])
    assert job["beta"] == 2.0
    assert job["dtau"] == [0.2, 0.1]
    assert np.array(job["seeds"]).shape == (2, 2, 1)
    assert Terms.from_dict(job["terms"]).to_dict() == GOLDEN_CASES["thermal"].terms().to_dict()
    job = json.loads(rendered(GOLDEN_CASES["projector"])["job.json"])
    assert job["projector"]
    assert job["theta"] == 8.0
    assert np.array(job["seeds"]).shape == (1, 1, 2)


@pytest.mark.parametrize("t_perp", [0.5, 0.0])
@pytest.mark.parametrize("boundary", ["open", "periodic"])
@pytest.mark.parametrize("particles", [1, 2, 3, 5, 8])
def test_trial_orbitals_are_orthonormal_and_unique(t_perp, boundary, particles):
    model = make_model(
        {"n_up": particles, "n_down": particles}, 4, boundary=boundary, t_perp=t_perp
    )
    terms = model.terms()
    orbitals = trial_orbitals(terms, particles)
    np.testing.assert_allclose(orbitals.T @ orbitals, np.eye(particles), atol=1e-12)
    # the same determinant if the library meets the sites in another order or with other rounding
    noisy = terms.one_body * (1 + 1e-13)
    other = trial_orbitals(
        Terms(terms.sites, noisy, terms.interaction, terms.chemical_potential, terms.state),
        particles,
    )
    assert abs(np.linalg.det(orbitals.T @ other)) == pytest.approx(1, abs=1e-6)


def test_trial_of_free_electrons_is_the_ground_state():
    model = make_model({"n_up": 3, "n_down": 3}, 4, P={"interaction": 0.0}, t_perp=0.7)
    terms = model.terms()
    orbitals = trial_orbitals(terms, 3)
    energy = np.trace(orbitals.T @ terms.one_body @ orbitals)
    assert energy == pytest.approx(np.linalg.eigvalsh(terms.one_body)[:3].sum())
    assert isinstance(terms.state, Canonical)


@pytest.mark.parametrize("interaction", [0.0, -4.0])
def test_a_second_trial_state_fills_an_open_shell_the_other_way_round(interaction):
    """Two of three electrons of a ring's shell of k and -k are left open; P is full or empty."""
    changes = {"boundary": "periodic", "t_perp": 0.0}
    layer = {"interaction": interaction, "chemical_potential": 0.0 if interaction else -9.0}
    full = 6 if interaction else 0
    terms = make_model({"n_up": full + 2, "n_down": full + 2}, 6, P=layer, **changes).terms()
    one, other = (choose(terms, full + 2) for choose in (trial_orbitals, probe_orbitals))
    singular = np.linalg.svd(one.T @ other, compute_uv=False)
    np.testing.assert_allclose(singular[:-1], 1, atol=1e-4)
    assert singular[-1] < 1e-2
    closed = make_model({"n_up": full + 3, "n_down": full + 3}, 6, P=layer, **changes).terms()
    one, other = (choose(closed, full + 3) for choose in (trial_orbitals, probe_orbitals))
    np.testing.assert_allclose(np.linalg.svd(one.T @ other, compute_uv=False), 1, atol=1e-6)


def test_large_sectors_get_a_second_trial_state_also_without_interaction():
    layer = {"interaction": 0.0}
    assert needs_probe(make_model({"n_up": 6, "n_down": 6}, 8, P=layer).terms())
    assert not needs_probe(make_model({"n_up": 2, "n_down": 2}, 3, P=layer).terms())
    assert not needs_probe(make_model({"beta": 2.0}, 8, P=layer).terms())
