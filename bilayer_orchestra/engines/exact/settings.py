"""The ``numerics: exact:`` section."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bilayer_orchestra.settings import SpecModel


class ExactNumerics(SpecModel):
    """Settings of exact diagonalization; there is nothing to tune but the start vector."""

    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 1
    threads: Annotated[
        int | None, Field(ge=1, le=1024, description="threads; default: the cores available")
    ] = None
