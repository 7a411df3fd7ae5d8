"""Run directories: one per point, readable from the directory alone, by people as well.

``<root>/<name>-<engine>-<hash>/`` holds ``model.yaml``, ``run.json`` (the state), ``job/`` (what
the engine reads and writes), ``lock`` and, once complete, ``result.nc``. The hash covers
everything that can change the numbers, so the same request finds its result and a changed one
never mixes with it.

Whether a run is alive is decided by a kernel lock that its processes hold, not by what a file
claims: it vanishes with the last of them, however they end.

A run belongs to the user who owns its directory: others read it, and nobody else writes in it.
"""

from __future__ import annotations

import fcntl
import functools
import json
import logging
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter

from bilayer_orchestra import files
from bilayer_orchestra.dataset.reading import yaml_data
from bilayer_orchestra.engine_side.files import START, start_event
from bilayer_orchestra.engines.base import Engine
from bilayer_orchestra.errors import OrchestraError, RunBusyError
from bilayer_orchestra.files import (
    read_bounded,
)
from bilayer_orchestra.job import Job
from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.terms import Terms
from bilayer_orchestra.timestamps import utc_now

T = TypeVar("T")
#: ``unknown``: only a lock could tell, and there are none on this file system.
State = Literal["pending", "running", "finished", "failed", "unknown"]

#: Holds the :class:`Record`.
STATE_FILE = "run.json"
#: The finished dataset.
RESULT = "result.nc"
#: Locked by whoever computes the run.
LOCK = "lock"
#: The model as it was asked for.
MODEL = "model.yaml"
#: Says where the engine ran, once it ended well.
EXECUTED = "executed.json"
#: Directory in which the engine runs.
JOB_DIRECTORY = "job"
#: Holds the name of the run whose state the job began from.
STARTED_FROM = "started_from"
#: What is said of a run of another user.
NOT_OURS = f"it is read, but neither run nor submitted; {files.ELSEWHERE}"
#: Raised when tuned chemical potentials change for the same request.
TUNING_REVISION = 1


@dataclass(frozen=True)
class Record:
    """Content of ``run.json``."""

    state: State
    backend: str
    engine: str
    model: str
    hash: str
    pid: int | None = None
    host: str | None = None
    started: str | None = None
    ended: str | None = None
    message: str = ""
    job: str | None = None  # the scheduler's name of the task, such as 4711_3
    place: dict[str, str] | None = None  # where it was submitted to, for the dataset
    said: dict[str, Any] | None = None  # what the model file says, without defaults; see `said`

    @classmethod
    def begun(cls, model: Model, engine: Engine) -> Record:
        """Return the record of a run that starts now in this process."""
        return cls(
            state="running",
            backend=engine.name,
            engine=engine.version(),
            model=model.name,
            hash=request_hash(model, engine),
            pid=os.getpid(),
            host=socket.gethostname(),
            started=utc_now(),
            said=said(model, engine.name),
        )

    @property
    def process(self) -> str:
        """Who began it, in words."""
        return f"process {self.pid} on {self.host} since {self.started}"


_RECORD = TypeAdapter(Record)
#: Of the facts about where an engine ran.
_PLACE = TypeAdapter(dict[str, str])


def request_hash(model: Model, engine: Engine, version: str | None = None) -> str:
    """Return the hash of everything that can change the numbers of this run.

    Names, comments and other engines' settings do not count.

    Parameters
    ----------
    model, engine
        The request.
    version : str, optional
        The engine's, unless that of another result is meant.
    """
    numerics = getattr(model.numerics, engine.name)
    identity: dict[str, Any] = {
        "terms": model.terms().to_dict(),
        "observables": sorted(model.observables),
        "numerics": numerics.model_dump(mode="json"),
        "backend": [engine.name, engine.revision, version or engine.version()],
    }
    filling = model.wished
    if filling is not None:
        identity["filling"] = [*filling.model_dump().values(), TUNING_REVISION]
    if model.TRANSLATION:
        identity["translation"] = [model.model, model.TRANSLATION]
    return _hash_of(identity)


def terms_hash(terms: Terms) -> str:
    """Return the hash of what was solved; results of different engines share it."""
    return _hash_of(terms.to_dict())


def _hash_of(data: dict[str, Any]) -> str:
    return files.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")))


def runs_directory(name: str, output: str | Path | None = None) -> Path:
    """Return the directory of the runs of a model: the one that is asked for, or ``runs/NAME``."""
    return Path("runs") / name if output is None else Path(output)


class RunDirectory:
    """One point on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def for_request(
        cls, root: Path, model: Model, engine: Engine, version: str | None = None
    ) -> RunDirectory:
        """Return the directory of a request; it is not made yet.

        Parameters
        ----------
        root : Path
            Directory of the run directories.
        model, engine
            The request.
        version : str, optional
            The engine's, unless that of another result is meant.
        """
        digest = request_hash(model, engine, version)
        return cls(root / f"{model.name}-{engine.name}-{digest[:12]}")

    @property
    def job(self) -> Path:
        """Directory in which the engine runs."""
        return self.path / JOB_DIRECTORY

    @property
    def result(self) -> Path:
        """The finished dataset; complete if it exists."""
        return self.path / RESULT

    @property
    def finished(self) -> bool:
        """Whether the result is there, complete, and may be read."""
        result = self.result
        return os.access(result, os.R_OK) and result.is_file() and not files.is_cut_off(result)

    @property
    def foreign(self) -> str | None:
        """The other user to whom this run belongs; None if it is ours, or not there yet."""
        return files.other_owner(self.path)

    def record(self) -> Record | None:
        """Return the stored record, or None if there is no run here."""
        return _content(self.path / STATE_FILE, _RECORD)

    def model_data(self) -> dict[str, Any]:
        """Return the model as plain data; nothing if it was not written yet."""
        try:
            return yaml_data(read_bounded(self.path / MODEL).decode())
        except (OSError, UnicodeDecodeError):
            return {}

    def write_record(self, record: Record) -> None:
        """Replace ``run.json`` by rename."""
        files.write_text_atomic(self.path / STATE_FILE, json.dumps(asdict(record), indent=1) + "\n")

    def write_job(self, job: Job, model_yaml: str) -> None:
        """Write the rendered files; files that the engine left there stay, for resuming."""
        files.own_directory(self.job, NOT_OURS)
        for begun in (*self.path.glob(".*.tmp"), *self.job.glob(".*.tmp")):
            begun.unlink(missing_ok=True)  # whoever wrote it was killed: the lock is ours
        files.write_text_atomic(self.path / MODEL, model_yaml)
        for name, text in job.files.items():
            target = self.job / name
            files.make_directory(target.parent)
            files.write_text_atomic(target, text)
        files.secure(self.job, NOT_OURS)

    def begin_from(self, other: RunDirectory, state_name: str) -> None:
        """Let the job begin from the state that ``other`` ended with, unless it has begun already.

        What it began from is noted beside it, and stays the same when the run is repeated. A state
        that cannot be copied is done without.
        """
        source, target = other.job / state_name, self.job / START
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        if target.exists() or (self.job / state_name).exists() or not source.exists():
            return
        partial = target.with_name(f"{START}.partial")
        _remove(partial)
        try:
            copy(source, partial)
        except OSError:
            _remove(partial)
            return
        files.write_text_atomic(self.path / STARTED_FROM, other.path.name + "\n")
        partial.rename(target)
        files.secure(self.job, NOT_OURS)

    def forget_start(self) -> str | None:
        """Remove the copied state once the job ended; return why it was not used, if it was not."""
        _remove(self.job / START)
        event = start_event(self.job) or {}
        return event["problem"] if event.get("step") == "ignored" else None

    def started_from(self) -> str | None:
        """Return the name of the run whose state the job began from, if it did."""
        event, note = start_event(self.job) or {}, self.path / STARTED_FROM
        begun = event.get("step") == "begun"  # else nothing was there, or nothing that fits
        return note.read_text().strip() if begun and note.exists() else None

    def executed(self) -> dict[str, str] | None:
        """Return where the engine ran, if it ended well here but its result was not stored yet."""
        return _content(self.path / EXECUTED, _PLACE)

    def mark_executed(self, place: dict[str, str]) -> None:
        """Note that the engine ended well."""
        files.write_text_atomic(self.path / EXECUTED, json.dumps(place) + "\n")

    def forget_execution(self) -> None:
        """Make the next attempt run the engine again."""
        (self.path / EXECUTED).unlink(missing_ok=True)

    @contextmanager
    def locked(self, wait: bool, tell: Callable[[str], None] = lambda line: None) -> Iterator[int]:
        """Hold the lock; yields its file descriptor, which the engine inherits.

        An engine that outlives its orchestrator therefore keeps the directory locked; whom one
        waits for is told. Where the file system has no locks, that is said once, and nothing is
        held.

        Raises
        ------
        RunBusyError
            If another process holds it and ``wait`` is false.
        ForeignFileError
            If the run, or something in it, belongs to another user.
        """
        files.own_directory(self.path, NOT_OURS)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
            descriptor = os.open(self.path / LOCK, flags, files.FILE)
        except OSError as error:
            raise OrchestraError(f"cannot write to {self.path}: {error.strerror}") from error
        try:
            told = False
            while (held := files.try_lock(descriptor, fcntl.LOCK_EX)) is False:
                record = self.record()
                holder = record.process if record and record.pid else "another process"
                if not wait:
                    raise RunBusyError(
                        f"{self.path} is held by {holder}; it is computing this very point "
                        "(drop --no-wait to wait for its result)"
                    )
                if not told:
                    tell(f"waiting for {holder}, who computes this point")
                    told = True
                time.sleep(0.2)
            if held is None:
                _warn_once(
                    f"the file system of {self.path.parent} has no locks: two processes that "
                    "compute one point there are not kept apart"
                )
            # an earlier version left some of it writable for a group
            files.secure(self.path, NOT_OURS)
            yield descriptor
        finally:
            os.close(descriptor)

    def set_aside(self) -> str:
        """Rename a result that cannot be read; return what was done. The lock is held.

        The run is then one that failed: the same command computes it again.
        """
        aside = self.result.with_name(f"{RESULT}.damaged")
        message = f"{self.path.name}/{RESULT} is damaged"
        try:
            self.result.replace(aside)
        except OSError as error:
            raise OrchestraError(f"{message} and cannot be renamed: {error.strerror}") from error
        message += f"; set aside as {aside.name}"
        if record := self.record():
            text = f"{message}, the same command computes it again"
            self.write_record(replace(record, state="failed", message=text))
        return message

    def status(self) -> tuple[State, str]:
        """Return (state, message) as it is now, whatever the record claims."""
        record, foreign = self.record(), self.foreign
        if self.finished:
            return "finished", record.message if record else ""
        if record is None:
            if foreign is not None:
                return "unknown", f"belongs to {foreign}, who does not let you read it"
            return "pending", "not started"
        again = "" if foreign else "; the same command computes it again"
        state, message = record.state, record.message
        if self.result.exists():
            state, message = "failed", f"its {RESULT} is damaged{again}"
        elif state == "finished":
            state, message = "failed", f"its {RESULT} is gone{again}"
        elif state == "running":
            used = self.in_use()
            if used is None:
                state = "unknown"
                message = f"{record.process} did not say that it ended, and no lock tells"
            elif not used:
                state, message = "failed", "interrupted"
                message += "" if foreign else "; the same command resumes it"
        return state, self.attributed(message)

    def attributed(self, message: str) -> str:
        """Return ``message`` with the owner's name before it, if that is another user."""
        owner = self.foreign and f"belongs to {self.foreign}"
        return "; ".join(filter(None, (owner, message)))

    def in_use(self) -> bool | None:
        """Return whether an orchestrator or an engine holds the lock now; None: nobody can tell."""
        return files.locked_elsewhere(self.path / LOCK)


def said(model: Model, engine: str) -> dict[str, Any]:
    """Return what a model file says for one engine, nothing that follows from defaults.

    It tells what was asked for where the engine or the geometry, and with it its defaults, is gone.
    """
    data = model.model_dump(mode="json", exclude_unset=True)
    return data | {"numerics": (data.get("numerics") or {}).get(engine) or {}}


def find_runs(root: Path) -> list[RunDirectory]:
    """Return the runs in ``root``, or ``root`` itself if it is one, ordered by name."""
    if _is_run(root):
        return [RunDirectory(root)]
    return [RunDirectory(path) for path in sorted(root.glob("*")) if _is_run(path)]


def _is_run(path: Path) -> bool:
    try:
        return (path / STATE_FILE).is_file() or (path / LOCK).is_file()
    except PermissionError:  # of another user: known by its name
        return re.search(r"-[0-9a-f]{12}$", path.name) is not None


def _remove(path: Path) -> None:
    """Remove a file or a directory, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _content(file: Path, kind: TypeAdapter[T]) -> T | None:
    """Return what a file holds; None if it is not there or, as another user's may, holds more."""
    try:
        return kind.validate_json(file.read_bytes()) if file.is_file() else None
    except (OSError, ValueError):
        return None


@functools.cache
def _warn_once(text: str) -> None:
    logging.getLogger(__name__).warning(text)
