"""Guests of the tests: distributions in a directory of their own, found through PYTHONPATH."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support import commands

ENGINES, GEOMETRIES = "bilayer_orchestra.engines", "bilayer_orchestra.geometries"

#: Exact diagonalization under another name, with a setting of its own and a stated error.
TOY = '''
from bilayer_orchestra.engines.exact.engine import ExactEngine, ExactNumerics


class ToyNumerics(ExactNumerics):
    """Settings of the toy."""

    knob: float = 1.0


class Toy(ExactEngine):
    """A toy."""

    name = "toy"
    summary = "a toy"
    settings = ToyNumerics
    auto = None
    recipe = None

    def version(self):
        return "toy 1"
'''


def install(folder: Path, distribution: str, text: str, group: str, point: str) -> None:
    """Install a distribution of one module; ``point`` is its entry point, ``name = module:Class``.

    What pip would leave: the module, and its metadata beside it.
    """
    module = point.partition("=")[2].partition(":")[0].strip()
    about = folder / f"{distribution.replace('-', '_')}-1.dist-info"
    about.mkdir(parents=True)
    (folder / f"{module}.py").write_text(text)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1\n")
    (about / "entry_points.txt").write_text(f"[{group}]\n{point}\n")


def python(
    folder: Path | None, *arguments: object, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python with the guests in ``folder``; None: without any."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | _path(folder),
        cwd=cwd,
    )


def _path(folder: Path | None) -> dict[str, str]:
    return {"PYTHONPATH": str(folder)} if folder else {}


def orchestra(folder: Path | None, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line with the guests in ``folder``; None: without any."""
    return commands.orchestra(*arguments, env=os.environ | _path(folder))
