"""One question to the scheduler about all jobs of a directory."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

#: Seconds that the scheduler may take, and the pauses before it is asked again.
TIMEOUT, BACK_OFF = 30.0, (1.0, 3.0)
#: squeue tries for a while itself; after an attempt that took longer, it is not asked again.
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


def ask_queue(wait: bool = True, users: Iterable[int] = ()) -> Queue:
    """Return all tasks of some users, also those that ended within the last minutes: one call.

    Parameters
    ----------
    wait : bool
        Whether to ask again, after growing pauses, if the scheduler does not answer.
    users : iterable of int
        Their numbers; ours by default.
    """
    names = ",".join(str(user) for user in sorted({*users} or {os.geteuid()}))
    words = ["squeue", "--noheader", "--array", "--states=all", f"--user={names}"]
    words.append("--format=%i|%T|%r")
    problem = ""
    begin = time.monotonic()
    for pause in (0.0, *(BACK_OFF if wait else ())):
        if pause and time.monotonic() - begin > PATIENCE:
            break
        time.sleep(pause)
        try:
            answer = subprocess.run(
                words, capture_output=True, text=True, timeout=TIMEOUT, check=False
            )
        except FileNotFoundError:
            return Queue(problem="there is no squeue here")
        except subprocess.TimeoutExpired:
            problem = f"squeue did not answer within {TIMEOUT:.0f} s"
            continue
        if answer.returncode == 0:
            return Queue(_parse(answer.stdout))
        problem = (answer.stderr.strip().splitlines() or ["squeue failed"])[-1]
    return Queue(problem=problem)


def job_of(script: Path) -> str | None:
    """Return the job that runs the batch script ``script``, if the scheduler knows one."""
    words = ["squeue", "--noheader", "--states=all", f"--user={os.geteuid()}", "--format=%F|%o"]
    try:
        answer = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    rows = (line.strip().partition("|") for line in answer.stdout.splitlines())
    return next((job for job, _, command in rows if command == str(script)), None)


def ask_accounting(jobs: list[str]) -> dict[str, str]:
    """Return the state of ended tasks from sacct; empty where there is no accounting."""
    arrays = sorted({job.partition("_")[0] for job in jobs})
    words = ["sacct", "-n", "-P", "-X", "-j", ",".join(arrays), "-o", "JobID,State"]
    try:
        answer = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    if answer.returncode != 0:
        return {}
    rows = (line.split("|") for line in answer.stdout.splitlines())
    return {row[0]: row[1].split()[0] for row in rows if len(row) == 2 and row[1]}


def _parse(text: str) -> dict[str, tuple[str, str]]:
    tasks: dict[str, tuple[str, str]] = {}
    for line in text.splitlines():
        name, _, rest = line.strip().partition("|")
        state, _, reason = rest.partition("|")
        tasks[name] = (state, reason)
    return tasks
