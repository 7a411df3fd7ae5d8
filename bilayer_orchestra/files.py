"""Directories to write to, and what is known of a file without the library that reads it."""

from __future__ import annotations

import fcntl
from pathlib import Path

from bilayer_orchestra.errors import OrchestraError


def make_directory(path: Path) -> Path:
    """Return ``path`` as a directory, made where it is missing.

    Raises
    ------
    OrchestraError
        If it cannot be one.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        for one in (path, *path.parents):
            if one.exists() and not one.is_dir():
                text = f"cannot write to {path}: {one} is a file, not a directory"
                raise OrchestraError(text) from error
        raise OrchestraError(f"cannot write to {path}: {error.strerror}") from error
    return path


def is_cut_off(path: Path) -> bool:
    """Return whether a netCDF4 (HDF5) file is shorter than its own beginning says.

    So it is after a full disk or a broken copy, or if it is no such file at all. The place of the
    length depends on the version: HDF5 File Format Specification 3.0, II.A, "end of file address".
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(52)
    except OSError:  # such as somebody else's: nothing is known
        return False
    place = {0: 40, 1: 44, 2: 28, 3: 28}.get(head[8]) if head[:8] == b"\x89HDF\r\n\x1a\n" else None
    if place is None or len(head) < 52:
        return True
    return path.stat().st_size < int.from_bytes(head[place : place + 8], "little")


def is_locked(path: Path) -> bool:
    """Return whether somebody writes to an HDF5 file now: the library locks it meanwhile."""
    with path.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # no locks on this file system
            return False
    return False
