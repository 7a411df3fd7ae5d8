"""The guest, by the kit of bilayer_orchestra: `pytest`, or `pytest -m "not slow"` for the short."""

from __future__ import annotations

from typing import ClassVar

from bilayer_orchestra.testing import CASES, EngineConformance

#: Cases of every day; the others take a minute.
SHORT = {"open", "thermal", "thermal ring", "isolated sites", "empty", "full", "one electron"}


class TestTenpy(EngineConformance):
    name = "tenpy"
    settings: ClassVar = {"initial_bond_dimension": 32, "max_bond_dimension": 64}
    rough: ClassVar = {"initial_bond_dimension": 8, "max_bond_dimension": 16}
    slow = frozenset(CASES) - SHORT | {"killed", "truncated"}
    interrupted: ClassVar = {"length": 3, "state": {"n_up": 3, "n_down": 3}}
    killed_after = "checkpoint.pickle"
    resumed = "resumed"
