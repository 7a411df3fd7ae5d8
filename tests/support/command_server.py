"""Forks the command line once per line of its input; see :mod:`tests.support.commands`."""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import sys


def become(asked: dict) -> None:
    """Do in this process what ``python -m bilayer_orchestra.cli.main`` would."""
    for number, name in enumerate((os.devnull, *asked["streams"])):
        os.dup2(os.open(name, os.O_RDWR), number)
    os.chdir(asked["directory"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    guests = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:1] = [asked["directory"], *filter(None, guests)]
    sys.argv = ["", *asked["arguments"]]
    try:
        runpy.run_module("bilayer_orchestra.cli.main", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # taking the libraries down would copy every page of them


def main() -> None:
    """Answer each line with the exit code of its command."""
    for name in sys.argv[1:]:
        importlib.import_module(name)
    assert "bilayer_orchestra" not in sys.modules
    gc.freeze()  # a collection in a child would copy them, too
    for line in sys.stdin:
        child = os.fork()
        if not child:
            become(json.loads(line))
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
