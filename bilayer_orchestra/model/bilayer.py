"""The bilayer of arXiv:2604.28187: a pairing chain P coupled rung by rung to a metallic chain M.

    H = sum_l [ -t_l sum_<x,x+1> (c+_{x,l} c_{x+1,l} + h.c.) + U_l sum_x n_up n_dn - mu_l N_l ]
        - t_perp sum_x (c+_{x,P} c_{x,M} + h.c.)

Spins are summed over; l is P or M.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from bilayer_orchestra.model.chains import ChainLayer, Coupling, HubbardChains
from bilayer_orchestra.model.filling import Filling, particles, with_state
from bilayer_orchestra.model.spec import observables_field
from bilayer_orchestra.model.state import CanonicalState
from bilayer_orchestra.settings import SpecModel

ObservableName = Literal[
    "density", "double_occupancy", "pair", "green", "density_density", "spin_spin"
]
OBSERVABLES: tuple[ObservableName, ...] = get_args(ObservableName)


class Layers(SpecModel):
    """The two layers."""

    P: Annotated[ChainLayer, Field(description="pairing layer")]
    M: Annotated[ChainLayer, Field(description="metallic layer")]


def _state_or_filling(schema: dict[str, Any]) -> None:
    """Require a state or a filling: without a state it means a ground state of equal spins."""
    schema["required"].remove("state")
    schema["anyOf"] = [{"required": ["state"]}, {"required": ["filling"]}]


class BilayerModel(HubbardChains):
    """A model file with `model: bilayer`."""

    model_config = ConfigDict(json_schema_extra=_state_or_filling)

    ORDER: ClassVar = ("length", "boundary", "layers", "t_perp", "filling")

    model: Annotated[Literal["bilayer"], Field(description="geometry")] = "bilayer"
    layers: Layers
    t_perp: Annotated[Coupling, Field(description="inter-layer tunnelling amplitude")]
    filling: Annotated[
        Filling | None,
        Field(
            description="wished densities; the chemical potentials that give them are tuned, "
            "starting from those of the layers where these are not zero"
        ),
    ] = None
    observables: Annotated[tuple[ObservableName, ...], observables_field()] = OBSERVABLES

    @model_validator(mode="before")
    @classmethod
    def _ground_state_of_filling(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("state") is not None:
            return data
        return data if data.get("filling") is None else with_state(data)

    @model_validator(mode="after")
    def _filling_has_these_particles(self) -> BilayerModel:
        if self.filling is None or not isinstance(self.state, CanonicalState):
            return self
        balanced = self.state.n_up == self.state.n_down
        wished = particles(self.filling, self.length, balanced)
        given = self.state.n_up + self.state.n_down
        if given != wished:
            raise PydanticCustomError(
                "filling",
                "has {given} electrons, but {p} and {m} per site on {length} rungs make "
                "{wished}; leave `state` out for equal spins",
                {
                    "given": given,
                    "wished": wished,
                    "p": f"{self.filling.P:g}",
                    "m": f"{self.filling.M:g}",
                    "length": self.length,
                    "path": ("state",),
                },
            )
        return self

    def at(self, mu_p: float, mu_m: float) -> BilayerModel:
        """Return the model with these chemical potentials and no filling to tune."""
        layers = Layers(
            P=self.layers.P.model_copy(update={"chemical_potential": mu_p}),
            M=self.layers.M.model_copy(update={"chemical_potential": mu_m}),
        )
        return self.model_copy(update={"layers": layers, "filling": None})

    def rungs(self) -> tuple[float, ...]:
        """Return the inter-layer tunnelling."""
        return (self.t_perp,)
