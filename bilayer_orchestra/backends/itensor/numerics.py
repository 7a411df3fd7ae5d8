"""The ``numerics: itensor:`` section."""

from __future__ import annotations

from bilayer_orchestra.backends.dmrg_numerics import DMRGNumerics


class ITensorNumerics(DMRGNumerics):
    """Settings of DMRG in ITensorMPS.jl."""
