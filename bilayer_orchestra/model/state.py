"""Which state is asked for: canonical ground state or grand-canonical thermal state."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from bilayer_orchestra.model.base import SpecModel


class CanonicalState(SpecModel):
    """Ground state (T = 0) with fixed particle numbers."""

    n_up: Annotated[int, Field(ge=0, description="number of spin-up electrons")]
    n_down: Annotated[int, Field(ge=0, description="number of spin-down electrons")]


class ThermalState(SpecModel):
    """Grand-canonical state at inverse temperature beta, with the layers' chemical potentials."""

    beta: Annotated[float, Field(gt=0, le=1e6, description="inverse temperature 1/T")]


def _which(value: Any) -> str:
    keys = value if isinstance(value, dict) else type(value).model_fields
    return "thermal" if "beta" in keys else "canonical"


State = Annotated[
    Annotated[CanonicalState, Tag("canonical")] | Annotated[ThermalState, Tag("thermal")],
    Discriminator(_which),
]
