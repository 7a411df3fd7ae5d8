"""The state of submitted points: from their markers, the scheduler, and the tasks' logs.

Nothing is believed because a file claims it: "running" needs the scheduler's word or, where that
does not answer, a fresh sign of life, and the message says which it was.
"""

import os
import re
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bilayer_orchestra.files import end_of, quoted

#: Seconds that the scheduler may take.
TIMEOUT = 30.0
#: Seconds of the pauses before it is asked again.
BACK_OFF = (1.0, 3.0)
#: Seconds: squeue tries for a while itself, and after longer ones it is not asked again.
PATIENCE = 5.0
WAITING = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SUSPENDED", "SPECIAL_EXIT"}
RUNNING = {"RUNNING", "COMPLETING", "CONFIGURING", "STAGE_OUT", "SIGNALING", "STOPPED", "RESIZING"}
#: Seconds after which a task without a sign of life is not called running; it shows one a minute.
SILENCE = 300.0
#: Why a task ended -> states that say so, and what Slurm, or our script, writes into its log then.
_CAUSES = {
    "changed since it was submitted": ((), "orchestra: refused"),
    "time limit": (("TIMEOUT", "DEADLINE"), "DUE TO TIME LIMIT"),
    "node failure": (("NODE_FAIL", "BOOT_FAIL"), "DUE TO NODE FAILURE|NODE_FAIL"),
    "out of memory": (("OUT_OF_MEMORY",), "(?i)oom.kill|out.of.memory"),
    "preempted": (("PREEMPTED",), "DUE TO PREEMPTION"),
    "cancelled": (("CANCELLED", "REVOKED"), "CANCELLED AT"),
    "engine error": (("FAILED",), None),
    "ended": (("COMPLETED",), None),
}
#: Name of the file that a task leaves in ``task/`` at its end.
_ENDED = re.compile(r"ended-(\d+)-([a-z]+)")
_AGAIN = "; the same sweep submits it again, and it resumes"

State = Literal["pending", "running", "finished", "failed"]


@dataclass(frozen=True)
class Submitted:
    """A job that a queue was given.

    Parameters
    ----------
    run : Path
        Its run directory.
    job : str
        The scheduler's name of it.
    folder : Path or None
        Directory of the submission, with its logs.
    foreign : bool
        Whether another user submitted it.
    """

    run: Path
    job: str
    folder: Path | None
    foreign: bool


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
    words = ("--array", "--states=all", f"--user={names}", "--format=%i|%T|%r")
    problem, begin = "", time.monotonic()
    for pause in (0.0, *BACK_OFF):
        if pause and time.monotonic() - begin > PATIENCE:
            break
        time.sleep(pause)
        try:
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
    rows = _rows_if_any("squeue", *words)
    return next((job for job, command in rows if command == str(script)), None)


def ask_accounting(jobs: list[str]) -> dict[str, str]:
    """Return the state of ended tasks from sacct; empty where there is no accounting."""
    arrays = ",".join(sorted({job.partition("_")[0] for job in jobs}))
    rows = _rows_if_any("sacct", "-n", "-P", "-X", "-j", arrays, "-o", "JobID,State")
    return {job: state.split()[0] for job, state in rows if state.strip()}


def _rows_if_any(*command: str) -> list[list[str]]:
    """Return the lines of two columns that a command prints; none if it fails."""
    try:
        return _rows(*command, columns=2)
    except (OSError, subprocess.SubprocessError):
        return []


def _rows(*command: str, columns: int = 3) -> list[list[str]]:
    """Return the lines that a command of the scheduler prints, split at ``|``."""
    answer = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)
    rows = (line.strip().split("|", columns - 1) for line in answer.stdout.splitlines())
    return [row for row in rows if len(row) == columns]


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
        names = {path.name for path in folder.iterdir()}
    except OSError:
        return None
    # an end that is good stays good, whatever else is there
    ended = min(filter(None, map(_ENDED.fullmatch, names)), key=lambda m: int(m[1]), default=None)
    if ended and (int(ended[1]) == 0 or "running" not in names):
        return Marker(*_facts(folder / ended[0]), int(ended[1]), ended[2])
    return Marker(*_facts(folder / "running")) if "running" in names else None


def forget_markers(run: Path) -> None:
    """Make the next submission compute the point again."""
    for path in (run / "task").glob("ended-*"):
        path.unlink(missing_ok=True)


def _facts(marker: Path) -> tuple[str, str]:
    """Return the job and the host of a marker; nothing if it cannot be read."""
    try:
        lines = marker.read_text(errors="replace").splitlines()
    except OSError:
        return "", ""
    facts = dict(line.split("=", 1) for line in lines if "=" in line)
    return facts.get("job", ""), facts.get("host", "")


def states_of(submitted: Sequence[Submitted]) -> list[tuple[State, str]]:
    """Return (state, message) of every job: one call to the scheduler for all of them."""
    if not submitted:
        return []
    queue, accounting = ask_queue(users={one.run.stat().st_uid for one in submitted}), None
    jobs = [one.job for one in submitted]
    if queue.problem is None and not queue.tasks.keys() >= set(jobs):
        accounting = ask_accounting(jobs)
    return [submitted_state(one, queue, accounting) for one in submitted]


def submitted_state(
    one: Submitted, queue: Queue, accounting: dict[str, str] | None = None
) -> tuple[State, str]:
    """Return (state, message) of a submitted job.

    Parameters
    ----------
    one : Submitted
        The job.
    queue : Queue
        The scheduler's answer, asked once for all runs. It may hide another user's jobs.
    accounting : dict, optional
        Task -> final state, where the site keeps accounts.
    """
    marker = read_marker(one.run)
    if marker and marker.done:
        return "finished", f"computed on {marker.host}; orchestra collect labels it"
    if marker and marker.job != one.job:
        marker = None
    word, reason = queue.tasks.get(one.job, ("", ""))
    if queue.problem is not None or (one.foreign and not word):
        return _by_disk(one, marker, queue.problem or "it does not show this job")
    if word in WAITING:
        why = f" ({reason})" if reason not in ("", "None") else ""
        return "pending", f"job {one.job} waits{why}{'; it resumes' if marker else ''}"
    if word in RUNNING and (marker is None or marker.code is None):
        where = f" on {marker.host}" if marker else "; its turn within the task has not come"
        return "running", f"job {one.job}{where}"
    return "failed", _why(one, marker, word or (accounting or {}).get(one.job, ""))


def _by_disk(one: Submitted, marker: Marker | None, problem: str) -> tuple[State, str]:
    silent = f"the scheduler does not answer: {problem}"
    ended = marker is not None and marker.code is not None
    if ended or _cause_in(end_of(_file(one, "task-{}.log"))):
        return "failed", _why(one, marker)
    if marker is None:
        return "pending", f"submitted as job {one.job}, not started; {silent}"
    try:
        age = time.time() - _file(one, "alive-{}").stat().st_mtime
    except OSError:
        return "failed", f"started on {marker.host}, no sign of life at all; {silent}"
    if age < SILENCE:
        return "running", f"on {marker.host}, sign of life {age:.0f} s ago; {silent}"
    return "failed", f"started on {marker.host}, no sign of life for {age / 60:.0f} min; {silent}"


def _why(one: Submitted, marker: Marker | None, word: str = "") -> str:
    """Say why a task ended, with its last lines."""
    log = end_of(_file(one, "task-{}.log"))
    stated = (cause for cause, (states, _) in _CAUSES.items() if word in states)
    cause = _cause_in(log) or next(stated, "")
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
    found = [
        (match.end(), cause)
        for cause, (_, pattern) in _CAUSES.items()
        if pattern is not None
        for match in re.finditer(pattern, log)
    ]
    return max(found)[1] if found else ""


def _file(one: Submitted, name: str) -> Path:
    """Return a file of the submission: one that is not there, where nobody knows its directory."""
    return (one.folder or one.run) / name.format(one.job.rpartition("_")[2])
