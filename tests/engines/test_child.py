"""How an engine's end is explained, and what it may take before."""

from __future__ import annotations

import functools
import subprocess
import sys

import pytest

from bilayer_orchestra.errors import EngineError
from bilayer_orchestra.runtimes.child import run_child

LIMIT = "from bilayer_orchestra.machine import memory_limit as limit; print(f'{limit():.0f}')"


def explained(script, directory):
    """Run a script as an engine and return the error."""
    with (directory / "lock").open("w") as lock:
        run = functools.partial(run_child, on_poll=lambda: None, program="engine")
        with pytest.raises(EngineError) as error:
            run(["sh", "-c", script], directory, {}, lock.fileno())
    return str(error.value)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("kill -KILL $$", "was killed by SIGKILL (out of memory?)"),
        ("kill -SEGV $$", "was killed by SIGSEGV (memory that it did not get?)"),
        ("kill -ABRT $$", "was killed by SIGABRT; its last lines"),
        ("kill -40 $$", "was killed by signal 40; its last lines"),
        ("exit 135", "was killed by SIGBUS (a full disk?)"),
        ("ulimit -f 1; exec head -c 100000 /dev/zero >file", "`ulimit -f` limits the size"),
        ("exit 3", "ended with exit code 3"),
    ],
)
def test_a_silent_end_is_explained(tmp_path, script, said):
    text = explained(script, tmp_path)
    assert said in text
    assert "`dmesg` may tell why it was ended" in text or "-f 1" in script


def test_the_reason_is_quoted_and_no_backtrace(tmp_path):
    addresses = [f"/lib/python.so(+0x{k:x}) [0x7f{k:x}]" for k in range(9)]
    (tmp_path / "words").write_text("\n".join(["exceeding allowed memory", *addresses]))
    text = explained("cat words; kill -ABRT $$", tmp_path)
    assert text.splitlines()[1:] == ["  exceeding allowed memory"]


@pytest.mark.parametrize("kind", ["-v", "-d"])
def test_a_limit_of_the_shell_is_a_limit_of_memory(kind):
    command = ["sh", "-c", f'ulimit {kind} 1000000 && exec "$0" -c "$1"', sys.executable, LIMIT]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(done.stdout) == 1_000_000 * 1024
