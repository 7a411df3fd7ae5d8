"""Entry point of ``orchestra``: one clear message and a non-zero exit code for every failure."""

from __future__ import annotations

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
    from bilayer_orchestra.cli.exit_codes import ExitCode
    from bilayer_orchestra.errors import Interrupted, OrchestraError

    # of `check`, 1 is a verdict
    failed = 3 if sys.argv[1:2] == ["check"] else int(ExitCode.FAILED)
    try:
        app()
    except OrchestraError as error:
        if debug:
            raise
        _fail(str(error), failed)
    except Interrupted as stop:
        _fail(str(stop), ExitCode.INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(failed)
    except MemoryError:
        _fail("out of memory; take a smaller model or a machine with more", failed)
    except Exception as error:
        if debug:
            raise
        _fail(
            f"internal error: {type(error).__name__}: {error} (--debug shows where)",
            ExitCode.INTERNAL,
        )


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    from bilayer_orchestra.errors import Interrupted

    raise Interrupted


def _fail(message: str, code: int) -> None:
    sys.stderr.write(f"orchestra: {message}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
