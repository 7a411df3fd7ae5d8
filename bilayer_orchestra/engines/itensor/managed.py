"""The Julia that juliapkg manages: installed with pip, as `juliapkg.json` declares it.

juliapkg comes with juliacall. It takes a suitable Julia from the PATH or downloads one, and keeps a
project of its own in the virtual environment.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from bilayer_orchestra.errors import MissingEngineError

_may_install: ContextVar[bool] = ContextVar("may_install", default=True)

ORIGIN = "juliapkg"


def managed_julia() -> tuple[Path, str, str] | None:
    """Return (executable, who named it, project), installing what is missing; None: no juliapkg.

    Raises
    ------
    MissingEngineError
        If it cannot be installed, or is not and must not be now.
    """
    if importlib.util.find_spec("juliacall") is None:
        return None
    import juliapkg

    try:
        if not _may_install.get() and not juliapkg.resolve(dry_run=True):
            raise MissingEngineError(
                "Julia and its packages are installed (by juliapkg) when they are first needed: "
                "run a model with --backend itensor"
            )
        return Path(juliapkg.executable()), ORIGIN, str(juliapkg.project())
    except MissingEngineError:
        raise
    except Exception as error:  # of many kinds: network, disk, Julia's own
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise MissingEngineError(
            f"juliapkg could not install Julia with its packages: {lines[-1]}; with a Julia of "
            "your own, name it in ORCHESTRA_JULIA and its project in ORCHESTRA_JULIA_PROJECT"
        ) from error


@contextmanager
def without_installing() -> Iterator[None]:
    """Look, but do not install anything."""
    token = _may_install.set(False)
    try:
        yield
    finally:
        _may_install.reset(token)
