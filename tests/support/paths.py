"""Where things of this checkout are."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Recorded input and output of engines, and what the tests compare with.
DATA = ROOT / "tests" / "data"
#: Datasets behind the figures of the documentation.
DOCS_DATA = ROOT / "docs" / "data"
