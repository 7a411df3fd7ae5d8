"""What this machine offers: cores, and the environment that fixes an engine's thread counts."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

_cores: ContextVar[int | None] = ContextVar("cores", default=None)


def available_cores() -> int:
    """Return the number of cores this process may use (not the number the machine has)."""
    elsewhere = _cores.get()
    if elsewhere is not None:
        return elsewhere
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_limit() -> float | None:
    """Return the bytes that a job may take here, or None if that is not known.

    The memory of the machine, or less where this process's control group or ``ulimit`` says so.
    """
    if _cores.get() is not None:
        return None  # the job is rendered for another machine
    return min(_limits(), default=None)


def _limits() -> Iterator[float]:
    with suppress(ValueError, OSError, AttributeError):  # a system that does not say
        yield float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        allowed = resource.getrlimit(kind)[0]
        if allowed != resource.RLIM_INFINITY:
            yield float(allowed)
    yield from _group_limits(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))


def _group_limits(root: Path, membership: Path) -> Iterator[float]:
    """Yield the limits of the control group (version 2) and of those that contain it."""
    try:
        group = membership.read_text().strip().rpartition("::")[2].lstrip("/")
    except OSError:
        return
    place = root / group
    while place == root or root in place.parents:
        with suppress(OSError, ValueError):  # no such group, or "max"
            yield float((place / "memory.max").read_text())
        place = place.parent


def thread_environment(threads: int) -> dict[str, str]:
    """Return the variables that bound every common threading layer to ``threads``."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return dict.fromkeys(names, str(threads))


@contextmanager
def cores(count: int) -> Iterator[None]:
    """Render jobs for a machine with ``count`` cores, such as a cluster's allocation."""
    token = _cores.set(count)
    try:
        yield
    finally:
        _cores.reset(token)
