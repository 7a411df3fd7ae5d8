"""The far side of a worker: a process that solves one job after the other.

Messages are lines of JSON on a Unix socket. ``{"directory": ...}`` comes with the descriptor of the
run's lock, which is held until the job ended, so that a directory stays locked as long as anything
writes to it. The answer is ``{"error": null}`` or ``{"error": "what went wrong"}``.
"""

import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from bilayer_orchestra.files import open_log

LOG = "engine.log"


def serve(descriptor: int, solve: Callable[[Path], None]) -> None:
    """Solve what comes through ``descriptor`` until it closes, or until a job failed.

    A process that failed once is not trusted with another job: it ends, and the near side starts a
    new one.
    """
    with socket.socket(fileno=descriptor) as channel:
        while (message := _receive(channel)) is not None:
            directory, lock = message
            _log_to(directory / LOG)
            try:
                solve(directory)
            except Exception as error:
                _answer(channel, str(error) or type(error).__name__)
                return
            finally:
                sys.stderr.flush()
                os.close(lock)
            _answer(channel, None)


def _receive(channel: socket.socket) -> tuple[Path, int] | None:
    text = b""
    locks: list[int] = []
    while not text.endswith(b"\n"):
        piece, descriptors, _, _ = socket.recv_fds(channel, 65536, 1)
        if not piece:
            return None
        text, locks = text + piece, locks + descriptors
    return Path(json.loads(text)["directory"]), locks[0]


def _answer(channel: socket.socket, error: str | None) -> None:
    channel.sendall(json.dumps({"error": error}).encode() + b"\n")


def _log_to(path: Path) -> None:
    """Send what this process prints, from any language, to the end of ``path``."""
    with open_log(path) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
