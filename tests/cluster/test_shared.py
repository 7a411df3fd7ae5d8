"""Directories that several users write in: whose a point is, and what a task may execute."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import xarray as xr

from bilayer_orchestra.engines.registry import get_engine
from bilayer_orchestra.errors import ForeignFileError, OrchestraError
from bilayer_orchestra.files import DEFAULT_ACL, open_log
from bilayer_orchestra.running.directory import RunDirectory, find_runs
from bilayer_orchestra.running.point import Runner, run_point
from bilayer_orchestra.running.queued import known_states
from bilayer_orchestra.runtimes.child import Child
from tests.support.commands import ORCHESTRA
from tests.support.fake_slurm import SBATCH, SQUEUE
from tests.support.models import make_model
from tests.support.slurm_cluster import Cluster, missing_slurm
from tests.support.studies import SMALL
from tests.support.two_users import make_users, missing_users

needs_users = pytest.mark.skipif(bool(missing_users()), reason=f"no two users: {missing_users()}")
ENERGY = -4.354554895800679  # of the last point of SMALL, by exact diagonalization elsewhere


@pytest.fixture
def shared() -> Iterator[SimpleNamespace]:
    """Two users, a study that both can read, a directory that both can write, a fake Slurm."""
    base = Path(tempfile.mkdtemp(prefix="orchestra-test-"))
    alice, bob = make_users(base)
    fake, root, study = base / "fake", base / "runs", base / "study.yaml"
    for folder in (fake, root):
        folder.mkdir()
        folder.chmod(0o777)
    for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE)):
        (fake / name).write_text(text)
        (fake / name).chmod(0o755)
    for name in ("calls", "count", "asked"):
        (fake / name).write_text("700" if name == "count" else "")
        (fake / name).chmod(0o666)
    study.write_text(SMALL)
    for user in (alice, bob):
        path = user.run("sh", "-c", "echo $PATH").stdout.strip()
        user.environment |= {"FAKE": str(fake), "PATH": f"{fake}:{path}"}
    yield SimpleNamespace(base=base, alice=alice, bob=bob, fake=fake, root=root, study=study)
    shutil.rmtree(base)


def submit(shared: SimpleNamespace, user, *more: object, **options):
    words = ("sweep", shared.study, "--runtime", "slurm", "-o", shared.root, *more)
    return user.orchestra(*words, **options)


def batches(shared: SimpleNamespace) -> list[tuple[Path, str]]:
    """Return (directory, script) of every submission: the scheduler copies the script."""
    return [(path.parent, path.read_text()) for path in shared.root.glob("*.slurm/*/batch.sh")]


def compute(user, submission: tuple[Path, str], **options) -> list[subprocess.CompletedProcess]:
    """Do what the compute nodes would do, as ``user``."""
    directory, script = submission
    (user.home / "slurm_script").write_text(script)
    done = []
    for task in sorted((directory / "tasks").iterdir()):
        variables = {"SLURM_ARRAY_TASK_ID": task.name, "SLURM_ARRAY_JOB_ID": "701"}
        done.append(
            user.run("bash", user.home / "slurm_script", cwd=directory, **variables, **options)
        )
    return done


def modes(root: Path) -> dict[Path, int]:
    found = [path for path in root.rglob("*") if not path.is_symlink()]
    return {path: stat.S_IMODE(path.stat().st_mode) for path in found}


@pytest.mark.cases(2)
@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
@needs_users
def test_nobody_else_may_write_what_a_job_executes_whatever_the_umask(shared, umask):
    alice, root = shared.alice, shared.root
    done = submit(shared, alice, umask=umask)
    assert done.returncode == 0, done.stderr
    (submission,) = batches(shared)
    assert [one.returncode for one in compute(alice, submission, umask=umask)] == [0] * 4
    model = shared.base / "model.yaml"
    model.write_text(make_model({"n_up": 2, "n_down": 2}, 2).to_yaml())
    local = root / "local"
    done = alice.orchestra("run", model, "-b", "exact", "-o", local, "--no-plot", umask=umask)
    assert done.returncode == 0, done.stderr
    below = [path for run in find_runs(root) + find_runs(local) for path in (run.path,)]
    assert len(below) == 5
    for tree in (*below, submission[0]):
        for path, mode in {tree: stat.S_IMODE(tree.stat().st_mode), **modes(tree)}.items():
            full = 0o755 if path.is_dir() else 0o644
            assert mode == full & ~umask, f"{path} {mode:o}"
    # what is above the runs is as the user wants it: others may have theirs there
    assert stat.S_IMODE(local.stat().st_mode) == 0o777 & ~umask


@needs_users
def test_what_an_earlier_version_left_writable_is_not_any_more(shared):
    alice, bob = shared.alice, shared.bob
    submit(shared, alice)
    (first, *_) = find_runs(shared.root)
    alice.sh('chmod -R a+w "$1"', first.path)
    submit(shared, alice)  # the fake queue is empty: all failed
    assert all(not mode & 0o022 for mode in modes(first.path).values())
    # and what another user has put there meanwhile is neither executed nor removed
    alice.sh('chmod a+w "$1"', first.job)
    bob.sh('echo evil >"$1/checkpoint.zip"', first.job)
    refused = submit(shared, alice)
    assert refused.returncode == 1
    assert f"{first.job}/checkpoint.zip belongs to {bob.name}" in refused.stderr


@needs_users
def test_points_of_another_user_are_listed_and_collected_but_not_submitted(shared):
    alice, bob, root = shared.alice, shared.bob, shared.root
    assert "4 points in 4 tasks" in submit(shared, alice).stdout
    # the scheduler may hide what is another user's
    for queue in ("", "".join(f"701_{k}|PENDING|None\n" for k in range(4))):
        (shared.fake / "queue").write_text(queue)
        listed = bob.orchestra("status", root)
        assert "failed" not in listed.stdout, listed.stdout
        assert listed.stdout.count(f"belongs to {alice.name}") == 4
        done = submit(shared, bob)
        assert done.returncode == 0, done.stderr
        lines = [line for line in done.stdout.splitlines() if alice.name in line and "-o" in line]
        assert len(lines) == 1, done.stdout
        assert "and 3 more" in lines[0]
        assert "nothing to submit" in done.stdout
    assert f"--user={alice.uid}" in (shared.fake / "asked").read_text()
    assert len((shared.fake / "calls").read_text().splitlines()) == 1
    (submission,) = batches(shared)
    assert [one.returncode for one in compute(alice, submission)] == [0] * 4
    (shared.fake / "queue").write_text("")
    done = bob.orchestra("collect", shared.study, "--runtime", "slurm", "-o", root)
    assert "0 of 4 points finished" in done.stdout  # who computed them labels them
    assert "4 finished" in bob.orchestra("status", root).stdout
    bob.sh('rm "$1/scan.nc"', root)
    done = alice.orchestra("collect", shared.study, "--runtime", "slurm", "-o", root)
    assert "4 of 4 points finished" in done.stdout, done.stderr
    done = bob.orchestra("sweep", shared.study, "-o", root)
    assert done.returncode == 0, done.stderr
    assert "4 of 4 points finished" in done.stdout
    assert f"{root / 'scan.nc'} belongs to {alice.name}" in done.stdout
    assert (root / "scan.nc").stat().st_uid == alice.uid
    dataset = xr.load_dataset(bob.home / "scan.nc")
    assert abs(float(dataset.energy.sel(t_perp=0.8, filling=1)[0]) - ENERGY) < 1e-10


@needs_users
def test_the_second_user_computes_what_the_first_does_not_have(shared):
    """Beside the first one's points, with a submission of the same name."""
    alice, bob, root = shared.alice, shared.bob, shared.root
    submit(shared, alice)
    shared.study.write_text(SMALL.replace("[0.5, 0.8]", "[0.5, 0.8, 0.9]"))
    done = submit(shared, bob)
    assert done.returncode == 0, done.stderr
    assert "2 points in 2 tasks" in done.stdout
    theirs = [one for one in batches(shared) if one[0].stat().st_uid == bob.uid]
    assert [one.returncode for one in compute(bob, theirs[0])] == [0, 0]
    done = bob.orchestra("collect", shared.study, "--runtime", "slurm", "-o", root)
    assert "2 of 6 points finished" in done.stdout, done.stderr


@needs_users
def test_a_run_of_another_user_is_read_and_not_continued(shared):
    alice, bob = shared.alice, shared.bob
    model, root = shared.base / "model.yaml", shared.root / "one"
    model.write_text(make_model({"n_up": 2, "n_down": 2}, 2).to_yaml())
    words = ("run", model, "-b", "exact", "-o", root)
    assert alice.orchestra(*words, umask=0).returncode == 0
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    read = bob.orchestra(*words)
    assert read.returncode == 0, read.stderr
    assert "(stored" in read.stdout
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    (run,) = find_runs(root)
    alice.sh('rm "$1/result.nc" "$1/executed.json"', run.path)
    alice.sh("""sed -i 's/"state": "finished"/"state": "running"/' "$1/run.json" """, run.path)
    with (run.path / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "1 running" in bob.orchestra("status", root).stdout
    listed = bob.orchestra("status", root).stdout
    assert "1 failed" in listed
    assert "resumes" not in listed  # that is for its owner to do
    for more in ((), ("--no-wait",)):
        refused = bob.orchestra(*words, *more)
        assert refused.returncode == 1
        assert refused.stderr.count("\n") == 1, refused.stderr
        assert f"belongs to {alice.name}" in refused.stderr
        assert "-o" in refused.stderr
    assert bob.orchestra(*words[:-1], bob.home / "runs").returncode == 0
    assert alice.orchestra(*words).returncode == 0


REPLACED = {
    "another script": 'mv "$1" "$1.away"; cp -r "$1.away" "$1"; echo "touch $EVIL" >"$1/task.sh"',
    "the same script": 'mv "$1" "$1.away"; cp -r "$1.away" "$1"',
    "a link to it": 'mv "$1" "$1.away"; ln -s "$1.away" "$1"; mkdir "$1.away/job"; false',
    "a link to another's": 'mv "$1" "$1.away"; cp -r "$1.away" "$2/run"; ln -s "$2/run" "$1"',
    "a hard link": 'mv "$1" "$1.away"; mkdir "$1"; ln "$1.away/task.sh" "$1/task.sh" || true',
    "nothing": 'mv "$1" "$1.away"',
    "another point": 'mv "$1" "$1.away"; mv "$3" "$1"',
    "the submission": 'mv "$4" "$4.away"; cp -r "$4.away" "$4"; for run in "$4"/*/tasks/*/*; do '
    'rm "$run"; mkdir "$run"; echo "touch $EVIL" >"$run/task.sh"; done',
}


@pytest.mark.cases(3)
@pytest.mark.parametrize("how", REPLACED)
@needs_users
def test_a_queued_task_refuses_what_another_user_put_in_its_place(shared, how):
    """Who may write in the directory above can rename: the batch script knows what it starts."""
    alice, bob = shared.alice, shared.bob
    submit(shared, alice)
    (submission,) = batches(shared)
    runs = {(link.resolve()): link for link in (submission[0] / "tasks").glob("*/*")}
    first = next(run for run, link in runs.items() if link.parent.name == "0")
    other = next(run for run, link in runs.items() if link.parent.name == "1")
    folder, evil = submission[0].parent, shared.fake / "evil"
    bob.run("sh", "-c", REPLACED[how], "sh", first, bob.home, other, folder, EVIL=str(evil))
    done = compute(alice, submission)[0]
    assert not evil.exists()
    if how == "a link to it":  # what is executed is what was submitted, and it is alice's
        assert done.returncode == 0
        return
    assert done.returncode != 0
    assert not list(first.glob("task/ended-0-*"))
    if how != "nothing":
        assert "orchestra: refused: " in done.stderr


@needs_users
def test_what_is_exchanged_between_the_check_and_the_start_is_not_executed(shared):
    """The profile's prologue plays the other user: it exchanges the run once its sum is known."""
    alice, bob = shared.alice, shared.bob
    evil, site = shared.fake / "evil", shared.base / "site.toml"
    exchange = (
        'sha256sum() { command sha256sum "$@"; for bad in ../../*.bad; do'
        ' if [ -e "$bad" ]; then mv "${bad%.bad}" "${bad%.bad}.good"; mv "$bad" "${bad%.bad}"; fi;'
        " done; }"
    )
    site.write_text(f"prologue = [{json.dumps(exchange)}]\n")
    submit(shared, alice, "--site", site)
    (submission,) = batches(shared)
    first = (submission[0] / "tasks" / "0" / "0000").resolve()
    bob.sh('cp -r "$1" "$1.bad"; echo "touch $2" | tee "$1.bad/task.sh" >"$1.bad/x"', first, evil)
    done = next(one for one in compute(alice, submission) if one.returncode)
    assert first.with_name(f"{first.name}.good").exists()
    assert not evil.exists()
    assert "belongs to another user" in done.stderr


@pytest.mark.skipif(bool(missing_slurm()), reason=f"no test cluster: {missing_slurm()}")
@needs_users
def test_on_a_real_slurm_a_queued_task_refuses_what_was_replaced(shared):
    """Alice's tasks are held; bob replaces one run; the others are computed, as alice."""
    alice, bob = shared.alice, shared.bob
    engine, site = shared.base / "engine", shared.base / "site.toml"
    engine.write_text("#!/bin/sh\nid -un >ran\n")
    engine.chmod(0o755)
    site.write_text(f"sbatch = ['--hold']\nsignal = 0\npython = {json.dumps(str(engine))}\n")
    # a site's sbatch that says welcome, and no number
    (shared.fake / "sbatch").write_text(f'#!/bin/sh\n{shutil.which("sbatch")} "$@" >&2; echo Hello')
    (shared.fake / "squeue").unlink()
    with Cluster(shared.base / "cluster") as cluster:
        for user in (alice, bob):
            user.environment["SLURM_CONF"] = cluster.environment["SLURM_CONF"]
        done = submit(shared, alice, "--site", site, umask=0)
        assert "4 points in 4 tasks" in done.stdout, done.stderr
        assert f"belong to {alice.name}" in submit(shared, bob, "--site", site).stdout
        listed = bob.orchestra("status", shared.root).stdout
        assert "4 pending" in listed
        assert "JobHeldUser" in listed
        first = find_runs(shared.root)[0]
        number, _, index = str(first.record().job).partition("_")
        evil = shared.fake / "evil"
        bob.run("sh", "-c", REPLACED["another script"], "sh", first.path, EVIL=str(evil))
        cluster.run("scontrol", "release", number)
        cluster.wait_until_empty()
    assert not evil.exists()
    ran = [path.read_text().strip() for path in shared.root.glob("*/job/ran")]
    assert ran == [alice.name] * 3
    (log,) = shared.root.glob(f"*.slurm/*/task-{index}.log")
    assert f"orchestra: refused: tasks/{index}/0000/task.sh" in log.read_text()


@needs_users
def test_a_file_that_changed_since_the_submission_is_named(shared):
    alice = shared.alice
    submit(shared, alice)
    (submission,) = batches(shared)
    first = (submission[0] / "tasks" / "0" / "0000").resolve()
    alice.sh('sed -i "s/0.5/0.6/" "$1/job/job.json"', first)
    done = compute(alice, submission)
    assert "job.json: FAILED" in done[0].stderr
    assert [one.returncode for one in done] == [1, 0, 0, 0]
    (submission[0] / "task-0.log").write_text(done[0].stderr)
    listed = alice.orchestra("status", shared.root)
    assert "changed since it was submitted" in listed.stdout
    assert "1 points in 1 tasks" in submit(shared, alice).stdout


@needs_users
def test_what_nobody_may_read_is_another_users_and_no_failure(shared):
    alice, bob = shared.alice, shared.bob
    submit(shared, alice, umask=0o077)

    def look() -> None:
        states = known_states({run.path.name: run for run in find_runs(shared.root)})
        assert len(states) == 4
        for state, message in states.values():
            assert state == "unknown"
            assert message == f"belongs to {alice.name}, who does not let you read it"
        with (
            pytest.raises(ForeignFileError, match=f"belongs to {alice.name}.* -o names"),
            find_runs(shared.root)[0].locked(wait=True),
        ):
            pass

    assert bob.call(look) == ""


@needs_users
def test_an_engine_does_not_start_in_a_directory_that_was_replaced(shared):
    """Between the look at its owner and the start; what is inside cannot be replaced any more."""
    log = shared.base / "log"
    with log.open("wb") as stream:
        engine = Child(["touch", "evil"], shared.bob.home, {}, stream, stream.fileno())
    assert engine.process.wait() != 0
    engine.stop()
    assert "replaced by another user" in log.read_text()
    assert not (shared.bob.home / "evil").exists()
    (shared.base / "engine.log").symlink_to(shared.base / "private")
    with pytest.raises(OrchestraError, match="cannot write"):
        open_log(shared.base / "engine.log")


@needs_users
def test_a_renamed_run_is_not_taken_for_another(shared):
    """Who may write above the runs cannot make one of them, but can exchange two."""
    alice, bob, root = shared.alice, shared.bob, shared.root
    assert alice.orchestra("sweep", shared.study, "-o", root).returncode == 0
    first, second = find_runs(root)[:2]
    bob.sh('mv "$1" "$1.away"; mv "$2" "$1"; mv "$1.away" "$2"', first.path, second.path)
    done = alice.orchestra("collect", shared.study, "-o", root)
    assert done.returncode == 0
    assert done.stdout.count("was renamed") == 2
    assert "2 of 4 points finished" in done.stdout


@needs_users
def test_builds_of_another_user_in_a_common_cache_are_not_executed(shared):
    alice, bob = shared.alice, shared.bob
    cache, evil = shared.root, shared.fake / "evil"
    key, hamiltonian = alice.python(
        "from bilayer_orchestra.engines.alf.installation import hamiltonian_hash\n"
        "from bilayer_orchestra.engines.itensor.package import engine_hash\n"
        "print(engine_hash()[:16], hamiltonian_hash())"
    ).split()
    bob.sh(
        """mkdir -p "$1/alf/bob" "$1/itensor/$2/src"; cd "$1/alf/bob"
        printf '#!/bin/sh\\ntouch %s\\n' "$4" >ALF.out; chmod a+rx ALF.out
        set -- "$@" "$(sha256sum <ALF.out | cut -c -64)"
        printf '{"alf_version": "ALF", "hamiltonian": "%s", "options": [], "compiler": "g",
         "blas": "b", "built": "9", "binary_sha256": "%s"}' "$3" "$5" >build.json
        touch "$1/itensor/$2/Project.toml"
        echo 'module OrchestraITensor end' >"$1/itensor/$2/src/OrchestraITensor.jl"
        """,
        *(cache, key, hamiltonian, evil),
    )
    told = alice.orchestra("doctor", ORCHESTRA_CACHE=str(cache))
    assert f"belongs to {bob.name}" in told.stdout
    assert "ORCHESTRA_ALF" in told.stdout
    model = shared.base / "model.yaml"
    model.write_text(make_model({"n_up": 2, "n_down": 2}, 2).to_yaml())
    words = ("render", model, "-b", "itensor", "-o", alice.home / "job")
    refused = alice.orchestra(*words, ORCHESTRA_CACHE=str(cache))
    assert refused.returncode == 1
    assert f"belongs to {bob.name}" in refused.stderr
    assert "ORCHESTRA_CACHE" in refused.stderr
    assert not evil.exists()


@needs_users
def test_what_another_user_remembers_of_an_image_is_not_believed(shared):
    alice, bob, cache = shared.alice, shared.bob, shared.root
    image, command = shared.base / "alf.sif", shared.fake / "apptainer"
    image.write_text("an image")
    command.write_text(
        '#!/bin/sh\necho \'{"data": {"attributes": {"labels": {"orchestra.holds": "alf"}}}}\'\n'
    )
    command.chmod(0o755)
    code = (
        "from bilayer_orchestra.images.use import inspect\nfrom pathlib import Path\n"
        f"print(inspect(Path({str(image)!r})).digest)"
    )
    true = alice.python(code, ORCHESTRA_CACHE=str(cache))
    (memory,) = cache.glob("images/*.json")
    bob.sh('mv "$1" "$1.away"; mkdir "$1"; cp "$1.away/"* "$1"; sed -i s/sha256:./sha256:X/ "$1"/*',
           memory.parent)  # fmt: skip
    assert "sha256:X" in memory.read_text()
    assert alice.python(code, ORCHESTRA_CACHE=str(cache)) == true


@needs_users
def test_a_site_profile_of_another_user_is_refused(shared):
    """Found in the working directory under the name of one's own; its prologue is shell."""
    alice, bob, here = shared.alice, shared.bob, shared.root
    bob.sh('echo "prologue = [\'touch $2\']" >"$1/archer"', here, shared.fake / "evil")
    done = submit(shared, alice, "--site", "archer", cwd=here)
    assert done.returncode == 1
    assert f"belongs to {bob.name}" in done.stderr
    alice.sh('cp "$1/archer" "$2"', here, alice.home)
    assert submit(shared, alice, "--site", alice.home / "archer").returncode == 0


INJECTED = {
    "matplotlibrc": "figure.facecolor: red\nfont.size: 30\naxes.prop_cycle: cycler('color', 'g')",
    "juliapkg.json": '{"packages": {"Evil": {"uuid": "0", "version": "1"}}}',
    **{
        f"{name}.py": "import os; open(os.environ['EVIL'], 'w')"
        for name in ("netCDF4", "matplotlib", "numpy", "xarray", "block2", "sitecustomize")
    },
}


@pytest.mark.cases(1)
@pytest.mark.parametrize("start", ["orchestra", "PYTHONPATH", "-m"])
@needs_users
def test_a_working_directory_that_others_may_write_injects_nothing(shared, start):
    alice, bob, here, evil = shared.alice, shared.bob, shared.root, shared.fake / "evil"
    model = shared.base / "model.yaml"
    model.write_text(make_model({"n_up": 2, "n_down": 2}, 3).to_yaml())
    code = "import sys; from bilayer_orchestra.cli.main import main; sys.exit(main())"
    words = {
        "-m": ORCHESTRA,
        # as the script that pip installs
        "orchestra": [sys.executable, "-P", "-c", code],
        "PYTHONPATH": [sys.executable, "-P", "-c", code],
    }[start]
    more = {"EVIL": str(evil)} | ({"PYTHONPATH": ":"} if start == "PYTHONPATH" else {})
    run = (*words, "run", model, "-b", "exact", "-o")
    clean = alice.run(*run, alice.home / "clean", **more)
    assert clean.returncode == 0, clean.stderr
    for name, text in INJECTED.items():
        # this one is imported before any of our code, from wherever python looks for modules
        if name != "sitecustomize.py" or start == "orchestra":
            bob.sh('printf "%s\\n" "$3" >"$1/$2"', here, name, text)
    done = alice.run(*run, alice.home / "there", cwd=here, **more)
    assert done.returncode == 0, done.stderr
    assert not evil.exists()
    clean, there = (alice.home / name / "result.png" for name in ("clean", "there"))
    assert clean.read_bytes() == there.read_bytes()


def test_an_engine_takes_no_module_from_its_directory(tmp_path):
    model = make_model({"n_up": 2, "n_down": 2}, 2)
    run = RunDirectory.for_request(tmp_path, model, get_engine("exact"))
    run.job.mkdir(parents=True)
    for name in ("numpy", "json", "bilayer_orchestra"):
        (run.job / f"{name}.py").write_text("raise SystemExit('injected')\n")
    run_point(model, get_engine("exact"), Runner(tmp_path))


def test_access_lists_do_not_let_others_write(tmp_path):
    """A directory with a default list gives it to what is made inside, whatever the umask."""
    entries = [(1, 7, -1), (2, 7, 2), (4, 7, -1), (16, 7, -1), (32, 5, -1)]  # uid 2: rwx
    packed = b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(tmp_path, DEFAULT_ACL, struct.pack("<I", 2) + packed)
    except OSError as error:
        pytest.skip(f"no access control lists here: {error.strerror}")
    model = make_model({"n_up": 2, "n_down": 2}, 3)
    run = run_point(model, get_engine("exact"), Runner(tmp_path)).run
    found = modes(run.path)
    assert {run.job / name for name in ("job.json", "output.npz", "engine.log")} <= set(found)
    assert {oct(mode & 0o055) for mode in found.values()} <= {"0o44", "0o55"}
    assert not [path for path, mode in found.items() if mode & 0o022]


def test_a_file_system_that_cannot_tell_users_apart_is_told(tmp_path, monkeypatch):
    """Such as one of another machine, for root: what is made there belongs to somebody else."""
    monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)
    run = RunDirectory(tmp_path / "run")
    tmp_path.chmod(0o777)
    with pytest.raises(ForeignFileError, match="gives it what you make"), run.locked(wait=True):
        pass


def test_a_listing_does_not_believe_what_others_may_have_written(tmp_path):
    record = {"state": "pending", "backend": "exact", "engine": "e", "model": "m", "hash": "h"}
    records = [record | {"job": 5}, record | {"place": "x", "job": "1_0"}, record | {"state": 3}]
    for k, value in enumerate([*records, [], "nonsense"]):
        (tmp_path / str(k)).mkdir()
        (tmp_path / str(k) / "run.json").write_text(json.dumps(value))
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "run.json")
    done = subprocess.run(
        [*ORCHESTRA, "status", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("5 pending\n")
