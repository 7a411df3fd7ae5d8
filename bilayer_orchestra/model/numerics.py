"""The ``numerics`` section: one part per backend, read by that backend only."""

from __future__ import annotations

from bilayer_orchestra.engines.alf.settings import ALFNumerics
from bilayer_orchestra.engines.block2.settings import Block2Numerics
from bilayer_orchestra.engines.exact.settings import ExactNumerics
from bilayer_orchestra.engines.itensor.settings import ITensorNumerics
from bilayer_orchestra.settings import SpecModel


class Numerics(SpecModel):
    """Settings per backend."""

    exact: ExactNumerics = ExactNumerics()
    block2: Block2Numerics = Block2Numerics()
    itensor: ITensorNumerics = ITensorNumerics()
    alf: ALFNumerics = ALFNumerics()
