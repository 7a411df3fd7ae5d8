"""What the author of an engine tests it with; the only part of this program that needs pytest.

from bilayer_orchestra.testing import EngineConformance

class TestMine(EngineConformance):
    name = "mine"
"""

from bilayer_orchestra.testing.cases import CASES, Case
from bilayer_orchestra.testing.conformance import EngineConformance
from bilayer_orchestra.testing.oracle import Exact, diagonalized

__all__ = ["CASES", "Case", "EngineConformance", "Exact", "diagonalized"]
