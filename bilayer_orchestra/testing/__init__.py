"""What the author of an engine tests it with; the only part of this program that needs pytest.

from bilayer_orchestra.testing import EngineConformance

class TestMine(EngineConformance):
    name = "mine"
"""

import pytest

# before it is imported: a test that fails then shows the values that it compared
pytest.register_assert_rewrite("bilayer_orchestra.testing.conformance")

from bilayer_orchestra.testing.cases import CASES, Case  # noqa: E402
from bilayer_orchestra.testing.conformance import EngineConformance  # noqa: E402
from bilayer_orchestra.testing.oracle import Exact, diagonalized  # noqa: E402

__all__ = ["CASES", "Case", "EngineConformance", "Exact", "diagonalized"]
