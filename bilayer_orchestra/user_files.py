"""Files that a user names: where they are, and what is in them."""

import errno
import os
import select
from pathlib import Path

from bilayer_orchestra.errors import OrchestraError

#: A model, a study, a profile is a page of text; more is a mistake (or an attack), and is not read.
MAX_BYTES = 1_000_000
#: Seconds that a pipe may take to say something.
PATIENCE = 10.0


def expand(text: str) -> str:
    """Return a path as a user wrote it, in an option, a file or a variable, with ``~`` replaced.

    ``~`` and ``~NAME`` at the start are home directories, nothing else means anything: shells have
    replaced variables by then, and names may hold a ``$``.

    Raises
    ------
    OrchestraError
        If there is no such user.
    """
    path = os.path.expanduser(text)  # noqa: PTH111 a Path would turn docker://NAME into a file
    if path.startswith("~"):
        raise OrchestraError(
            f"{text}: no user has this home directory; write the full path of a file of this name"
        )
    return path


def user_path(named: str | Path) -> Path:
    """Return the path that a user wrote; see :func:`expand`."""
    return Path(expand(str(named)))


def variable(name: str) -> str:
    """Return the path or program in an environment variable; empty if it is not set."""
    return expand(os.environ.get(name, ""))


def read_bounded(path: Path) -> bytes:
    """Return the bytes of a file that a user named; a pipe or ``/dev/stdin`` is a file as well.

    Raises
    ------
    OSError
        If it cannot be read, is longer than any such file, or is a pipe that says nothing.
    """
    data = b""
    # opening a pipe would wait for its other end, for ever
    with open(path, "rb", buffering=0, opener=_without_waiting) as stream:
        while select.select([stream], [], [], PATIENCE)[0]:
            piece = stream.read(1 << 16)
            if not piece:
                return data
            data += piece
            if len(data) > MAX_BYTES:
                raise OSError(errno.EFBIG, f"it is longer than {MAX_BYTES} bytes", str(path))
    raise OSError(errno.ETIMEDOUT, f"it says nothing for {PATIENCE:g} s; is it a pipe?", str(path))


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
