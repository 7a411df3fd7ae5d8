"""The state of a submitted point: from its markers, the scheduler, and the task's log.

Nothing is believed because a file claims it: "running" needs the scheduler's word or, where that
does not answer, a fresh sign of life, and the message says which it was.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bilayer_orchestra.files import end_of, quoted
from bilayer_orchestra.runtimes.base import Submitted
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
#: What Slurm writes into the log of a task that it ended.
_LOG_WORDS = (
    (re.compile(r"orchestra: refused"), "changed since it was submitted"),
    (re.compile(r"DUE TO TIME LIMIT"), "time limit"),
    (re.compile(r"DUE TO NODE FAILURE|NODE_FAIL"), "node failure"),
    (re.compile(r"oom.kill|out.of.memory", re.IGNORECASE), "out of memory"),
    (re.compile(r"DUE TO PREEMPTION"), "preempted"),
    (re.compile(r"CANCELLED AT"), "cancelled"),
)
#: Name of the file that a task leaves in ``task/`` at its end.
_ENDED = re.compile(r"ended-(\d+)-([a-z]+)")
_AGAIN = "; the same sweep submits it again, and it resumes"


State = Literal["pending", "running", "finished", "failed"]


@dataclass(frozen=True)
class Marker:
    """One execution of a point on a compute node.

    Parameters
    ----------
    job, host : str
        The scheduler's name of the task and the node.
    code : int or None
        Exit code; None if it has not ended, as far as the disk knows.
    reason : str
        ``done``, ``engine``, ``timelimit`` or ``stopped``.
    """

    job: str
    host: str
    code: int | None = None
    reason: str = ""

    @property
    def done(self) -> bool:
        """Whether the engine ended well."""
        return self.code == 0


def read_marker(run: Path) -> Marker | None:
    """Return the newest marker of a run directory, or None."""
    folder = run / "task"
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return None
    # an end that is good stays good, whatever else is there
    ended = sorted((m for name in names if (m := _ENDED.fullmatch(name))), key=lambda m: int(m[1]))
    if ended and (int(ended[0][1]) == 0 or "running" not in names):
        facts = _facts(folder / ended[0][0])
        return Marker(facts.get("job", ""), facts.get("host", ""), int(ended[0][1]), ended[0][2])
    if "running" in names:
        facts = _facts(folder / "running")
        return Marker(facts.get("job", ""), facts.get("host", ""))
    return None


def forget_markers(run: Path) -> None:
    """Make the next submission compute the point again."""
    for path in (run / "task").glob("ended-*"):
        path.unlink(missing_ok=True)


def _facts(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line)


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
    one: Submitted, marker: Marker | None, task: tuple[str, str] | None, account: str | None
) -> tuple[State, str]:
    word, reason = task or (None, "")
    ended = marker is not None and marker.code is not None
    if word in WAITING:
        why = f" ({reason})" if reason not in ("", "None") else ""
        return "pending", f"job {one.job} waits{why}{'; it resumes' if marker else ''}"
    if word in RUNNING and not ended:
        where = f" on {marker.host}" if marker else "; its turn within the task has not come"
        return "running", f"job {one.job}{where}"
    return "failed", _why(one, marker, word or account)


def _by_disk(one: Submitted, marker: Marker | None, problem: str) -> tuple[State, str]:
    silent = f"the scheduler does not answer: {problem}"
    if (marker is not None and marker.code is not None) or _cause_in(end_of(_log(one))):
        return "failed", _why(one, marker, None)
    if marker is None:
        return "pending", f"submitted as job {one.job}, not started; {silent}"
    try:
        age = time.time() - _file(one, "alive-{}").stat().st_mtime
    except OSError:
        return "failed", f"started on {marker.host}, no sign of life at all; {silent}"
    if age < SILENCE:
        return "running", f"on {marker.host}, sign of life {age:.0f} s ago; {silent}"
    return "failed", f"started on {marker.host}, no sign of life for {age / 60:.0f} min; {silent}"


def _why(one: Submitted, marker: Marker | None, word: str | None) -> str:
    """Say why a task ended, with its last lines."""
    log = end_of(_log(one))
    cause = _cause_in(log) or ENDED.get(word or "", "")
    code = marker.code if marker else None
    vague = cause in ("", "ended", "engine error")
    if marker and marker.reason == "timelimit":
        cause = "time limit"
    elif vague and marker is None:
        cause = "ended before its engine started (`modules`, `prologue`, or a full disk?)"
    elif vague and marker and marker.reason == "engine":
        cause = "killed (out of memory?)" if code == 137 else "engine error"
    elif vague and code is None:
        cause = "ended without a word (killed, or its node or its disk failed)"
    exit_code = f", exit code {code}" if code is not None else ""
    where = f" on {marker.host}" if marker and marker.host else ""
    head = f"{cause}: job {one.job}{where}{exit_code}{'' if one.foreign else _AGAIN}"
    return "\n".join(filter(None, (head, (marker and last_lines(one.run)) or quoted(log))))


def last_lines(run: Path) -> str:
    """Return the engine's last lines of its last start."""
    _, _, said = f"\n{end_of(run / 'job' / 'engine.log')}".rpartition("\n--- ")
    return quoted(said.partition("\n")[2])


def _cause_in(log: str) -> str:
    # the newest word counts: a task that was requeued may have several
    found = [(match.end(), word) for one, word in _LOG_WORDS for match in one.finditer(log)]
    return max(found)[1] if found else ""


def _log(one: Submitted) -> Path:
    return _file(one, "task-{}.log")


def _file(one: Submitted, name: str) -> Path:
    """Return a file of the submission: one that is not there, where nobody knows its directory."""
    return (one.folder or one.run) / name.format(one.job.rpartition("_")[2])
