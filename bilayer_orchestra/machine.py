"""What this machine offers: cores, and the environment that fixes an engine's thread counts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_cores: ContextVar[int | None] = ContextVar("cores", default=None)


def available_cores() -> int:
    """Return the number of cores this process may use (not the number the machine has)."""
    elsewhere = _cores.get()
    if elsewhere is not None:
        return elsewhere
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
