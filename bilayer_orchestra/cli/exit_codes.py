"""The exit codes of all commands; docs/exit-codes.md. Those of ``check`` are verdicts as well."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a script learns from a command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    COULD_NOT_RUN = 3  # of `check` alone, where 1 and 2 are verdicts
    NOT_CONVERGED = 4
    INTERNAL = 70  # EX_SOFTWARE of sysexits.h
    INTERRUPTED = 130  # 128 + SIGINT, as shells have it
