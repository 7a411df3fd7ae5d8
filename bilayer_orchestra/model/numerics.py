"""The ``numerics`` section: one part per backend, read by that backend only."""

from __future__ import annotations

from bilayer_orchestra.backends.alf.numerics import ALFNumerics
from bilayer_orchestra.backends.block2.numerics import Block2Numerics
from bilayer_orchestra.backends.exact.numerics import ExactNumerics
from bilayer_orchestra.backends.itensor.numerics import ITensorNumerics
from bilayer_orchestra.model.base import SpecModel


class Numerics(SpecModel):
    """Settings per backend."""

    exact: ExactNumerics = ExactNumerics()
    block2: Block2Numerics = Block2Numerics()
    itensor: ITensorNumerics = ITensorNumerics()
    alf: ALFNumerics = ALFNumerics()
