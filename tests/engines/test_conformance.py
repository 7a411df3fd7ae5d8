"""The built-in engines, tested by the kit that their guests are tested by."""

from __future__ import annotations

from typing import ClassVar

import pytest

from bilayer_orchestra.testing import CASES, EngineConformance

#: What sampling takes minutes for.
EVERYTHING = frozenset(CASES) | {"killed", "truncated"}


class TestExact(EngineConformance):
    name = "exact"
    tolerance = 1e-9
    interrupted: ClassVar = {"length": 6, "state": {"n_up": 4, "n_down": 4}}
    killed_after = "progress.jsonl"


class TestBlock2(EngineConformance):
    name = "block2"
    rough: ClassVar = {"initial_bond_dimension": 4, "max_bond_dimension": 8}
    killed_after = "checkpoint.zip"
    resumed = "resumed"


class TestITensor(EngineConformance):
    name = "itensor"
    rough: ClassVar = {"initial_bond_dimension": 8, "max_bond_dimension": 16}
    killed_after = "checkpoint.jls"
    resumed = "resumed"
    slow = EVERYTHING


class TestALF(EngineConformance):
    name = "alf"
    settings: ClassVar = {"time_budget": 30.0, "projection_time": 120.0}
    rough: ClassVar = {"dtau": [0.5, 0.25], "projection_time": 60.0}
    refused = frozenset({"polarized", "polarized ring", "repulsive", "momentum"})
    slow = EVERYTHING
    killed_after = "dtau-*/chain-*/seg-0001"

    @pytest.mark.slow
    def test_progress_changes_nothing(self, solver, tmp_path):
        super().test_progress_changes_nothing(solver, tmp_path)
