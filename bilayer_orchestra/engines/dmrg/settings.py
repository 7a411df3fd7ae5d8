"""Settings that every DMRG backend has."""

from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from bilayer_orchestra.settings import Seed, SpecModel, Threads

BondDimension = Annotated[int, Field(ge=2, le=100_000)]
#: What counts as small, in units of the largest coupling.
Accuracy = Annotated[float, Field(gt=0, le=1.0)]


class DMRGNumerics(SpecModel):
    """Accuracy and effort of a ground-state DMRG.

    Energies are in units of the largest hopping, or of a quarter of the largest interaction where
    that is more.
    """

    max_bond_dimension: BondDimension = 400
    """the bond dimension never exceeds this"""
    initial_bond_dimension: BondDimension = 50
    """first stage; doubled from stage to stage"""
    discarded_weight: Annotated[float, Field(gt=0, le=1e-2)] = 1e-13
    """growth stops once truncation discards less than this"""
    energy_variance: Annotated[float, Field(ge=0, le=1.0)] = 0.0
    """growth stops once <H^2> - <H>^2 is below this, too"""
    energy_accuracy: Accuracy = 1e-6
    """largest truncation error of the energy that counts as converged"""
    gap_resolution: Accuracy = 1e-5
    """states of the sector closer than this are not told apart"""
    proof: Annotated[
        bool,
        Field(
            description="a second start and the next state of the sector; without them, which cost "
            "about as much as the ground state, no result is called converged"
        ),
    ] = True
    noise: Annotated[float, Field(ge=0, le=1.0)] = 1e-4
    """noise of the first stage"""
    max_sweeps_per_stage: Annotated[int, Field(ge=2, le=1000)] = 20
    seed: Seed = 1
    threads: Threads = None

    @model_validator(mode="after")
    def _stages_in_order(self) -> Self:
        named = "initial_bond_dimension" in self.model_fields_set
        if named and self.initial_bond_dimension > self.max_bond_dimension:
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
