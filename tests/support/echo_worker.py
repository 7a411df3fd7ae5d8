"""A worker without an engine: does what the file ``task`` in the job directory says."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from bilayer_orchestra.engine_side.worker import serve


def solve(directory: Path) -> None:
    task = (directory / "task").read_text()
    print("solving", task, flush=True)  # noqa: T201 what an engine would print
    (directory / "pid").write_text(str(os.getpid()))
    if task == "fail":
        raise ValueError("no convergence")
    if task == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if task == "long":
        time.sleep(600)


if __name__ == "__main__":
    serve(int(sys.argv[1]), solve)
