"""What importing an engine's declaration costs, and what it brings along: in a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from bilayer_orchestra.engines.registry import ENGINES

#: Imports all of ours that the declaration needs, then times the declaration and says what came
#: along.
_SCRIPT = """
import importlib, json, sys, time
from importlib.metadata import EntryPoint

import bilayer_orchestra.engines.registry
for name in json.loads(sys.argv[3]):
    importlib.import_module(name)
before = set(sys.modules)
started = time.process_time()
engine = EntryPoint(sys.argv[1], sys.argv[2], "").load()
seconds = time.process_time() - started
new = set(sys.modules) - before
print(json.dumps({"seconds": seconds, "modules": sorted(new), "room": engine.__module__}))
"""


@dataclass(frozen=True)
class Declared:
    """What a declaration costs.

    Parameters
    ----------
    seconds : float
        Processor time of its import beyond that of our own modules.
    foreign : tuple of str
        Top-level modules that it brings and that are neither ours, nor its own, nor Python's.
    """

    seconds: float
    foreign: tuple[str, ...]


def measured(name: str) -> Declared:
    """Return what importing the declaration of engine ``name`` costs; the best of three."""
    (point,) = (one for one in entry_points(group=ENGINES.group) if one.name == name)
    first = _import(name, point.value, [])
    room = first["room"].rpartition(".")[0]
    ours = [m for m in first["modules"] if m.startswith("bilayer_orchestra.")]
    ours = [m for m in ours if m != room and not m.startswith(f"{room}.")]
    again = [_import(name, point.value, ours) for _ in range(3)]
    own = {"bilayer_orchestra", first["room"].partition(".")[0], *sys.stdlib_module_names}
    brought = {module.partition(".")[0] for module in again[0]["modules"]} - own
    return Declared(min(one["seconds"] for one in again), tuple(sorted(brought)))


def _import(name: str, value: str, before: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-c", _SCRIPT, name, value, json.dumps(before)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"the declaration of {name} cannot be imported:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
