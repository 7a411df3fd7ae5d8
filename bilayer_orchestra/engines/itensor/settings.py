"""The ``numerics: itensor:`` section."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bilayer_orchestra.engines.dmrg.settings import DMRGNumerics


class ITensorNumerics(DMRGNumerics):
    """Settings of DMRG in ITensorMPS.jl."""

    write_bond_dimension: Annotated[
        int | None,
        Field(
            ge=1,
            description="beyond this bond dimension environments go to disk; default: where the "
            "run would take more than half of the memory",
        ),
    ] = None
