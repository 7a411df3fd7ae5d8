"""A file system without locks."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path


def no_locks(folder: Path, number: int) -> dict[str, str]:
    """Return an environment in which flock answers ``number``, as on a file system without locks.

    With a C compiler for everything, HDF5 and flock(1) included, else for Python alone.
    """
    words = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(folder / "no_locks.so")]
    code = f"#include <errno.h>\nint flock(int fd, int how) {{ errno = {number}; return -1; }}\n"
    if shutil.which("cc"):
        subprocess.run(words, input=code, text=True, check=True)
        return os.environ | {"LD_PRELOAD": str(folder / "no_locks.so")}
    (folder / "sitecustomize.py").write_text(
        "import fcntl\ndef flock(*_):\n"
        f"    raise OSError({number}, 'no locks')\nfcntl.flock = flock\n"
    )
    return os.environ | {"PYTHONPATH": str(folder)}
