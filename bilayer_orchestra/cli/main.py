"""Entry point of ``orchestra``: one clear message and a non-zero exit code for every failure."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command line."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    # schedulers send TERM: it ends like Ctrl-C, with the engine stopped in order
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    from bilayer_orchestra.cli.app import app
    from bilayer_orchestra.errors import Interrupted, OrchestraError

    try:
        app()
    except OrchestraError as error:
        if debug:
            raise
        _fail(str(error), _code(error))
    except Interrupted as stop:
        _fail(str(stop), 130)
    except BrokenPipeError as error:
        _output_is_broken()
        sys.exit(_code(error))
    except MemoryError as error:
        _fail("out of memory; take a smaller model or a machine with more", _code(error))
    except OSError as error:  # a full disk, too many open files: no defect of ours
        if debug:
            raise
        place = error.filename or (_output_is_broken() and "cannot write to standard output")
        _fail(f"{place or 'the system refuses'}: {error.strerror}", _code(error))
    except Exception as error:
        if debug:
            raise
        _fail(f"internal error: {type(error).__name__}: {error} (--debug shows where)", 70)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    from bilayer_orchestra.errors import Interrupted

    raise Interrupted


def _code(error: Exception) -> int:
    return getattr(error, "exit_code", 1)  # what 1 means depends on the command


def _output_is_broken() -> bool:
    """Return whether standard output takes nothing, such as a file on a full disk."""
    try:
        os.write(sys.stdout.fileno(), b"\n")
    except OSError:
        # what is left in its buffer would be tried once more at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _fail(message: str, code: int) -> None:
    with contextlib.suppress(OSError):  # on a full disk, too
        sys.stderr.write(f"orchestra: {message}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
