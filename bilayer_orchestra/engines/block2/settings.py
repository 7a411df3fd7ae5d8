"""The ``numerics: block2:`` section."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bilayer_orchestra.engines.dmrg.settings import DMRGNumerics


class Block2Numerics(DMRGNumerics):
    """Settings of the embedded DMRG (block2)."""

    stack_memory_gib: Annotated[
        float, Field(gt=0, le=4096, description="working memory that block2 reserves, in GiB")
    ] = 1.0
