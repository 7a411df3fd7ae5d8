"""Entry point of ``orchestra``: one clear message and a non-zero exit code for every failure."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType


def main() -> None:
    """Run the command line."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    # every file is written under a name of its own and appears by rename; HDF5's locks would only
    # fail where the file system has none
    os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")
    # schedulers send TERM: it ends like Ctrl-C, with the engine stopped in order
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    _leave_out_the_working_directory()
    from bilayer_orchestra.cli.app import app
    from bilayer_orchestra.errors import Interrupted, OrchestraError

    try:
        app()
    except OrchestraError as error:
        if debug:
            raise
        _fail(str(error), 1)
    except Interrupted as stop:
        _fail(str(stop), 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except MemoryError:
        _fail("out of memory; take a smaller model or a machine with more", 1)
    except Exception as error:
        if debug:
            raise
        _fail(f"internal error: {type(error).__name__}: {error} (--debug shows where)", 70)


def _leave_out_the_working_directory() -> None:
    """Take no module, and no juliapkg.json, from where others may write.

    `python -m` and an empty entry of PYTHONPATH put the working directory on the path.
    """
    from bilayer_orchestra.files import trusted

    if not trusted(Path()):
        sys.path[:] = [place for place in sys.path if not _is_here(Path(place))]


def _is_here(place: Path) -> bool:
    try:
        return place.samefile(".")
    except OSError:
        return False


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    from bilayer_orchestra.errors import Interrupted

    raise Interrupted


def _fail(message: str, code: int) -> None:
    sys.stderr.write(f"orchestra: {message}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
