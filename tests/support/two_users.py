"""Two users of one shared directory, for tests that run as root."""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.commands import ORCHESTRA

#: They are on every Debian, and nobody works as them.
NAMES = ("daemon", "games")


def missing_users() -> str | None:
    """Return why nothing can be run as another user here, or None."""
    if os.geteuid() != 0:
        return "only root can run something as two users"
    if shutil.which("setpriv") is None:
        return "setpriv is missing: apt install util-linux"
    if _readable() is None:
        return "other users cannot read this Python, and may not be allowed to"
    return None


@functools.cache
def _readable() -> tuple[str, ...] | None:
    """Return the options that let another user read this Python, wherever it is installed."""
    # in a process of the process: setpriv itself starts the first one with root's rights
    code = "import subprocess, sys; import bilayer_orchestra.cli.app; "
    code += "sys.exit(subprocess.call([sys.executable, '-c', '']))"
    for more in ((), ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")):
        words = ["setpriv", "--reuid=1", "--regid=1", "--clear-groups", *more, sys.executable]
        try:
            done = subprocess.run(
                [*words, "-c", code],
                capture_output=True,
                check=False,
                timeout=60,
            )
        except OSError:
            return None
        if done.returncode == 0:
            return more
    return None


@dataclass
class User:
    """One of the two.

    Parameters
    ----------
    name : str
        As the system knows it.
    home : Path
        A directory of this user's own.
    environment : dict
        What everything that the user starts is told besides.
    """

    name: str
    home: Path
    environment: dict[str, str]

    @property
    def uid(self) -> int:
        return pwd.getpwnam(self.name).pw_uid

    def run(
        self, *words: object, umask: int = 0o022, cwd: Path | None = None, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command."""
        entry = pwd.getpwnam(self.name)
        options = [f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]
        identity = {"HOME": str(self.home), "USER": self.name, "LOGNAME": self.name}
        return subprocess.run(
            ["setpriv", *options, *(_readable() or ()), *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            umask=umask,
            cwd=cwd or self.home,
            env={**os.environ, **identity, **self.environment, **more},
            timeout=300,
        )

    def orchestra(self, *words: object, **more) -> subprocess.CompletedProcess[str]:
        """Run a command of the program."""
        return self.run(*ORCHESTRA, *words, **more)

    def sh(self, script: str, *arguments: object, **more) -> str:
        """Run shell; it must succeed."""
        done = self.run("sh", "-euc", script, "sh", *arguments, **more)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def python(self, code: str, **more) -> str:
        """Run Python code; it must succeed."""
        done = self.run(sys.executable, "-c", code, **more)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def call(self, function: Callable[[], None]) -> str:
        """Call a function as this user, without a capability; return what it raised."""
        receive, send = os.pipe()
        if os.fork() == 0:
            entry, text = pwd.getpwnam(self.name), ""
            try:
                os.setgroups([])
                os.setgid(entry.pw_gid)
                os.setuid(entry.pw_uid)
                function()
            except BaseException as error:
                text = repr(error)
            os.write(send, text.encode())
            os._exit(0)
        os.close(send)
        os.wait()
        with open(receive) as stream:  # noqa: PTH123
            return stream.read()


def make_users(base: Path) -> list[User]:
    """Return two users with homes in ``base``, which everybody may enter."""
    base.chmod(0o755)
    users = []
    for name in NAMES:
        home = base / name
        home.mkdir()
        entry = pwd.getpwnam(name)
        os.chown(home, entry.pw_uid, entry.pw_gid)
        users.append(User(name, home, {}))
    return users
