"""One point from request to result: render, execute, parse, label, store."""

from __future__ import annotations

import functools
import logging
import shlex
import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bilayer_orchestra import __version__
from bilayer_orchestra.dataset.reading import statement
from bilayer_orchestra.engines.base import Engine, Request
from bilayer_orchestra.engines.registry import refuse_other_ensembles
from bilayer_orchestra.errors import (
    DamagedFileError,
    EngineError,
    Interrupted,
    OrchestraError,
    OtherVersionError,
)
from bilayer_orchestra.heartbeat import Heartbeat
from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.running.directory import (
    Record,
    RunDirectory,
    find_runs,
    request_hash,
    terms_hash,
)
from bilayer_orchestra.runtimes.base import AttachedRuntime, Runtime
from bilayer_orchestra.runtimes.local import LocalRuntime
from bilayer_orchestra.timestamps import utc_now

if TYPE_CHECKING:
    import xarray as xr

_log = logging.getLogger(__name__)

#: File by which an engine's script is asked to end with what it has.
STOP = "stop"
#: The netCDF and HDF5 libraries are not safe to use from several threads at once.
LIBRARIES = threading.Lock()


@dataclass(frozen=True)
class Outcome:
    """Where a point's result is, whether it was there already, and what else must be said."""

    run: RunDirectory
    dataset: xr.Dataset
    reused: bool
    remark: str = ""


def make_request(model: Model, engine: Engine) -> Request:
    """Return what ``engine`` needs to know of ``model``; see :meth:`Terms.centred`."""
    return Request(
        terms=model.terms().centred(),
        observables=model.measured(),
        numerics=model.settings(engine.name),
        label=model.name,
    )


def checked_request(model: Model, engine: Engine) -> Request:
    """Return the request if ``engine`` can solve it.

    Raises
    ------
    OrchestraError
        If it cannot; says so when the words are those of a model that this one is mapped to.
    """
    request = make_request(model, engine)
    try:
        refuse_other_ensembles(engine, request)
        engine.check(request)
    except OrchestraError as error:
        if model.remark() is None:
            raise
        raise OrchestraError(f"{error} ({model.remark()})") from error
    return request


def refuse_search(model: Model, instead: str) -> None:
    """Raise OrchestraError if the model's chemical potentials are yet to be searched for."""
    if model.wished is not None:
        raise OrchestraError(
            "a `filling` takes several runs, each after the result of the one before; " + instead
        )


@dataclass(frozen=True)
class Runner:
    """Where runs live, and how they are computed; nothing of this changes a number.

    Parameters
    ----------
    root : Path
        Directory that holds the run directories.
    runtime : Runtime
        Where jobs run.
    tell : callable
        Receives one line whenever there is something new to say.
    wait : bool
        Whether to wait for another process that is computing the same point.
    any_version : bool or None
        What to do if a result is there from another version of its engine alone: take it (True),
        compute again (False), or raise an error that names it (None; not where this version has
        begun already).
    meanwhile : callable
        Called in a thread while an engine works, and only if it has to: for slow imports.
    stopping : Event
        Set when engines shall end: signals reach one thread only.
    """

    root: Path
    runtime: Runtime = field(default_factory=LocalRuntime)
    tell: Callable[[str], None] = lambda line: None
    wait: bool = True
    any_version: bool | None = False
    meanwhile: Callable[[], None] = lambda: None
    stopping: threading.Event = field(default_factory=threading.Event)

    def run_directory(self, model: Model, engine: Engine) -> RunDirectory:
        """Return the directory of a request, which may be one of another version of the engine.

        A version is part of a run's identity: numbers of different ones are never mixed. After an
        update the stored result is named and offered, and nothing is computed again in silence.

        Raises
        ------
        OtherVersionError
            If the choice is not made.
        """
        run = RunDirectory.for_request(self.root, model, engine)
        begun = run.record() is not None  # with this version, which was chosen then
        if self.any_version is False or run.finished or (self.any_version is None and begun):
            return run
        for version in sorted(self._versions[engine.name] - {engine.version()}):
            other = RunDirectory.for_request(self.root, model, engine, version)
            if not other.finished:
                continue
            if self.any_version:
                return other
            raise OtherVersionError(
                f"{other.path} holds this point, computed with {version}; --any-version "
                f"takes it, --this-version computes it again with {engine.version()} (in Python: "
                "any_version)"
            )
        return run

    @functools.cached_property
    def _versions(self) -> defaultdict[str, set[str]]:
        """Engine -> its versions that runs were begun with; read once for all points."""
        versions: defaultdict[str, set[str]] = defaultdict(set)
        for run in find_runs(self.root):
            if (record := run.record()) is not None:
                versions[record.backend].add(record.engine)
        return versions


def run_point(
    model: Model, engine: Engine, runner: Runner, start: RunDirectory | None = None
) -> Outcome:
    """Return the result of ``model`` on ``engine``, computing it only if it is not there yet.

    Parameters
    ----------
    model, engine
        The request.
    runner : Runner
        Where and how; its runtime is one that waits for its jobs.
    start : RunDirectory, optional
        A finished run of this engine in the same sector: where the engine can, it begins from its
        state instead of a random one. The result is the same to its accuracy.

    Raises
    ------
    OrchestraError
        On every failure that is not a defect of this program.
    """
    refuse_search(model, "bilayer_orchestra.tuning.point.run_model does them")
    request = checked_request(model, engine)
    run, runtime = runner.run_directory(model, engine), runner.runtime
    assert isinstance(runtime, AttachedRuntime)

    def compute(lock: int) -> xr.Dataset:
        place = run.executed()
        if place is None:
            job = engine.render(request)
            run.write_job(job, model.to_yaml())
            if start is not None and engine.may_begin_from_state(request.numerics):
                assert engine.state_name is not None
                run.begin_from(start, engine.state_name)
            # the labelling libraries take a second to load; do it while the engine works
            for work in (_load_libraries, runner.meanwhile):
                threading.Thread(target=work, daemon=True).start()
            poll = poller(engine, request, run.job, runner)
            place = runtime.execute(job, engine.tools(), run.job, lock, poll)
            run.mark_executed(place)
            poll()  # what came after the last look
            if (problem := run.forget_start()) is not None:
                runner.tell(f"the state of another run was not used: {problem}")
        with LIBRARIES:
            return _label(model, engine, request, run, place)

    return solve_once(model, engine, run, runner, compute)


def solve_once(
    model: Model,
    engine: Engine,
    run: RunDirectory,
    runner: Runner,
    compute: Callable[[int], xr.Dataset],
) -> Outcome:
    """Return the stored result of ``run``; if there is none, compute it, alone and on record.

    Parameters
    ----------
    model, engine
        The request.
    run : RunDirectory
        Where its result is, or will be.
    runner : Runner
        Who is told, and whether to wait for another process.
    compute : callable
        Makes the dataset; receives the descriptor of the lock that is held meanwhile.
    """
    if (found := stored(run)) is not None:
        return found
    with run.locked(runner.wait, runner.tell) as lock:
        if (found := stored(run)) is not None:  # by whoever held the lock before
            return found
        remark = run.set_aside() if run.result.exists() else ""
        record = Record.begun(model, engine)
        _log.info("%s is computed with %s", run.path, record.engine)
        run.write_record(record)
        try:
            dataset = compute(lock)
            _store(dataset, run)
        except BaseException as error:
            message = str(error) or type(error).__name__
            run.write_record(replace(record, state="failed", ended=utc_now(), message=message))
            raise
        reason = str(dataset.attrs["converged_reason"])
        run.write_record(replace(record, state="finished", ended=utc_now(), message=reason))
    return Outcome(run, dataset, reused=False, remark=remark)


def poller(engine: Engine, request: Request, directory: Path, runner: Runner) -> Callable[[], None]:
    """Return what, called again and again, passes on what the job says, or that it still runs.

    Parameters
    ----------
    engine, request
        Who computes what.
    directory : Path
        Where the job runs.
    runner : Runner
        Who is told; may want the job to end.
    """
    heartbeat = Heartbeat(runner.tell)
    engine.progress(directory, request)  # what an earlier attempt said is no news

    def poll() -> None:
        if runner.stopping.is_set():
            raise Interrupted
        for line in engine.progress(directory, request):
            heartbeat.news(line)
        if engine.enough(directory, request):
            (directory / STOP).touch()
        heartbeat.beat()

    return poll


def _load_libraries() -> None:
    import netCDF4  # noqa: F401
    import xarray  # noqa: F401


def stored(run: RunDirectory) -> Outcome | None:
    """Return the finished result of a run directory; None if there is none, or a damaged one.

    Raises
    ------
    OrchestraError
        If the directory has another request's name: who may write above it may rename it.
    """
    from bilayer_orchestra.dataset.schema import open_result

    if not run.finished:
        return None
    with LIBRARIES:
        try:
            dataset = open_result(run.result, ("a result",))
        except DamagedFileError:
            return None
        except OrchestraError:
            if run.result.exists():
                raise
            return None  # somebody set it aside just now
    digest = str(dataset.attrs.get("request_hash", ""))
    if digest[:12] != run.path.name[-12:]:
        raise OrchestraError(
            f"{run.path} was renamed: its result belongs to the request {digest[:12]}; rename it "
            "back, or remove it"
        )
    return Outcome(run, dataset, reused=True)


def set_aside(run: RunDirectory) -> str:
    """Set a damaged result aside, unless another process holds it; return what was done."""
    try:
        with run.locked(wait=False):
            if run.result.exists() and stored(run) is None:
                return run.set_aside()
    except OrchestraError as error:
        return f"{run.path.name}/{run.result.name} is damaged; {error}"
    return f"{run.path.name}/{run.result.name} was damaged, and somebody replaced it meanwhile"


def _label(
    model: Model, engine: Engine, request: Request, run: RunDirectory, place: dict[str, str]
) -> xr.Dataset:
    from bilayer_orchestra.dataset import schema as labelled

    try:
        averages = model.reported(engine.parse(run.job, request))
    except EngineError:
        run.forget_execution()  # its output is no good: the next attempt runs the engine again
        raise
    if place.pop("watched", "1") == "0" and engine.has_target(request):
        averages.reason += "; its target was not watched (the site profile names no python)"
    dataset = labelled.build(request.terms, averages, tuple(model.observables))
    dataset.attrs |= {
        "title": f"{model.name}: {engine.summary}",
        "orchestra_schema": labelled.SCHEMA_VERSION,
        "model": model.to_yaml(),
        "model_name": model.name,
        "request_hash": request_hash(model, engine),
        "terms_hash": terms_hash(model.terms()),
        "ensemble": "canonical" if hasattr(model.state, "n_up") else "grand canonical",
        "backend": engine.name,
        **statement(engine.stochastic, engine.systematics),
        "engine": engine.version(),
        **place,
        "seed": getattr(request.numerics, "seed", -1),
        "converged": int(averages.converged),
        "converged_reason": averages.reason,
        "command": shlex.join(sys.argv),
        "software": f"bilayer_orchestra {__version__}",
        "created": utc_now(),
    }
    if (start := run.started_from()) is not None:
        dataset.attrs["started_from"] = start
        labelled.append_history(dataset, f"search begun from the state of {start}")
    labelled.append_history(dataset, f"computed by {engine.name} ({engine.version()})")
    return dataset


def _store(dataset: xr.Dataset, run: RunDirectory) -> None:
    """Write the result; what the engine computed is kept if that fails."""
    from bilayer_orchestra.dataset.schema import write_atomic

    dataset.attrs["run"] = run.path.name  # a copy elsewhere still says where it comes from
    try:
        with LIBRARIES:
            write_atomic(dataset, run.result)
    except OrchestraError as error:
        raise OrchestraError(
            f"{error} What the engine computed is kept in {run.job}; run again to store it."
        ) from error
