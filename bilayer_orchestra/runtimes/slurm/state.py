"""The state of a submitted point: from its markers, the scheduler, and the task's log.

Nothing is believed because a file claims it: "running" needs the scheduler's word or, where that
does not answer, a fresh sign of life, and the message says which it was.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from bilayer_orchestra.running.directory import Record, RunDirectory, State
from bilayer_orchestra.runtimes.slurm.markers import Marker, read_marker
from bilayer_orchestra.runtimes.slurm.queue import ENDED, RUNNING, WAITING, Queue

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


def submitted_state(
    run: RunDirectory, record: Record, queue: Queue, accounting: dict[str, str] | None = None
) -> tuple[State, str]:
    """Return (state, message) of a run whose record carries a scheduler's job.

    Parameters
    ----------
    queue : Queue
        The scheduler's answer, asked once for all runs. It may hide another user's jobs.
    accounting : dict, optional
        Task -> final state, where the site keeps accounts.
    """
    job = record.job or ""
    marker = read_marker(run.path)
    if marker and marker.done:
        return "finished", f"computed on {marker.host}; orchestra collect labels it"
    ours = marker if marker and marker.job == job else None
    if queue.problem is None and (job in queue.tasks or not run.foreign):
        return _by_queue(run, record, ours, queue.tasks.get(job), (accounting or {}).get(job))
    return _by_disk(run, record, ours, queue.problem or "it does not show this job")


def _by_queue(
    run: RunDirectory,
    record: Record,
    marker: Marker | None,
    task: tuple[str, str] | None,
    account: str | None,
) -> tuple[State, str]:
    word, reason = task or (None, "")
    ended = marker is not None and marker.code is not None
    if word in WAITING:
        why = f" ({reason})" if reason not in ("", "None") else ""
        again = "; it resumes" if ended or marker else ""
        return "pending", f"job {record.job} waits{why}{again}"
    if word in RUNNING and not ended:
        where = f" on {marker.host}" if marker else "; its turn within the task has not come"
        return "running", f"job {record.job}{where}"
    return "failed", _why(run, record, marker, word or account)


def _by_disk(
    run: RunDirectory, record: Record, marker: Marker | None, problem: str
) -> tuple[State, str]:
    silent = f"the scheduler does not answer: {problem}"
    if marker is not None and marker.code is not None:
        return "failed", _why(run, record, marker, None)
    cause = _cause_in_log(_log(run, record))
    if cause:
        return "failed", _why(run, record, marker, None)
    if marker is None:
        return "pending", f"submitted as job {record.job}, not started; {silent}"
    age = _age(_alive_file(run, record))
    if age is not None and age < SILENCE:
        return "running", f"on {marker.host}, sign of life {age:.0f} s ago; {silent}"
    since = f"for {age / 60:.0f} min" if age is not None else "at all"
    return "failed", f"started on {marker.host}, no sign of life {since}; {silent}"


def _why(run: RunDirectory, record: Record, marker: Marker | None, word: str | None) -> str:
    """Say why a task ended, with its last lines."""
    cause = _cause_in_log(_log(run, record)) or ENDED.get(word or "", "")
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
    head = f"{cause}: job {record.job}{where}{exit_code}{'' if run.foreign else _AGAIN}"
    tail = last_lines(run) if marker else ""
    tail = tail or _tail(_log(run, record))
    return f"{head}\n{tail}" if tail else head


def last_lines(run: RunDirectory) -> str:
    """Return the engine's last lines of its last start."""
    return _tail(run.job / "engine.log", after="--- ")


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


def _log(run: RunDirectory, record: Record) -> Path | None:
    return _submission_file(run, record, "task-{}.log")


def _alive_file(run: RunDirectory, record: Record) -> Path | None:
    return _submission_file(run, record, "alive-{}")


def _submission_file(run: RunDirectory, record: Record, name: str) -> Path | None:
    folder = (record.place or {}).get("submission")
    if folder is None or record.job is None:
        return None
    return run.path.parent / folder / name.format(record.job.rpartition("_")[2])


def _age(path: Path | None) -> float | None:
    try:
        return time.time() - path.stat().st_mtime if path else None
    except OSError:
        return None
