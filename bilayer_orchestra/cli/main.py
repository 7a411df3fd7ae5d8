"""Entry point of ``orchestra``: one clear message and a non-zero exit code for every failure."""

import contextlib
import logging
import os
import signal
import sys
import warnings
from pathlib import Path
from types import FrameType

from bilayer_orchestra.errors import NO_WINDOWS, ExitCode, Interrupted, OrchestraError


def main() -> None:
    """Run the command line."""
    if sys.platform == "win32":
        _fail(NO_WINDOWS, ExitCode.FAILED)
    debug = _taken("--debug")
    if not debug:
        warnings.showwarning = _warn  # type: ignore[assignment]  # the place is left out
    _listen(_taken("-vv"), _taken("-v"), _taken("--quiet"))
    # every file is written under a name of its own and appears by rename; HDF5's locks would only
    # fail where the file system has none
    os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")
    # schedulers send TERM: it ends like Ctrl-C, with the engine stopped in order
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    _leave_out_the_working_directory()
    from bilayer_orchestra.cli.app import app

    checks = sys.argv[1:2] == ["check"]
    failed = ExitCode.COULD_NOT_RUN if checks else ExitCode.FAILED
    try:
        app()
    except BrokenPipeError:
        _output_is_broken()
        sys.exit(failed)
    except (Exception, Interrupted) as error:
        if debug and isinstance(error, Exception):
            raise
        _fail(*_said(error, failed))


def _said(error: BaseException, failed: ExitCode) -> tuple[str, ExitCode]:
    """Return the message and the exit code of a failure."""
    match error:
        case OrchestraError():
            return str(error), failed
        case Interrupted():
            return str(error), ExitCode.INTERRUPTED
        case MemoryError():
            return "out of memory; take a smaller model or a machine with more", failed
        case OSError():  # a full disk, too many open files: no defect of ours
            place = error.filename or (_output_is_broken() and "cannot write to standard output")
            return f"{place or 'the system refuses'}: {error.strerror}", failed
    what = f"{type(error).__name__}: {error}"
    return f"internal error: {what} (--debug shows where)", ExitCode.INTERNAL


def _taken(flag: str) -> bool:
    """Return whether a flag of every command was given, anywhere; it is taken off."""
    given = flag in sys.argv
    sys.argv[:] = [word for word in sys.argv if word != flag]
    return given


def _listen(debug: bool, verbose: bool, quiet: bool) -> None:
    """Show what the package logs: warnings, with -v what is done, with -vv how."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("orchestra: %(message)s"))
    logger = logging.getLogger("bilayer_orchestra")
    logger.addHandler(handler)
    chosen = logging.DEBUG if debug else logging.INFO if verbose else logging.WARNING
    logger.setLevel(logging.ERROR if quiet else chosen)


def _warn(message: Warning | str, *_place: object) -> None:
    """Say what a library warns of; where its code stands is for --debug."""
    sys.stderr.write(f"orchestra: warning: {' '.join(str(message).split())}\n")


def _leave_out_the_working_directory() -> None:
    """Take no module, and no juliapkg.json, from where others may write.

    `python -m` and an empty entry of PYTHONPATH put the working directory on the path.
    """
    from bilayer_orchestra.files import trusted

    if not trusted(Path()):
        elsewhere = (place for place in sys.path if Path(place).resolve() != Path().resolve())
        sys.path[:] = elsewhere


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise Interrupted


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
