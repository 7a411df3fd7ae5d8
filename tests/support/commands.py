"""The command line, in a process of its own.

Two thirds of a short command's time are imports of the libraries it stands on. A server that has
imported them, and nothing of this program, forks each command. What a test changes in those
libraries, or asks of the start itself (``LD_PRELOAD``), needs :func:`started`.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ORCHESTRA = [sys.executable, "-m", "bilayer_orchestra.cli.main"]
LIBRARIES = (
    "matplotlib.figure",
    "netCDF4",
    "pandas",
    "pydantic",
    "rich.console",
    "ruamel.yaml",
    "scipy.optimize",
    "typer",
    "xarray",
)


@functools.cache
def _server() -> subprocess.Popen[str]:
    """Return the server of this test process; it ends with its input."""
    command = [sys.executable, "-m", "tests.support.command_server", *LIBRARIES]
    return subprocess.Popen(
        command,
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def started(
    *arguments: object, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process begun from nothing."""
    return subprocess.run(
        [*ORCHESTRA, *map(str, arguments)], capture_output=True, text=True, check=False, env=env
    )


def orchestra(
    *arguments: object, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    server = _server()
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder) / name for name in ("out", "err")]
        for stream in streams:
            stream.touch()
        asked = {
            "arguments": [*map(str, arguments)],
            "directory": str(cwd or Path.cwd()),
            "environment": dict(os.environ if env is None else env),
            "streams": [*map(str, streams)],
        }
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        texts = [stream.read_text() for stream in streams]
    return subprocess.CompletedProcess([*ORCHESTRA, *asked["arguments"]], code, *texts)
