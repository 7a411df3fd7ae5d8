"""Watches a job from beside it, on a compute node: leaves ``job/stop`` once it has done enough.

``python -m bilayer_orchestra.running.watch RUN`` is started by the task script where the site
profile names a Python; the script ends it with the job.
"""

import sys
import time
from pathlib import Path

from bilayer_orchestra.engines.registry import get_engine
from bilayer_orchestra.model.spec import load_model
from bilayer_orchestra.running.directory import MODEL, RunDirectory
from bilayer_orchestra.running.point import STOP, make_request

#: Left when it begins: a target that nobody watched is said in the result.
WATCHED = "watched"
#: Seconds between two looks; engines look at their data even less often.
LOOK = 2.0


def watch(run: RunDirectory) -> None:
    """Wait until the job of ``run`` has done enough; then ask it to stop."""
    record = run.record()
    assert record is not None
    engine = get_engine(record.backend)
    request = make_request(load_model(run.path / MODEL), engine)
    (run.path / "task" / WATCHED).touch()
    while not engine.enough(run.job, request):
        time.sleep(LOOK)
    (run.job / STOP).touch()


def was_watched(run: RunDirectory) -> bool:
    """Return whether somebody watched the job on its node."""
    return (run.path / "task" / WATCHED).exists()


if __name__ == "__main__":
    watch(RunDirectory(Path(sys.argv[1])))
