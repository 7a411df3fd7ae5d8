"""The state of a submitted point: from its markers, the scheduler, and the task's log.

Nothing is believed because a file claims it: "running" needs the scheduler's word or, where that
does not answer, a fresh sign of life, and the message says which it was.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from bilayer_orchestra.runtimes.base import Submitted
from bilayer_orchestra.runtimes.slurm.markers import Marker, read_marker
from bilayer_orchestra.runtimes.slurm.queue import (
    ENDED,
    RUNNING,
    WAITING,
    Queue,
    ask_accounting,
    ask_queue,
)

#: Seconds after which a task without a sign of life is not called running; it shows one a minute.
SILENCE = 300.0
LINES = 6
#: What Slurm writes into the log of a task that it ended.
_LOG_WORDS = (
    (re.compile(r"orchestra: refused"), "changed since it was submitted"),
    (re.compile(r"DUE TO TIME LIMIT"), "time limit"),
    (re.compile(r"DUE TO NODE FAILURE|NODE_FAIL"), "node failure"),
    (re.compile(r"oom.kill|out.of.memory", re.IGNORECASE), "out of memory"),
    (re.compile(r"DUE TO PREEMPTION"), "preempted"),
    (re.compile(r"CANCELLED AT"), "cancelled"),
)
_AGAIN = "; the same sweep submits it again, and it resumes"


State = Literal["pending", "running", "finished", "failed"]


def states_of(submitted: Sequence[Submitted]) -> list[tuple[State, str]]:
    """Return (state, message) of every job: one call to the scheduler for all of them."""
    queue: Queue | None = None
    accounting: dict[str, str] | None = None
    states = []
    for one in submitted:
        queue = queue or ask_queue(users={other.run.stat().st_uid for other in submitted})
        if queue.problem is None and one.job not in queue.tasks and accounting is None:
            accounting = ask_accounting([other.job for other in submitted])
        states.append(submitted_state(one, queue, accounting))
    return states


def submitted_state(
    one: Submitted, queue: Queue, accounting: dict[str, str] | None = None
) -> tuple[State, str]:
    """Return (state, message) of a submitted job.

    Parameters
    ----------
    queue : Queue
        The scheduler's answer, asked once for all runs. It may hide another user's jobs.
    accounting : dict, optional
        Task -> final state, where the site keeps accounts.
    """
    job = one.job
    marker = read_marker(one.run)
    if marker and marker.done:
        return "finished", f"computed on {marker.host}; orchestra collect labels it"
    ours = marker if marker and marker.job == job else None
    if queue.problem is None and (job in queue.tasks or not one.foreign):
        return _by_queue(one, ours, queue.tasks.get(job), (accounting or {}).get(job))
    return _by_disk(one, ours, queue.problem or "it does not show this job")


def _by_queue(
    one: Submitted,
    marker: Marker | None,
    task: tuple[str, str] | None,
    account: str | None,
) -> tuple[State, str]:
    word, reason = task or (None, "")
    ended = marker is not None and marker.code is not None
    if word in WAITING:
        why = f" ({reason})" if reason not in ("", "None") else ""
        again = "; it resumes" if ended or marker else ""
        return "pending", f"job {one.job} waits{why}{again}"
    if word in RUNNING and not ended:
        where = f" on {marker.host}" if marker else "; its turn within the task has not come"
        return "running", f"job {one.job}{where}"
    return "failed", _why(one, marker, word or account)


def _by_disk(one: Submitted, marker: Marker | None, problem: str) -> tuple[State, str]:
    silent = f"the scheduler does not answer: {problem}"
    if marker is not None and marker.code is not None:
        return "failed", _why(one, marker, None)
    cause = _cause_in_log(_log(one))
    if cause:
        return "failed", _why(one, marker, None)
    if marker is None:
        return "pending", f"submitted as job {one.job}, not started; {silent}"
    age = _age(_submission_file(one, "alive-{}"))
    if age is not None and age < SILENCE:
        return "running", f"on {marker.host}, sign of life {age:.0f} s ago; {silent}"
    since = f"for {age / 60:.0f} min" if age is not None else "at all"
    return "failed", f"started on {marker.host}, no sign of life {since}; {silent}"


def _why(one: Submitted, marker: Marker | None, word: str | None) -> str:
    """Say why a task ended, with its last lines."""
    cause = _cause_in_log(_log(one)) or ENDED.get(word or "", "")
    code = marker.code if marker else None
    if marker and marker.reason == "timelimit":
        cause = "time limit"
    elif marker and marker.reason == "engine" and cause in ("", "ended", "engine error"):
        cause = "engine error"
        if code == 137:
            cause = "killed (out of memory?)"
    elif cause in ("", "ended", "engine error") and marker is None:
        cause = "ended before its engine started (`modules`, `prologue`, or a full disk?)"
    elif cause in ("", "ended", "engine error") and code is None:
        cause = "ended without a word (killed, or its node or its disk failed)"
    exit_code = f", exit code {code}" if code is not None and marker else ""
    where = f" on {marker.host}" if marker and marker.host else ""
    head = f"{cause}: job {one.job}{where}{exit_code}{'' if one.foreign else _AGAIN}"
    tail = last_lines(one.run) if marker else ""
    tail = tail or _tail(_log(one))
    return f"{head}\n{tail}" if tail else head


def last_lines(run: Path) -> str:
    """Return the engine's last lines of its last start."""
    return _tail(run / "job" / "engine.log", after="--- ")


def _tail(path: Path | None, after: str | None = None) -> str:
    if path is None:
        return ""
    try:
        with path.open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - 16384))
            lines = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    if after:
        starts = [k for k, line in enumerate(lines) if line.startswith(after)]
        lines = lines[starts[-1] + 1 :] if starts else lines
    return "\n".join([f"  {line}" for line in lines if line.strip()][-LINES:])


def _cause_in_log(path: Path | None) -> str:
    text = _tail_text(path)
    # the newest word counts: a task that was requeued may have several
    found = [
        (match.end(), word) for pattern, word in _LOG_WORDS for match in pattern.finditer(text)
    ]
    return max(found)[1] if found else ""


def _tail_text(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return ""
    return text[-16384:]


def _log(one: Submitted) -> Path | None:
    return _submission_file(one, "task-{}.log")


def _submission_file(one: Submitted, name: str) -> Path | None:
    if one.folder is None:
        return None
    return one.folder / name.format(one.job.rpartition("_")[2])


def _age(path: Path | None) -> float | None:
    try:
        return time.time() - path.stat().st_mtime if path else None
    except OSError:
        return None
