"""Which state is asked for: canonical ground state or grand-canonical thermal state."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from bilayer_orchestra.settings import SpecModel
from bilayer_orchestra.terms import Canonical, GrandCanonical


class CanonicalState(SpecModel):
    """Ground state (T = 0) with fixed particle numbers."""

    n_up: Annotated[int, Field(ge=0, description="number of spin-up electrons")]
    n_down: Annotated[int, Field(ge=0, description="number of spin-down electrons")]

    def as_terms(self) -> Canonical:
        """Return the state as engines get it."""
        return Canonical(self.n_up, self.n_down)


class ThermalState(SpecModel):
    """Grand-canonical state at inverse temperature beta, with the layers' chemical potentials."""

    beta: Annotated[float, Field(gt=0, le=1e6, description="inverse temperature 1/T")]

    def as_terms(self) -> GrandCanonical:
        """Return the state as engines get it."""
        return GrandCanonical(self.beta)


def _which(value: Any) -> str:
    if isinstance(value, ThermalState):
        return "thermal"
    return "thermal" if isinstance(value, dict) and "beta" in value else "canonical"


def _one_of_both(value: Any) -> Any:
    """Refuse a mixture and a missing choice with one message each."""
    if not isinstance(value, dict):
        return value
    canonical = {"n_up", "n_down"} & set(value)
    if "beta" in value and canonical:
        raise PydanticCustomError(
            "state",
            "should be either {n_up, n_down} (ground state) or {beta} (thermal), not both",
        )
    if not value:
        raise PydanticCustomError(
            "state", "is missing its content: {n_up, n_down} (ground state) or {beta} (thermal)"
        )
    return value


State = Annotated[
    Annotated[CanonicalState, Tag("canonical")] | Annotated[ThermalState, Tag("thermal")],
    Discriminator(_which),
    BeforeValidator(_one_of_both),
]
