"""Slurm without a scheduler: scripts by hand, fake sbatch and squeue, states from the disk."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import xarray as xr

from bilayer_orchestra.engines.base import Job, Tools
from bilayer_orchestra.engines.registry import get_engine
from bilayer_orchestra.errors import OrchestraError, SpecError
from bilayer_orchestra.images.use import HOLDS, PACKAGE, recipe_of
from bilayer_orchestra.running.directory import RunDirectory, find_runs
from bilayer_orchestra.runtimes.slurm.runtime import Chunk, PlacedJob, SlurmRuntime, task_script
from bilayer_orchestra.runtimes.slurm.site import SiteProfile, load_site
from bilayer_orchestra.runtimes.slurm.state import (
    SILENCE,
    Queue,
    Submitted,
    ask_queue,
    read_marker,
    submitted_state,
)
from tests.support.commands import orchestra, started
from tests.support.fake_slurm import SBATCH, SQUEUE
from tests.support.locks import no_locks
from tests.support.processes import children, wait_until
from tests.support.studies import SMALL, write


@pytest.fixture
def fake(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "fake"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(folder))
    monkeypatch.setattr("bilayer_orchestra.runtimes.slurm.state.BACK_OFF", (0.0,))
    return folder


def submit(path: Path, root: Path, *more: object) -> subprocess.CompletedProcess[str]:
    return orchestra("sweep", path, "--runtime", "slurm", "-o", root, *more)


def queue_of(root: Path, state: str) -> str:
    """Every submitted task in ``state``, as squeue prints it."""
    jobs = {str(run.record().job) for run in find_runs(root)}
    return "".join(f"{job}|{state}|None\n" for job in sorted(jobs))


def run_tasks(root: Path, **environment: str) -> list[int]:
    """Do what the compute nodes would do."""
    codes = []
    for batch in sorted(root.glob("*.slurm/*/batch.sh")):
        number = (batch.parent / "job").read_text().strip()
        for task in sorted((batch.parent / "tasks").iterdir()):
            variables = {
                "SLURM_ARRAY_TASK_ID": task.name,
                "SLURM_ARRAY_JOB_ID": number,
                "SLURM_JOB_ID": number,
            }
            with (batch.parent / f"task-{task.name}.log").open("ab") as log:
                done = subprocess.run(
                    ["bash", str(batch)],
                    cwd=batch.parent,
                    env={**os.environ, **variables, **environment},
                    stdout=log,
                    stderr=log,
                    check=False,
                    timeout=120,
                )
            codes.append(done.returncode)
    return codes


def test_submit_compute_collect_and_nothing_twice(tmp_path, fake):
    path = write(tmp_path, SMALL)
    root = tmp_path / 'it\'s a $HOME "quoted", path: %a'
    first = submit(path, root)
    assert first.returncode == 0, first.stderr
    assert "4 not submitted yet\n" in first.stdout
    assert "job 701: 4 points in 4 tasks" in first.stdout
    (fake / "queue").write_text(queue_of(root, "PENDING"))
    again = submit(path, root)
    assert "4 pending\nnothing to submit" in again.stdout
    assert len((fake / "calls").read_text().splitlines()) == 1
    assert run_tasks(root) == [0, 0, 0, 0]
    (fake / "queue").write_text("")
    done = orchestra("collect", path, "--runtime", "slurm", "-o", root)
    assert done.returncode == 0, done.stderr
    dataset = xr.load_dataset(root / "scan.nc")
    assert (dataset.status == "finished").all()
    assert abs(float(dataset.energy.sel(t_perp=0.8, filling=1)[0]) + 4.354554895800679) < 1e-10
    assert (dataset.runtime == "slurm").all()
    # the engine started once for every point
    starts = [(run.job / "engine.log").read_text().count("--- job") for run in find_runs(root)]
    assert starts == [1, 1, 1, 1]
    assert "nothing to submit" in submit(path, root).stdout
    run_tasks(root)  # a task that the scheduler starts again computes nothing
    assert starts == [(r.job / "engine.log").read_text().count("--- job") for r in find_runs(root)]


def test_dry_run_shows_all_and_writes_nothing(tmp_path, fake):
    done = submit(write(tmp_path, SMALL), tmp_path / "runs", "--dry-run")
    assert done.returncode == 0, done.stderr
    for text in ("sbatch --parsable --array=0-3", "#SBATCH --time=1:00:00", "ended-$code-$reason"):
        assert text in done.stdout
    assert done.stdout.count("# array task") == 4
    assert done.stdout.endswith("# not submitted: 4 points in 4 tasks of 1 jobs\n")
    assert not (tmp_path / "runs").exists()
    assert not (fake / "calls").exists()


def test_what_sbatch_says_is_shown_and_the_points_stay_missing(tmp_path, fake):
    (fake / "refuse").touch()
    refused = submit(write(tmp_path, SMALL), tmp_path / "runs")
    assert refused.returncode == 1
    assert "Invalid account or partition" in refused.stderr
    (fake / "refuse").unlink()
    assert "4 points" in submit(write(tmp_path, SMALL), tmp_path / "runs").stdout


ANSWERS = {
    "a banner before": 'echo "Welcome to cluster 9!"; echo "a12 has 4000 hours left"; echo "701;c"',
    "nothing": "true",
    "a banner after": 'echo 701; echo; echo "Have a nice day."',
    "without --parsable": 'echo "Submitted batch job 701"',
    "with a cluster": 'echo "Submitted batch job 701 on cluster c1"',
    "numbers of its own": "echo 42; echo 701; echo 9",
    "blanks": 'printf "  701 \\r\\n"',
    "only a banner": 'echo "4000 hours left"',
    "no answer": 'echo "sbatch: error: Socket timed out on send/recv operation" >&2; exit 1',
}


@pytest.mark.cases(3)
@pytest.mark.parametrize("answer", ANSWERS)
def test_a_job_that_was_taken_is_recorded_whatever_sbatch_says(tmp_path, fake, answer):
    """Where the answer does not tell the number, the scheduler is asked for the batch script."""
    (fake / "sbatch").write_text(
        '#!/bin/sh\necho "$*" >>"$FAKE/calls"\nfor script; do :; done\n'
        f'echo "701|$script" >>"$FAKE/commands"\n{ANSWERS[answer]}\n'
    )
    (fake / "squeue").write_text(
        '#!/bin/sh\nname=queue\ncase "$*" in *%o*) name=commands ;; esac\n'
        'cat "$FAKE/$name" 2>/dev/null\nexit 0\n'
    )
    path, root = write(tmp_path, SMALL), tmp_path / "runs"
    done = submit(path, root)
    assert done.returncode == 0, done.stderr
    assert "job 701: 4 points in 4 tasks" in done.stdout
    (fake / "queue").write_text(queue_of(root, "PENDING"))
    assert "701_0|" in (fake / "queue").read_text()
    assert "nothing to submit" in submit(path, root).stdout
    assert len((fake / "calls").read_text().splitlines()) == 1


def test_an_answer_without_a_number_is_not_called_a_refusal(tmp_path, fake):
    (fake / "sbatch").write_text("#!/bin/sh\necho all is well\n")
    done = submit(write(tmp_path, SMALL), tmp_path / "runs")
    assert done.returncode == 1
    assert "refused" not in done.stderr
    assert "gave no single number" in done.stderr
    assert "  all is well\n" in done.stderr
    assert "look before you submit again" in done.stderr


def test_points_are_packed_and_arrays_are_cut(tmp_path, fake):
    site = tmp_path / "site.toml"
    site.write_text('cpus = 2\npoints_per_task = 2\narray_limit = 1\npartition = "short"\n')
    done = submit(write(tmp_path, SMALL), tmp_path / "runs", "--site", site)
    assert done.stdout.count("2 points in 1 tasks") == 2, done.stderr
    assert (fake / "calls").read_text().count("--array=0-0") == 2
    assert run_tasks(tmp_path / "runs") == [0, 0]
    assert len(list((tmp_path / "runs").glob("*/task/ended-0-done"))) == 4


def test_status_asks_once_and_tells_the_states_apart(tmp_path, fake):
    root = tmp_path / "runs"
    submit(write(tmp_path, SMALL), root)
    jobs = sorted(str(run.record().job) for run in find_runs(root))
    states = ("PENDING", "RUNNING", "OUT_OF_MEMORY", "NODE_FAIL")
    (fake / "queue").write_text(
        "".join(f"{job}|{state}|Priority\n" for job, state in zip(jobs, states, strict=True))
    )
    (fake / "asked").unlink(missing_ok=True)
    done = orchestra("status", root)
    assert len((fake / "asked").read_text().splitlines()) == 1
    for text in ("waits (Priority)", "running", "out of memory", "node failure", "2 failed"):
        assert text in done.stdout, done.stdout
    again = submit(write(tmp_path, SMALL), root)
    assert "2 points in 2 tasks" in again.stdout  # only what failed


def submitted_point(folder: Path) -> RunDirectory:
    submit(write(folder, SMALL), folder / "runs")
    return one_run(folder / "runs")


def one_run(root: Path) -> RunDirectory:
    return find_runs(root)[0]


def state_of(run: RunDirectory, queue: Queue) -> tuple[str, str]:
    """What is said of a submitted point of ours when the scheduler answers ``queue``."""
    record = run.record()
    folder = run.path.parent / record.place["submission"]
    return submitted_state(Submitted(run.path, record.job, folder, foreign=False), queue)


def test_the_disk_alone_answers_when_the_scheduler_is_gone(tmp_path, fake):
    root = tmp_path / "runs"
    submit(write(tmp_path, SMALL), root)
    (fake / "down").touch()
    done = orchestra("status", root)
    assert "not started; the scheduler does not answer" in done.stdout
    run = one_run(root)
    record = run.record()
    gone = Queue(problem="no answer")
    folder = root / record.place["submission"]
    task = record.job.rpartition("_")[2]
    (run.path / "task").mkdir()
    (run.path / "task" / "running").write_text(f"job={record.job}\nhost=node7\n")
    alive = folder / f"alive-{task}"
    alive.touch()
    assert state_of(run, gone)[0] == "running"
    long_ago = time.time() - 2 * SILENCE
    os.utime(alive, (long_ago, long_ago))
    state, message = state_of(run, gone)
    assert (state, "no sign of life" in message) == ("failed", True)
    for words, cause in (
        ("slurmstepd: error: *** JOB 7 ON n CANCELLED AT 2026 DUE TO TIME LIMIT ***", "time limit"),
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=7.batch.", "out of memory"),
        ("slurmstepd: error: *** JOB 7 ON n CANCELLED AT 2026 DUE TO NODE FAILURE", "node failure"),
        ("slurmstepd: error: *** JOB 7 ON n CANCELLED AT 2026-11-25 ***", "cancelled"),
    ):
        (folder / f"task-{task}.log").write_text(words + "\n")
        state, message = state_of(run, gone)
        assert (state, message.split(":")[0]) == ("failed", cause)
    # a scheduler that is there has the last word over a marker that claims to run
    assert state_of(run, Queue({}))[0] == "failed"
    assert state_of(run, Queue({record.job: ("RUNNING", "")}))[0] == "running"


def test_a_point_that_another_process_computes_is_left_to_it(tmp_path, fake):
    """Such as a run on this machine, or an engine that outlived its job; the others go on."""
    root, path = tmp_path / "runs", write(tmp_path, SMALL)
    submit(path, root)
    run = one_run(root)
    (fake / "queue").write_text("")  # all four ended without a word
    with run.locked(wait=False):
        done = submit(path, root)
    assert done.returncode == 0, done.stderr
    assert "3 points in 3 tasks" in done.stdout
    assert "not submitted, another process computes it" in done.stdout
    assert str(run.path) in done.stdout


def test_a_prologue_is_ordinary_shell_and_its_failure_is_told(tmp_path, fake):
    """Profiles of sites use variables that are not set; a module may be missing."""
    site, root = tmp_path / "site.toml", tmp_path / "runs"
    path = write(tmp_path, SMALL)
    site.write_text("prologue = ['echo hello $NOT_SET', 'echo no such module >&2; exit 3']\n")
    submit(path, root, "--site", site)
    assert run_tasks(root) == [3, 3, 3, 3]
    run = one_run(root)
    state, message = state_of(run, Queue({str(run.record().job): ("FAILED", "")}))
    assert state == "failed"
    assert message.startswith("ended before its engine started")
    assert "no such module" in message
    site.write_text("prologue = ['echo hello $NOT_SET']\n")
    submit(path, root, "--site", site)
    assert sorted(run_tasks(root))[-4:] == [3, 3, 3, 3]  # the scripts of the first submission
    assert len(list(root.glob("*/task/ended-0-done"))) == 4


def test_the_batch_script_notices_short_points_and_shows_signs_of_life(tmp_path, fake):
    site, root = tmp_path / "site.toml", tmp_path / "runs"
    prologue = [
        'sleep() { echo "$1" >>naps; SECONDS=$((SECONDS + 61)); command sleep "$1"; }',
        "touch() { echo >>touches; }",
    ]
    text = f"python = {json.dumps(shutil.which('true'))}\npoints_per_task = 4\n"
    site.write_text(text + f"prologue = {json.dumps(prologue)}\n")
    submit(write(tmp_path, SMALL), root, "--site", site)
    assert run_tasks(root) == [0]
    (batch,) = root.glob("*.slurm/*/batch.sh")
    assert set((batch.parent / "naps").read_text().split()) == {"0.02"}
    assert (batch.parent / "touches").exists()


def test_an_engine_error_is_told_with_its_last_lines_and_computed_again(tmp_path, fake):
    root, path = tmp_path / "runs", write(tmp_path, SMALL)
    engine = tmp_path / "python"
    engine.write_text(
        "#!/bin/sh\nif [ -e broken ]; then echo \"KeyError: 'terms'\" >&2; exit 1; fi\n"
        f'exec {sys.executable} "$@"\n'
    )
    engine.chmod(0o755)
    (tmp_path / "site.toml").write_text(f"python = {json.dumps(str(engine))}\n")
    submit(path, root, "--site", tmp_path / "site.toml")
    run = one_run(root)
    (run.job / "broken").touch()
    assert sorted(run_tasks(root)) == [0, 0, 0, 1]
    state, message = state_of(run, Queue({}))
    assert state == "failed"
    assert message.startswith("engine error")
    assert "KeyError" in message
    done = orchestra("collect", path, "--runtime", "slurm", "-o", root)
    assert "3 of 4 points finished" in done.stdout
    assert "KeyError" in done.stdout
    (run.job / "broken").unlink()
    assert "1 points in 1 tasks" in submit(path, root, "--site", tmp_path / "site.toml").stdout
    run_tasks(root)
    assert read_marker(run.path).done


def test_a_damaged_result_of_a_node_is_computed_again(tmp_path, fake):
    root, path = tmp_path / "runs", write(tmp_path, SMALL)
    submit(path, root)
    run_tasks(root)
    (one_run(root).job / "output.npz").write_bytes(b"half a fi")
    done = orchestra("collect", path, "--runtime", "slurm", "-o", root)
    assert "3 of 4 points finished" in done.stdout
    assert "damaged" in done.stdout
    assert "1 points in 1 tasks" in submit(path, root).stdout


@pytest.mark.cases(1)
@pytest.mark.skipif(shutil.which("flock") is None, reason="flock is missing")
@pytest.mark.parametrize("command", ["sweep", "collect"])
def test_a_result_that_was_cut_off_is_labelled_again(tmp_path, fake, command):
    """What the node computed is still there: nothing is submitted again."""
    path, root = write(tmp_path, SMALL), tmp_path / "runs"
    submit(path, root)
    assert run_tasks(root) == [0] * 4
    slurm = ("--runtime", "slurm", "-o", root)
    assert "4 of 4 points finished" in orchestra("collect", path, *slurm).stdout
    run = find_runs(root)[0]
    whole = run.result.read_bytes()
    run.result.write_bytes(whole[:3000])
    calls = (fake / "calls").read_text()
    said = orchestra(command, path, *slurm)
    assert said.returncode == 0, said.stderr
    assert f"{run.path.name}/result.nc is damaged; set aside as result.nc.damaged" in said.stdout
    again = orchestra("collect", path, *slurm)
    assert "4 of 4 points finished" in again.stdout
    assert (fake / "calls").read_text() == calls
    assert run.status()[0] == "finished"


def test_two_tasks_do_not_compute_one_point_at_the_same_time(tmp_path, fake):
    run = submitted_point(tmp_path)
    with run.locked(wait=False):
        done = subprocess.run(
            ["sh", str(run.path / "task.sh"), str(run.path), "9_9"],
            env={**os.environ, "ORCHESTRA_PATIENCE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 75
    assert "in use" in done.stderr
    assert not (run.path / "task" / "running").exists()


@pytest.mark.skipif(shutil.which("flock") is None, reason="flock is missing")
def test_a_task_that_begins_during_its_submission_waits_for_it(tmp_path, fake):
    """The submission holds every lock until the last point is recorded."""
    run = submitted_point(tmp_path)
    with run.locked(wait=False):
        task = subprocess.Popen(["sh", str(run.path / "task.sh"), str(run.path), "9_9"])
        wait_until(lambda: "sleep" in children(task.pid), task)  # between two looks at the lock
        assert not (run.path / "task" / "running").exists()
    assert task.wait(300) == 0
    assert (run.path / "task" / "ended-0-done").exists()


def test_the_time_limit_signal_stops_engines_and_asks_for_another_turn(tmp_path, fake):
    """USR1 to the batch script: the engine gets TERM, the marker says why, scontrol requeues.

    This task alone: the number of the array itself would take all tasks out of their work.
    """
    root = tmp_path / "runs"
    engine, site = tmp_path / "python", tmp_path / "site.toml"
    engine.write_text("#!/bin/sh\n: >started\nexec sleep 60\n")
    engine.chmod(0o755)
    site.write_text(f"python = {json.dumps(str(engine))}\n")
    submit(
        write(
            tmp_path,
            SMALL.replace("[0.5, 0.8]", "[0.5]").replace(
                "n_up: [1, 2], state.n_down: [1, 1]", "n_up: [1], state.n_down: [1]"
            ),
        ),
        root,
        *("--site", site),
    )
    (fake / "scontrol").write_text('#!/bin/sh\necho "$*" >>"$FAKE/scontrol.calls"\n')
    (fake / "scontrol").chmod(0o755)
    run = one_run(root)
    (batch,) = root.glob("*.slurm/*/batch.sh")
    variables = {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_JOB_ID": "701", "SLURM_JOB_ID": "702"}
    process = subprocess.Popen(
        ["bash", str(batch)], cwd=batch.parent, env={**os.environ, **variables}
    )
    wait_until((run.job / "started").exists, process)
    process.send_signal(10)
    assert process.wait(300) == 0
    assert (run.path / "task" / "ended-143-timelimit").exists()
    assert (fake / "scontrol.calls").read_text() == "requeue 701_0\n"
    state, message = state_of(run, Queue({"701_0": ("PENDING", "BeginTime")}))
    assert (state, "resumes" in message) == ("pending", True)
    assert state_of(run, Queue({}))[1].startswith("time limit")


@pytest.mark.slow
def test_without_locks_the_scheduler_decides(tmp_path, fake):
    path, root = write(tmp_path, SMALL), tmp_path / "runs"
    environment = no_locks(tmp_path, errno.ENOLCK)

    def call(*words: object) -> subprocess.CompletedProcess[str]:
        return started(*words, env=environment)

    sweep = ("sweep", path, "--runtime", "slurm", "-o", root)
    done = call(*sweep)
    assert "4 points in 4 tasks" in done.stdout, done.stderr
    assert done.stderr.count("has no locks") == 1
    (fake / "queue").write_text(queue_of(root, "RUNNING"))
    assert "4 running" in call("status", root).stdout
    assert "nothing to submit" in call(*sweep).stdout
    (fake / "queue").write_text("")
    assert "4 failed" in call("status", root).stdout
    assert "4 points in 4 tasks" in call(*sweep).stdout
    assert set(run_tasks(root, **environment)) == {0}
    # but nobody knows whether a run that was not submitted goes on
    run = one_run(root)
    shutil.rmtree(run.path / "task")
    run.write_record(dataclasses.replace(run.record(), state="running", job=None, pid=7))
    assert "1 unknown" in call("status", root).stdout
    done = call(*sweep)
    assert "another process may compute it" in done.stdout
    assert "nothing to submit" in done.stdout


def test_an_image_that_changed_since_the_submission_is_refused(tmp_path, fake):
    """The dataset names its digest."""
    labels = {
        HOLDS: "block2",
        PACKAGE: recipe_of("block2").own_hash(),
        "orchestra.scipy": "scipy 1",
    }
    answer = json.dumps({"data": {"attributes": {"labels": labels}}})
    (fake / "apptainer").write_text(
        f"#!/bin/sh\n[ $1 = exec ] || exec echo '{answer}'\necho >>\"$FAKE/started\"\n"
    )
    (fake / "apptainer").chmod(0o755)
    image, site, root = tmp_path / "an image.sif", tmp_path / "site.toml", tmp_path / "runs"
    image.write_text("first")
    site.write_text(f"[images]\nblock2 = {json.dumps(str(image))}\n")
    done = submit(write(tmp_path, SMALL), root, "--site", site)
    assert "4 points in 4 tasks" in done.stdout, done.stderr
    assert run_tasks(root) == [0, 0, 0, 0]
    assert len((fake / "started").read_text()) == 4
    shutil.rmtree(root)
    submit(write(tmp_path, SMALL), root, "--site", site)
    image.write_text("other")
    assert run_tasks(root) == [77, 77, 77, 77]
    assert len((fake / "started").read_text()) == 4
    run = one_run(root)
    state, message = state_of(run, Queue({}))
    assert (state, message.partition(":")[0]) == ("failed", "changed since it was submitted")
    assert "an image.sif is not what was submitted" in message


def test_an_engine_that_changed_since_the_submission_is_refused(tmp_path, fake):
    binary, root = tmp_path / "my ALF.out", tmp_path / "runs"
    binary.write_text("#!/bin/sh\nexit 3\n")
    binary.chmod(0o755)
    thermal = SMALL.replace("state: {n_up: 1, n_down: 1}", "state: {beta: 1.0}").replace(
        "zip:\n  filling: {state.n_up: [1, 2], state.n_down: [1, 1]}\n", ""
    )
    path = write(tmp_path, thermal.replace("[exact]", "[alf]"))
    environment = os.environ | {"ORCHESTRA_ALF": str(binary)}
    done = orchestra("sweep", path, "--runtime", "slurm", "-o", root, env=environment)
    assert "2 points in 2 tasks" in done.stdout, done.stderr
    with binary.open("a") as stream:
        stream.write("exit 4\n")
    assert run_tasks(root) == [1, 1]
    run = one_run(root)
    message = state_of(run, Queue({}))[1]
    assert f"{binary}: FAILED" in message
    assert not (run.job / "engine.log").exists()


def test_squeue_is_asked_again_then_given_up(fake):
    (fake / "down").touch()
    assert "Unable to contact" in str(ask_queue().problem)
    assert len((fake / "asked").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tiem = 3\n", ["line 1: unknown key `tiem`; did you mean `time`?"]),
        ("cpus = 0\npartition = 'a b'\n", ["line 1: `cpus`", "line 2: `partition`"]),
        ("partition = 'x; rm -rf /'\n", ["line 1: `partition`"]),
        ("sbatch = ['--hint=x\\nrm']\n", ["line 1: `sbatch.0`"]),
        ("[images]\nalfa = 'x'\n", ["line 1: `images` names `alfa`"]),
        ("cpus = \n", ["not valid TOML"]),
        ("cpus = 4\u00a0\n", ["not valid TOML: line 1: no-break space (U+00A0)"]),
        ("time = '1:00'\n\u00a0cpus = 4\n[", ["not valid TOML: line 2: no-break space (U+00A0)"]),
        ("cpus = \u22124\n", ["not valid TOML: line 1: Invalid value, with minus sign (U+2212)"]),
        ("partition = \u201ca\u201d", ["not valid TOML: line 1: Invalid value, with left double"]),
        ("partition = 'a'\nqos = 'b", ["not valid TOML: line 2: "]),
        ("cpus = 4\ncpus = 5\n", ["not valid TOML: line 2: "]),
        ("images = 3\n", ["line 1: `images` should be a section"]),
        ("", ["says nothing"]),
    ],
)
def test_a_wrong_site_profile_says_where(tmp_path, text, expected):
    (tmp_path / "site.toml").write_text(text.replace("'--hint=x\\nrm'", '"--hint=x\\nrm"'))
    with pytest.raises(SpecError) as caught:
        load_site("site.toml", tmp_path, {})
    assert len(caught.value.problems) == len(expected), caught.value.problems
    for problem, start in zip(caught.value.problems, expected, strict=True):
        assert problem.startswith(start), problem


def test_a_mark_of_the_encoding_is_no_mistake(tmp_path):
    (tmp_path / "site.toml").write_text("\ufeffcpus = 4\t# of one task\u00a0\r\n")
    assert load_site("site.toml", tmp_path, {}).cpus == 4


def test_scripts_pass_shellcheck(tmp_path):
    checker = shutil.which("shellcheck")
    if checker is None:
        pytest.skip("shellcheck is missing: apt install shellcheck")
    site = SiteProfile(partition="main", modules=("apptainer/1.4",), prologue=("export A=1",))
    placed = PlacedJob(tmp_path, Job("sh", ("run.sh",), {"run.sh": "true\n"}), Tools())
    tools = Tools(image=tmp_path / "alf.sif", image_digest="sha256:0")
    inside = dataclasses.replace(placed, tools=tools)
    chunk = Chunk("name", tmp_path, [[placed, placed], [inside]])
    (tmp_path / "batch.sh").write_text(SlurmRuntime(site).batch_script(chunk))
    (tmp_path / "task.sh").write_text(task_script(placed, site))
    for name in ("batch.sh", "task.sh"):
        words = [checker, "-x", "-e", "SC1091", str(tmp_path / name)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_records_of_earlier_versions_are_read(tmp_path):
    from bilayer_orchestra.running.directory import Record

    old = {"state": "finished", "backend": "exact", "engine": "e", "model": "m", "hash": "h"}
    (tmp_path / "run.json").write_text(json.dumps(old))
    assert RunDirectory(tmp_path).record() == Record(**old)


def test_the_host_starts_the_ranks_of_an_image(tmp_path):
    """With a launcher, run.sh runs outside and every rank in a container of its own."""
    image = tmp_path / "alf.sif"
    launched = get_engine("alf").recipe.launched
    tools = Tools(image=image, image_digest="sha256:0", launched=launched)
    site = SiteProfile(launcher="srun -n {ranks}", binds=("/a:/b",), images={"alf": "alf.sif"})
    launcher = "ORCHESTRA_ALF_LAUNCHER"
    job = Job("sh", ("run.sh",), {}, {"OMP_NUM_THREADS": "1"}, ranks=3, launcher=launcher)
    script = task_script(PlacedJob(tmp_path, job, tools), site)
    words = f"apptainer exec --no-home --bind {tmp_path}/job --bind /a:/b {image}"
    assert f"export ORCHESTRA_ALF_LAUNCHER='srun -n {{ranks}} {words}'" in script
    assert "export ORCHESTRA_ALF=/opt/orchestra/alf/ALF-MPI.out" in script
    assert "exec sh run.sh " in script
    alone = task_script(PlacedJob(tmp_path, dataclasses.replace(job, ranks=1), tools), site)
    assert "LAUNCHER" not in alone
    assert "exec apptainer exec --containall" in alone
    with pytest.raises(OrchestraError, match="MPI in containers"):
        task_script(PlacedJob(tmp_path / "a b", job, tools), site)
