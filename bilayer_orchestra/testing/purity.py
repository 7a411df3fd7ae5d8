"""What a piece of code writes, renames, removes or asks the network for: Python tells."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_CHANGES = frozenset(
    {
        "os.chmod",
        "os.link",
        "os.mkdir",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.symlink",
        "os.truncate",
        "os.utime",
        "socket.connect",
        "socket.getaddrinfo",
    }
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
_listeners: list[list[str]] = []
_installed: list[bool] = []


@contextmanager
def changes() -> Iterator[list[str]]:
    """Collect what this process changes outside of itself, one line each.

    Compiled Python files do not count. What a child process does is not seen.
    """
    if not _installed:
        sys.addaudithook(_hear)  # for as long as the process lives
        _installed.append(True)
    found: list[str] = []
    _listeners.append(found)
    try:
        yield found
    finally:
        _listeners.remove(found)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if not _listeners or not (event in _CHANGES or (event == "open" and _writes(arguments))):
        return
    subject = str(arguments[0] if not event.startswith("socket") else arguments[-1])
    if "__pycache__" in subject or subject == os.devnull:
        return
    for found in _listeners:
        found.append(f"{event} {subject}")


def _writes(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = arguments
    if isinstance(mode, str):
        return bool(set(mode) & set("wax+"))
    return isinstance(flags, int) and bool(flags & _WRITING)
