"""The Julia that juliapkg manages: ``orchestra engines install itensor`` has it installed.

juliapkg comes with juliacall. It takes a suitable Julia from the PATH or downloads one, and keeps a
project of its own in the virtual environment, with what `juliapkg.json` declares.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from bilayer_orchestra.errors import MissingEngineError

ORIGIN = "juliapkg"
VERB = "orchestra engines install itensor"


def managed_julia() -> tuple[Path, str, str] | None:
    """Return (executable, who named it, project); None if there is no juliapkg. Installs nothing.

    Raises
    ------
    MissingEngineError
        If something is not installed yet.
    """
    if importlib.util.find_spec("juliacall") is None:
        return None
    import juliapkg

    if not _asked(juliapkg.resolve, dry_run=True):
        raise MissingEngineError(f"Julia and its packages are not installed yet: `{VERB}` does it")
    return _found()


def install_managed() -> Path:
    """Install Julia and its packages; return the executable.

    Raises
    ------
    MissingEngineError
        If there is no juliapkg, or it fails.
    """
    if importlib.util.find_spec("juliacall") is None:
        raise MissingEngineError(f"`pip install juliacall` first; then `{VERB}` again")
    import juliapkg

    _asked(juliapkg.resolve)
    return _found()[0]


def _found() -> tuple[Path, str, str]:
    import juliapkg

    return Path(_asked(juliapkg.executable)), ORIGIN, str(_asked(juliapkg.project))


def _asked(question: Any, **options: object) -> Any:
    """Return juliapkg's answer, or its failure in our words."""
    try:
        return question(**options)
    except Exception as error:  # of many kinds: network, disk, Julia's own
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise MissingEngineError(
            f"juliapkg could not install Julia with its packages: {lines[-1]}; with a Julia of "
            "your own, name it in ORCHESTRA_JULIA and its project in ORCHESTRA_JULIA_PROJECT"
        ) from error
