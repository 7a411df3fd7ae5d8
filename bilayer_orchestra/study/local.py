"""Run the tasks of a study on this machine: a failed point does not stop the others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Protocol

from bilayer_orchestra.errors import Interrupted, OrchestraError
from bilayer_orchestra.job import Job, Tools
from bilayer_orchestra.runtimes.base import AttachedRuntime
from bilayer_orchestra.study.tasks import Task
from bilayer_orchestra.tuning.point import run_model


class Listener(Protocol):
    """Hears what happens to the points."""

    def progress(self, name: str, line: str) -> None:
        """Hear how far a running point is."""
        ...

    def noted(self, name: str, line: str) -> None:
        """Hear what must be known of a point, such as a damaged result that was set aside."""
        ...

    def ended(self, name: str, error: str | None, reused: bool) -> None:
        """Hear that a point ended.

        Parameters
        ----------
        name : str
            The point.
        error : str or None
            Why it failed.
        reused : bool
            Whether its result was there already.
        """
        ...


def run_points(
    tasks: list[Task], runtime: AttachedRuntime, jobs: int, listener: Listener
) -> dict[str, str]:
    """Run all tasks; return the messages of those that failed, by name.

    Parameters
    ----------
    runtime : AttachedRuntime
        Where they run.
    jobs : int
        How many of them at the same time.
    listener : Listener
        Hears what happens to them.
    """
    stop = threading.Event()
    failures: dict[str, str] = {}
    pool = ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="point")
    running: dict[Future[bool], Task] = {
        pool.submit(_run, task, _Stoppable(runtime, stop), listener): task for task in tasks
    }
    try:
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                task = running.pop(future)
                error = _failure(future)
                if error is not None:
                    failures[task.name] = error
                listener.ended(task.name, error, error is None and future.result())
    except BaseException:
        stop.set()  # the engines are stopped in order, by the threads that started them
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return failures


def _run(task: Task, runtime: AttachedRuntime, listener: Listener) -> bool:
    listener.progress(task.name, "begins")
    outcome = run_model(
        task.model,
        task.engine,
        runtime,
        task.run.path.parent,
        lambda line: listener.progress(task.name, line),
        run=task.run,
    )
    if outcome.remark:
        listener.noted(task.name, outcome.remark)
    return outcome.reused


def _failure(future: Future[bool]) -> str | None:
    """Return why a point failed, in words for its user; None: it did not."""
    error = future.exception()
    if error is None:
        return None
    if isinstance(error, OrchestraError):
        return str(error)
    if isinstance(error, MemoryError):
        return "out of memory"
    raise error


class _Stoppable(AttachedRuntime):
    """A runtime whose jobs end when the study is interrupted; signals reach one thread only."""

    def __init__(self, runtime: AttachedRuntime, stop: threading.Event) -> None:
        self.name = runtime.name
        self._runtime, self._stop = runtime, stop

    def execute(
        self, job: Job, tools: Tools, directory: Path, lock: int, on_poll: Callable[[], None]
    ) -> dict[str, str]:
        """Run ``job`` unless the study was interrupted."""

        def poll() -> None:
            if self._stop.is_set():
                raise Interrupted
            on_poll()

        if self._stop.is_set():
            raise Interrupted
        return self._runtime.execute(job, tools, directory, lock, poll)
