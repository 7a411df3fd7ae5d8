"""The exit codes of every command but ``check``, whose codes are verdicts; docs/exit-codes.md."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a script learns from a command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_CONVERGED = 4
    INTERNAL = 70  # EX_SOFTWARE of sysexits.h
    INTERRUPTED = 130  # 128 + SIGINT, as shells have it
