"""One question to the scheduler about all jobs of a directory."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

#: Seconds that the scheduler may take.
TIMEOUT = 30.0
#: Seconds of the pauses before it is asked again.
BACK_OFF = (1.0, 3.0)
#: Seconds: squeue tries for a while itself, and after longer ones it is not asked again.
PATIENCE = 5.0
WAITING = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SUSPENDED", "SPECIAL_EXIT"}
RUNNING = {"RUNNING", "COMPLETING", "CONFIGURING", "STAGE_OUT", "SIGNALING", "STOPPED", "RESIZING"}
#: States of ended jobs, in words.
ENDED = {
    "TIMEOUT": "time limit",
    "DEADLINE": "time limit",
    "OUT_OF_MEMORY": "out of memory",
    "NODE_FAIL": "node failure",
    "BOOT_FAIL": "node failure",
    "CANCELLED": "cancelled",
    "PREEMPTED": "preempted",
    "REVOKED": "cancelled",
    "FAILED": "engine error",
    "COMPLETED": "ended",
}


@dataclass(frozen=True)
class Queue:
    """What the scheduler said.

    Parameters
    ----------
    tasks : dict
        Name of a task, ``4711_3`` -> (state, reason).
    problem : str or None
        Why it could not be asked.
    """

    tasks: dict[str, tuple[str, str]] = field(default_factory=dict)
    problem: str | None = None


def ask_queue(users: Iterable[int] = ()) -> Queue:
    """Return all tasks of some users, also those that ended within the last minutes: one call.

    If the scheduler does not answer, it is asked again after growing pauses.

    Parameters
    ----------
    users : iterable of int
        Their numbers; ours by default.
    """
    names = ",".join(str(user) for user in sorted({*users} or {os.geteuid()}))
    problem = ""
    begin = time.monotonic()
    for pause in (0.0, *BACK_OFF):
        if pause and time.monotonic() - begin > PATIENCE:
            break
        time.sleep(pause)
        try:
            words = ("--array", "--states=all", f"--user={names}", "--format=%i|%T|%r")
            rows = _rows("squeue", "--noheader", *words)
            return Queue({name: (state, reason) for name, state, reason in rows})
        except FileNotFoundError:
            return Queue(problem="there is no squeue here")
        except subprocess.TimeoutExpired:
            problem = f"squeue did not answer within {TIMEOUT:.0f} s"
        except subprocess.CalledProcessError as error:
            problem = (error.stderr.strip().splitlines() or ["squeue failed"])[-1]
    return Queue(problem=problem)


def job_of(script: Path) -> str | None:
    """Return the job that runs the batch script ``script``, if the scheduler knows one."""
    words = ("--noheader", "--states=all", f"--user={os.geteuid()}", "--format=%F|%o")
    try:
        rows = _rows("squeue", *words, columns=2)
    except (OSError, subprocess.SubprocessError):
        return None
    return next((job for job, command in rows if command == str(script)), None)


def ask_accounting(jobs: list[str]) -> dict[str, str]:
    """Return the state of ended tasks from sacct; empty where there is no accounting."""
    arrays = ",".join(sorted({job.partition("_")[0] for job in jobs}))
    try:
        rows = _rows("sacct", "-n", "-P", "-X", "-j", arrays, "-o", "JobID,State", columns=2)
    except (OSError, subprocess.SubprocessError):
        return {}
    return {job: state.split()[0] for job, state in rows if state.strip()}


def _rows(*command: str, columns: int = 3) -> list[list[str]]:
    """Return the lines that a command of the scheduler prints, split at ``|``."""
    answer = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)
    rows = (line.strip().split("|", columns - 1) for line in answer.stdout.splitlines())
    return [row for row in rows if len(row) == columns]
