"""Jobs for workers that hold no engine."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from bilayer_orchestra.runtimes.child import Workers
from tests.support.paths import ROOT

MODULE = "tests.support.echo_worker"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


class Study:
    """Jobs in directories with locks, as the pipeline makes them."""

    def __init__(self, root: Path) -> None:
        self.root, self.workers = root, Workers()

    def run(self, name: str, task: str = "succeed", on_poll=lambda: None, **more: str) -> int:
        """Run one job; return the process number of the worker that solved it."""
        directory = self.root / name
        directory.mkdir()
        (directory / "task").write_text(task)
        with (directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            environment = ENVIRONMENT | more
            self.workers.execute(MODULE, environment, directory, lock.fileno(), on_poll)
        return self.pid(name)

    def pid(self, name: str) -> int:
        return int((self.root / name / "pid").read_text())

    def is_locked(self, name: str) -> bool:
        with (self.root / name / "lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False
