"""The files that ship beside the package: engine halves, templates, container definitions."""

import re
from collections.abc import Collection, Mapping
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


def fill(text: str, values: Mapping[str, str], leave: Collection[str] = ()) -> str:
    """Return a template with every @NAME@ replaced, once: what is put in is not looked at again.

    Parameters
    ----------
    text : str
        The template.
    values : mapping
        NAME -> what takes its place; those of the template, no more and no fewer.
    leave : collection of str
        Names that are filled in later.
    """
    names = set(re.findall(r"@([A-Z]+)@", text)) - set(leave)
    if names != set(values):
        raise AssertionError(f"the template has {sorted(names)}, filled with {sorted(values)}")
    known = {name: f"@{name}@" for name in leave} | dict(values)
    return re.sub(r"@([A-Z]+)@", lambda match: known[match[1]], text)
