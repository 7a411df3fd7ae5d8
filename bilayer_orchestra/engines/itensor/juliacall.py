"""juliacall: Python and Julia in one process, for workers that solve many points.

It must fit: every juliacall needs one exact version of PythonCall in Julia's project. Where it does
not, every point starts a Julia of its own, and ``orchestra doctor`` says why.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from pathlib import Path

from bilayer_orchestra.engines.itensor.julia import JuliaInstallation, find_julia


def juliacall_environment() -> dict[str, str] | None:
    """Return what a process needs to host the Julia of ``find_julia``; None if none can."""
    found = find_julia()
    if juliacall_problem(found) is not None:
        return None
    project = found.project
    return {
        # current versions take these as they are; older ones ask juliapkg, which must not resolve
        "PYTHON_JULIACALL_EXE": str(found.binary),
        "PYTHON_JULIACALL_PROJECT": project,
        "PYTHON_JULIAPKG_EXE": str(found.binary),
        "PYTHON_JULIAPKG_PROJECT": project,
        "PYTHON_JULIAPKG_OFFLINE": "yes",
        # PythonCall has nothing to install: it is loaded by the Python that it is to use
        "JULIA_CONDAPKG_BACKEND": "Null",
        "PYTHON_JULIACALL_HANDLE_SIGNALS": "yes",
        "PYTHON_JULIACALL_STARTUP_FILE": "no",
        "PYTHON_JULIACALL_AUTOLOAD_IPYTHON_EXTENSION": "no",
    }


def juliacall_problem(found: JuliaInstallation) -> str | None:
    """Return why juliacall cannot host this Julia, or None."""
    try:
        version = importlib.metadata.version("juliacall")
    except importlib.metadata.PackageNotFoundError:
        return "juliacall is not installed (pip install juliacall)"
    present = found.versions.get("PythonCall")
    if present is None:
        return f"the project has no PythonCall, which juliacall {version} needs"
    needed = _needed_pythoncall()
    if needed is not None and needed != present:
        return (
            f"juliacall {version} needs PythonCall {needed} and the project has {present} "
            f"(pip install juliacall=={present})"
        )
    return None


def _needed_pythoncall() -> str | None:
    """Return the version that juliacall asks for, from its own declaration."""
    specification = importlib.util.find_spec("juliacall")
    if specification is None or specification.origin is None:
        return None
    try:
        declared = json.loads((Path(specification.origin).parent / "juliapkg.json").read_text())
        return str(declared["packages"]["PythonCall"]["version"]).lstrip("=")
    except (OSError, ValueError, KeyError):
        return None  # another layout: the worker itself will tell
