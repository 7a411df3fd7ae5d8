"""Where this program does not start: on Windows, and for tasks of an earlier version."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.model import spec
from bilayer_orchestra.runtimes.slurm.state import Queue, Submitted, submitted_state

WINDOWS = "import sys; sys.platform = 'win32'; sys.modules['fcntl'] = None; "


@pytest.mark.parametrize(
    ("start", "code"),
    [
        ("from bilayer_orchestra.cli.main import main; main()", 1),
        ("import bilayer_orchestra as bo\ntry: bo.run\nexcept Exception as e: print(e)", 0),
    ],
    ids=["command line", "Python"],
)
def test_windows_is_refused_in_one_line(start, code):
    command = [sys.executable, "-c", WINDOWS.replace("; ", "\n") + start]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (line,) = (done.stdout + done.stderr).splitlines()
    assert (done.returncode, "WSL" in line) == (code, True), line


@pytest.mark.parametrize("engine", ["exact", "block2"])
def test_a_task_of_an_earlier_version_says_to_submit_again(tmp_path, engine):
    """Its script starts the module that was there then; nothing is computed."""
    job, task = tmp_path / "job", tmp_path / "task"
    job.mkdir()
    task.mkdir()
    (job / "job.json").write_text("{}")
    old = ["-P", "-m", f"bilayer_orchestra.backends.{engine}.engine", "."]
    done = subprocess.run(
        [sys.executable, *old], cwd=job, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "submit it again" in line
    assert [path.name for path in job.iterdir()] == ["job.json"]
    (job / "engine.log").write_text(f"--- job 7_0\n{done.stderr}")
    (task / "ended-1-engine").write_text("job=7_0\nhost=here\n")
    submitted = Submitted(tmp_path, "7_0", None, foreign=False)
    state, message = submitted_state(submitted, Queue(tasks={"7_0": ("FAILED", "")}))
    assert state == "failed"
    assert line in message


def test_what_was_moved_can_be_imported():
    """Only Python's own search for a module to run is refused."""
    command = [sys.executable, "-c", "import bilayer_orchestra.backends"]
    assert subprocess.run(command, check=False, cwd=Path(__file__).parent).returncode == 0


def test_a_checkout_that_went_on_without_its_installation_says_so(monkeypatch):
    monkeypatch.setattr(spec, "GEOMETRIES", SimpleNamespace(all=dict))
    spec.kinds.cache_clear()
    try:
        with pytest.raises(OrchestraError, match="install it again"):
            spec.kinds()
    finally:
        spec.kinds.cache_clear()
