"""The errors that a user is meant to read, and the exit codes that a script gets.

Every failure that a user can cause or mend is an :class:`OrchestraError`: the command line prints
its message alone and exits non-zero. Anything else is a defect of this program.
"""

from enum import IntEnum

#: Why a machine is refused: there are no locks, signals and groups of processes as POSIX has them.
NO_WINDOWS = "this program runs on Linux and macOS, and on Windows inside WSL"


class ExitCode(IntEnum):
    """What a script learns from a command; docs/exit-codes.md. Those of ``check`` are verdicts."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    COULD_NOT_RUN = 3  # of `check` alone, where 1 and 2 are verdicts
    NOT_CONVERGED = 4
    INTERNAL = 70  # EX_SOFTWARE of sysexits.h
    INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class OrchestraError(Exception):
    """A failure with a message that names the place and the remedy."""


class SpecError(OrchestraError):
    """One or more problems in a model file.

    Parameters
    ----------
    source : str
        Where the text came from (a file name).
    problems : list of str
        One line per problem, each with its place and what would be right.
    """

    def __init__(self, source: str, problems: list[str]) -> None:
        self.source = source
        self.problems = problems
        several = [f"{len(problems)} problems", *(f"  {problem}" for problem in problems)]
        lines = several if len(problems) > 1 else problems
        super().__init__(f"{source}: " + "\n".join(lines))


class DamagedFileError(OrchestraError):
    """A stored dataset cannot be read: cut off, overwritten, or never one of this program."""


class OtherVersionError(OrchestraError):
    """A result is there, but from another version of its engine; the user chooses."""


class EngineError(OrchestraError):
    """An engine failed while running; the message carries its own last lines."""


class MissingEngineError(OrchestraError):
    """An engine is not installed; the message says how to get it."""


class Interrupted(BaseException):
    """The user or the scheduler asked to stop; no error, hence no Exception (as KeyboardInterrupt).

    A class of its own, because the command-line library turns KeyboardInterrupt into silence.
    """

    def __init__(self) -> None:
        super().__init__("stopped; the same command resumes it")


class ForeignFileError(OrchestraError):
    """A file or directory belongs to another user; the message says to whom, and the remedy."""


class RunBusyError(OrchestraError):
    """Another process holds the run directory."""
