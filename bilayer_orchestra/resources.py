"""The files that ship beside the package: engine halves, templates, container definitions."""

from __future__ import annotations

from pathlib import Path

from bilayer_orchestra.errors import OrchestraError


def resource(*parts: str) -> Path:
    """Return the path of a shipped file, such as ``resource("templates", "alf", "parameters")``.

    Found in an installed wheel (inside the package) and in a checkout (beside it) alike.

    Raises
    ------
    OrchestraError
        If the installation is incomplete.
    """
    package = Path(__file__).resolve().parent
    for root in (package / "_resources", package.parent):
        path = root.joinpath(*parts)
        if path.exists():
            return path
    raise OrchestraError(f"{'/'.join(parts)} is missing from this installation; reinstall it")
