"""Settings that every DMRG backend has."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from bilayer_orchestra.settings import SpecModel

Positive = Annotated[float, Field(gt=0)]


class DMRGNumerics(SpecModel):
    """Accuracy and effort of a ground-state DMRG.

    Energies are in units of the largest hopping, or of a quarter of the largest interaction where
    that is more.
    """

    max_bond_dimension: Annotated[
        int, Field(ge=2, le=100_000, description="the bond dimension never exceeds this")
    ] = 400
    initial_bond_dimension: Annotated[
        int, Field(ge=2, le=100_000, description="first stage; doubled from stage to stage")
    ] = 50
    discarded_weight: Annotated[
        Positive, Field(le=1e-2, description="growth stops once truncation discards less than this")
    ] = 1e-13
    energy_variance: Annotated[
        float, Field(ge=0, le=1.0, description="growth stops once <H^2> - <H>^2 is below this, too")
    ] = 0.0
    energy_accuracy: Annotated[
        Positive,
        Field(
            le=1.0, description="largest truncation error of the energy that counts as converged"
        ),
    ] = 1e-6
    gap_resolution: Annotated[
        Positive,
        Field(le=1.0, description="states of the sector closer than this are not told apart"),
    ] = 1e-5
    proof: Annotated[
        bool,
        Field(
            description="a second start and the next state of the sector; without them, which cost "
            "about as much as the ground state, no result is called converged"
        ),
    ] = True
    noise: Annotated[float, Field(ge=0, le=1.0, description="noise of the first stage")] = 1e-4
    max_sweeps_per_stage: Annotated[int, Field(ge=2, le=1000)] = 20
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 1
    threads: Annotated[
        int | None, Field(ge=1, le=1024, description="threads; default: the cores available")
    ] = None

    @model_validator(mode="after")
    def _stages_in_order(self) -> DMRGNumerics:
        if (
            self.initial_bond_dimension > self.max_bond_dimension
            and "initial_bond_dimension" in self.model_fields_set
        ):
            raise PydanticCustomError(
                "bond_dimension",
                "initial_bond_dimension = {initial} exceeds max_bond_dimension = {largest}",
                {"initial": self.initial_bond_dimension, "largest": self.max_bond_dimension},
            )
        return self

    def bond_dimensions(self) -> list[int]:
        """Bond dimension of every stage: doubled each time, ending at the maximum."""
        stages = [min(self.initial_bond_dimension, self.max_bond_dimension)]
        while stages[-1] < self.max_bond_dimension:
            stages.append(min(2 * stages[-1], self.max_bond_dimension))
        return stages
