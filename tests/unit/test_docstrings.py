"""Every public function of three or more arguments says what they are, in a section Parameters."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from types import ModuleType

import bilayer_orchestra

SECTION = re.compile(r"Parameters\n-+\n(.*?)(?=\n\n\w[\w ]*\n---|\Z)", re.DOTALL)
ENTRY = re.compile(r"^(\*{0,2}\w[\w, *]*?)(?: :.*)?$", re.MULTILINE)


def described(*docstrings: str | None) -> set[str]:
    """Return the parameters that numpydoc sections describe."""
    sections = [SECTION.search(inspect.cleandoc(text or "")) for text in docstrings]
    entries = [entry for found in sections if found for entry in ENTRY.findall(found[1])]
    return {name.strip(" *") for entry in entries for name in entry.split(",")}


def modules() -> Iterator[ModuleType]:
    """Yield all but those of commands, whose options the help of each command lists."""
    for info in pkgutil.walk_packages(bilayer_orchestra.__path__, "bilayer_orchestra."):
        if not info.name.startswith("bilayer_orchestra.cli"):
            yield importlib.import_module(info.name)


def public(module: ModuleType) -> Iterator[tuple[str, set[str], set[str]]]:
    """Yield (name, arguments, described ones) of functions and methods written in ``module``.

    A method that implements one of a base class is described there, a constructor by its class.
    """
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value):
            yield name, set(inspect.signature(value).parameters), described(value.__doc__)
        for method, held in vars(value).items() if inspect.isclass(value) else ():
            function = getattr(held, "__func__", held)  # of a class method
            written = getattr(getattr(function, "__code__", None), "co_filename", "")
            if written != module.__file__ or (method.startswith("_") and method != "__init__"):
                continue
            texts = [getattr(vars(one).get(method), "__doc__", None) for one in value.__mro__]
            own = [value.__doc__] if method == "__init__" else []
            arguments = set(inspect.signature(function).parameters) - {"self", "cls"}
            yield f"{name}.{method}", arguments, described(*texts, *own)


def test_arguments_are_described():
    missing = {
        f"{module.__name__}.{name}": sorted(arguments - known)
        for module in modules()
        for name, arguments, known in public(module)
        if len(arguments) >= 3 and not name.rpartition(".")[2].startswith("test_")
    }
    assert len(missing) > 100
    assert {name: names for name, names in missing.items() if names} == {}
