"""Run directories: reuse, resume after kill -9, locks, honest status, failing disks."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import xarray as xr

from bilayer_orchestra.engines.registry import get_engine
from bilayer_orchestra.errors import EngineError, OrchestraError, RunBusyError
from bilayer_orchestra.running.directory import RunDirectory, find_runs, request_hash
from bilayer_orchestra.running.point import Runner, run_point
from tests.support.commands import ORCHESTRA, orchestra, started
from tests.support.locks import no_locks
from tests.support.models import make_model
from tests.support.processes import is_alive, kill_when, wait_until

CANONICAL = {"n_up": 2, "n_down": 2}


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "model.yaml"
    path.write_text(make_model({"n_up": 3, "n_down": 3}, 5, observables=("pair",)).to_yaml())
    return path


def only_run(root: Path) -> RunDirectory:
    (run,) = find_runs(root)
    return run


def test_second_request_returns_the_stored_result(tmp_path):
    model, backend = make_model(CANONICAL, 2), get_engine("exact")
    first = run_point(model, backend, Runner(tmp_path))
    stamp = first.run.result.stat().st_mtime_ns
    second = run_point(model, backend, Runner(tmp_path))
    assert (first.reused, second.reused) == (False, True)
    assert second.run.result.stat().st_mtime_ns == stamp
    xr.testing.assert_identical(first.dataset, second.dataset)


def test_hash_sees_what_changes_numbers_and_nothing_else():
    backend = get_engine("exact")
    base = make_model(CANONICAL, 2)
    same = [
        base.model_copy(update={"name": "other"}),
        make_model(CANONICAL, 2, numerics={"block2": {"seed": 7}}),
    ]
    different = [
        make_model(CANONICAL, 2, t_perp=0.5000001),
        make_model({"n_up": 2, "n_down": 1}, 2),
        make_model(CANONICAL, 2, boundary="periodic"),
        make_model(CANONICAL, 2, observables=("pair",)),
        make_model(CANONICAL, 2, numerics={"exact": {"seed": 7}}),
    ]
    reference = request_hash(base, backend)
    assert all(request_hash(model, backend) == reference for model in same)
    hashes = {request_hash(model, backend) for model in different}
    assert len(hashes) == len(different)
    assert reference not in hashes


def sweeps_of(root: Path) -> int:
    """Return how many sweeps the run in ``root`` has reported, over all its attempts."""
    return sum(f.read_text().count('"step": "sweep"') for f in root.glob("*/job/progress.jsonl"))


@pytest.mark.cases(1)
@pytest.mark.parametrize("moments", [("job/job.json", 4), ("run.json", 1), (2, 9)])
def test_kill_at_any_moment_and_run_again_gives_the_same_result(model_file, tmp_path, moments):
    """While the run is prepared, and after so many sweeps."""
    pytest.importorskip("block2", reason="block2 is missing: pip install block2")
    quiet, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert orchestra("run", model_file, "-b", "block2", "-o", quiet, "--no-plot").returncode == 0
    assert sweeps_of(quiet) > 12, "too short to be killed on its way"
    for moment in moments:
        process = subprocess.Popen(
            [*ORCHESTRA, "run", model_file, "-b", "block2", "-o", killed, "--no-plot"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        kill_when(
            lambda moment=moment: (
                list(killed.glob(f"*/{moment}"))
                if isinstance(moment, str)
                else sweeps_of(killed) >= moment
            ),
            process,
        )
        assert not (killed / "result.nc").exists()
        assert only_run(killed).status()[0] in ("failed", "running")
    last = orchestra("run", model_file, "-b", "block2", "-o", killed, "--no-plot")
    assert last.returncode == 0, last.stderr
    expected, actual = (xr.load_dataset(place / "result.nc") for place in (quiet, killed))
    for name in expected.data_vars:
        np.testing.assert_allclose(actual[name], expected[name], atol=1e-12, err_msg=str(name))
    assert not list(killed.rglob("*.tmp"))
    assert not list(killed.rglob("scratch"))


def killed_after_a_checkpoint(model_file: Path, root: Path) -> Path:
    """Return the checkpoint of a run of block2 that was killed after its first sweep."""
    pytest.importorskip("block2", reason="block2 is missing: pip install block2")
    process = subprocess.Popen(
        [*ORCHESTRA, "run", model_file, "-b", "block2", "-o", root, "--no-plot"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    kill_when(lambda: list(root.glob("*/job/checkpoint.zip")), process)
    (checkpoint,) = root.glob("*/job/checkpoint.zip")
    return checkpoint


def events_of_the_next_run(model_file: Path, root: Path) -> list[dict]:
    assert orchestra("run", model_file, "-b", "block2", "-o", root, "--no-plot").returncode == 0
    lines = (only_run(root).job / "progress.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_resuming_continues_from_the_last_finished_sweep(model_file, tmp_path):
    checkpoint = killed_after_a_checkpoint(model_file, tmp_path)
    done = json.loads(ZipFile(checkpoint).read("record.json"))["total"]
    assert done >= 1
    events = events_of_the_next_run(model_file, tmp_path)
    resumed = next(k for k, event in enumerate(events) if event["step"] == "resumed")
    assert events[resumed]["sweep"] >= done
    assert events[resumed + 1]["sweep"] == events[resumed]["sweep"] + 1


def test_a_damaged_checkpoint_is_not_resumed_from_and_said(model_file, tmp_path):
    checkpoint = killed_after_a_checkpoint(model_file, tmp_path)
    largest = max(ZipFile(checkpoint).infolist(), key=lambda file: file.file_size)
    whole = bytearray(checkpoint.read_bytes())
    whole[largest.header_offset + largest.file_size // 2] ^= 1
    checkpoint.write_bytes(whole)
    steps = {event["step"]: event for event in events_of_the_next_run(model_file, tmp_path)}
    assert steps["discarded"]["problem"] == "it is damaged"
    assert "resumed" not in steps
    result = xr.load_dataset(tmp_path / "result.nc")
    run = orchestra("run", model_file, "-b", "exact", "-o", tmp_path / "exact", "--no-plot")
    assert run.returncode == 0
    exact = xr.load_dataset(tmp_path / "exact" / "result.nc")
    assert float(result.energy) == pytest.approx(float(exact.energy), abs=1e-8)


def test_an_engine_ends_with_the_orchestrator_and_all_that_it_started(tmp_path):
    """SIGKILL cannot be handled: a guard beside the engine sees that its parent is gone."""
    script = "sleep 300 & echo $! >child; echo $$ >engine; wait"
    code = (
        "from pathlib import Path\n"
        "from bilayer_orchestra.runtimes.child import run_child\n"
        f"place = Path({str(tmp_path)!r})\n"
        "with (place / 'lock').open('w') as lock:\n"
        f"    run_child(['sh', '-c', {script!r}], place, {{}}, lock.fileno(), lambda: None, 'sh')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    names = [tmp_path / "engine", tmp_path / "child"]
    kill_when(lambda: all(name.exists() and name.read_text().strip() for name in names), process)
    for name in names:  # none outlives the orchestrator
        wait_until(lambda name=name: not is_alive(int(name.read_text())))


def test_a_dead_process_is_not_called_running(tmp_path):
    model, backend = make_model(CANONICAL, 2), get_engine("exact")
    run = run_point(model, backend, Runner(tmp_path)).run
    run.result.unlink()
    record = json.loads((run.path / "run.json").read_text()) | {"state": "running", "pid": 1}
    (run.path / "run.json").write_text(json.dumps(record))
    state, message = run.status()
    assert state == "failed"
    assert "resumes" in message


def test_the_second_of_two_waits_or_says_who_computes(tmp_path):
    model, backend = make_model(CANONICAL, 2), get_engine("exact")
    run = RunDirectory.for_request(tmp_path, model, backend)
    with run.locked(wait=False):
        assert run.record() is None
        with pytest.raises(RunBusyError, match="is held by"):
            run_point(model, backend, Runner(tmp_path, wait=False))
    heard: list[str] = []
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX);"
            "print('locked', flush=True); sys.stdin.read()",
            str(run.path / "lock"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )

    def hear(line: str) -> None:
        heard.append(line)
        if "waiting for" in line:
            holder.stdin.close()  # the holder ends, and lets go

    with holder:
        holder.stdout.readline()
        outcome = run_point(model, backend, Runner(tmp_path, tell=hear))
    assert any("waiting for" in line for line in heard)
    assert not outcome.reused


@pytest.mark.cases(1)
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_it_works_after_one_warning(tmp_path, model_file, number):
    environment = no_locks(tmp_path, number)
    done = started("run", model_file, "-b", "exact", "-o", tmp_path / "runs", env=environment)
    assert done.returncode == 0, done.stderr
    warned = [line for line in done.stderr.splitlines() if "has no locks" in line]
    assert len(warned) == 1, done.stderr
    assert "not kept apart" in warned[0]
    assert xr.load_dataset(tmp_path / "runs" / "result.nc").attrs["converged"] == 1
    again = started("run", model_file, "-b", "exact", "-o", tmp_path / "runs", env=environment)
    assert "(stored" in again.stdout
    assert again.stderr == ""


def test_without_locks_a_study_warns_once_and_status_says_what_it_does_not_know(tmp_path):
    environment = no_locks(tmp_path, errno.ENOSYS)
    model = json.loads(make_model(CANONICAL, 2).model_dump_json(exclude={"version", "name"}))
    study = {"version": 1, "name": "s", "model": model, "axes": {"t_perp": [0.4, 0.5, 0.6]}}
    (tmp_path / "study.yaml").write_text(json.dumps(study | {"backends": ["exact"]}))
    root = tmp_path / "runs"
    done = started("sweep", tmp_path / "study.yaml", "-o", root, "-j", 2, env=environment)
    assert "3 of 3 points finished" in done.stdout, done.stderr
    assert done.stderr.count("has no locks") == 1
    run = find_runs(root)[0]
    run.result.unlink()
    record = run.record()
    run.write_record(dataclasses.replace(record, state="running", pid=1234))
    told = started("status", root, env=environment)
    assert "2 finished, 1 unknown" in told.stdout
    assert "1234" in told.stdout
    assert "1 failed" in orchestra("status", root).stdout  # where a lock can tell
    done = started("sweep", tmp_path / "study.yaml", "-o", root, env=environment)
    assert "3 of 3 points finished" in done.stdout, done.stderr


def test_an_engine_that_fails_leaves_its_last_words_and_no_result(tmp_path):
    class Broken(type(get_engine("exact"))):  # type: ignore[misc]
        def render(self, request):
            job = super().render(request)
            return type(job)(
                job.program, ("-c", "import sys; sys.exit('no convergence')"), job.files
            )

    model = make_model(CANONICAL, 2)
    with pytest.raises(EngineError, match="no convergence"):
        run_point(model, Broken(), Runner(tmp_path))
    run = only_run(tmp_path)
    assert run.status()[0] == "failed"
    assert "no convergence" in run.status()[1]
    assert not run.result.exists()


def test_ctrl_c_stops_the_engine_and_says_how_to_go_on(model_file, tmp_path):
    pytest.importorskip("block2", reason="block2 is missing: pip install block2")
    process = subprocess.Popen(
        [*ORCHESTRA, "run", model_file, "-b", "block2", "-o", tmp_path, "--no-plot"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: list(tmp_path.glob("*/job/progress.jsonl")), process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert "resumes" in stderr
    state, message = only_run(tmp_path).status()
    assert (state, "resumes" in message) == ("failed", True)


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system can only be mounted by root")
def test_a_full_disk_is_one_message_and_the_previous_result_stays(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=192k", "tmpfs", str(small)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    try:
        path = tmp_path / "model.yaml"
        path.write_text(make_model(CANONICAL, 2).to_yaml())
        assert orchestra("run", path, "-o", small, "--no-plot").returncode == 0
        before = (small / "result.nc").read_bytes()
        failed = orchestra("run", path, "-o", small, "--no-plot", "--set", "t_perp=0.7")
        assert failed.returncode == 1
        assert "Traceback" not in failed.stderr
        assert "space" in failed.stderr or "disk" in failed.stderr
        assert (small / "result.nc").read_bytes() == before
        assert float(xr.load_dataset(small / "result.nc").energy) < 0
    finally:
        subprocess.run(["umount", str(small)], check=False)


def test_unwritable_output_is_one_message(tmp_path, model_file):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    failed = orchestra("run", model_file, "-o", blocked)
    assert failed.returncode == 1
    assert "cannot write" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_cannot_be_mistaken(tmp_path):
    """Whatever is refused leaves nothing that looks like a result."""
    with pytest.raises(OrchestraError):
        run_point(make_model({"beta": 1.0}, 6), get_engine("exact"), Runner(tmp_path))
    assert not list(tmp_path.iterdir())
