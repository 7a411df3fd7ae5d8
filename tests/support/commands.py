"""The command line, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

ORCHESTRA = [sys.executable, "-m", "bilayer_orchestra.cli.main"]


def orchestra(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    return subprocess.run(
        [*ORCHESTRA, *map(str, arguments)], capture_output=True, text=True, check=False, **options
    )
