"""Processes that solve one job after the other: what happens in them stays in them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bilayer_orchestra.errors import EngineError, Interrupted
from tests.support.jobs import ENVIRONMENT, Study
from tests.support.paths import ROOT
from tests.support.processes import is_alive, wait_until


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    made = Study(tmp_path)
    yield made
    made.workers.close()


def test_one_process_solves_all_jobs(study):
    first = study.run("a")
    assert study.run("b") == first
    assert study.run('c "$(id)" \' é') == first
    assert study.run("d", OMP_NUM_THREADS="7") != first  # fixed before a library loads
    study.workers.close()
    assert not is_alive(first)


def test_what_a_job_prints_is_in_its_own_log(study):
    study.run("a", "one")
    study.run("b", "two")
    assert "solving one" in (study.root / "a" / "engine.log").read_text()
    assert "two" not in (study.root / "a" / "engine.log").read_text()
    assert "solving two" in (study.root / "b" / "engine.log").read_text()


def test_a_failing_job_is_reported_alone(study):
    first = study.run("a")
    with pytest.raises(EngineError, match="no convergence") as error:
        study.run("b", "fail")
    assert "engine.log" in str(error.value)
    assert not is_alive(first)
    assert study.run("c") != first


def test_a_crash_ends_one_job(study):
    first = study.run("a")
    with pytest.raises(EngineError, match="SIGSEGV"):
        study.run("b", "crash")
    assert not study.is_locked("b")
    assert study.run("c") != first


def test_a_worker_that_died_between_jobs_is_replaced(study):
    first = study.run("a")
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not is_alive(first))
    assert study.run("b") != first


def test_an_interrupt_ends_the_job_and_frees_its_lock(study):
    def poll() -> None:
        if (study.root / "a" / "pid").exists():
            assert study.is_locked("a")
            raise Interrupted

    with pytest.raises(Interrupted):
        study.run("a", "long", poll)
    assert not is_alive(study.pid("a"))
    assert not study.is_locked("a")


def test_the_worker_holds_the_lock_and_dies_with_the_orchestrator(study):
    """kill -9 of the orchestrator: nothing goes on computing, and nothing stays locked."""
    script = (
        "import sys; from pathlib import Path; from tests.support.jobs import Study;"
        "Study(Path(sys.argv[1])).run('a', 'long')"
    )
    command = [sys.executable, "-c", script, str(study.root)]
    process = subprocess.Popen(command, env=ENVIRONMENT, cwd=ROOT)
    try:
        wait_until((study.root / "a" / "pid").exists, process)
        assert study.is_locked("a")
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not is_alive(study.pid("a")))
    assert not study.is_locked("a")
