"""Exact diagonalization needs Python, scipy and us: the image of block2 has them."""

from __future__ import annotations

from dataclasses import replace

from bilayer_orchestra.engines.block2.image import RECIPE as HOME

RECIPE = replace(HOME, label="orchestra.scipy")
