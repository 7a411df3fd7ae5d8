"""What geometries of coupled chains share: labels, bonds, the order of the sites."""

from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from bilayer_orchestra.model.filling import listed, particles
from bilayer_orchestra.model.spec import CanonicalState, Model
from bilayer_orchestra.settings import SpecModel
from bilayer_orchestra.terms import FloatArray, Site, Terms

#: Larger couplings are typing errors; the bound also keeps every product finite.
Coupling = Annotated[float, Field(ge=-1e4, le=1e4)]
#: Longer chains are out of reach of every engine; the bound turns a typing error into a message.
MAX_LENGTH = 1000


class ChainLayer(SpecModel):
    """One chain."""

    hopping: Annotated[Coupling, Field(description="t of -t (c+_x c_{x+1} + h.c.)")]
    interaction: Annotated[Coupling, Field(description="U of +U n_up n_dn")] = 0.0
    chemical_potential: Annotated[Coupling, Field(description="mu of -mu n")] = 0.0


def _state_or_filling(schema: dict[str, Any]) -> None:
    """Require a state or a filling: without a state it means a ground state of equal spins."""
    if "filling" in schema["properties"]:
        schema["required"].remove("state")
        schema["anyOf"] = [{"required": ["state"]}, {"required": ["filling"]}]


class CoupledChains(Model):
    """Chains of equal length, coupled rung by rung; site order A0 B0 A1 B1 ...

    ``layers`` is a section whose keys are the layers, each with a ``hopping``.
    """

    length: Annotated[int, Field(ge=1, le=MAX_LENGTH, description="number of rungs L")]
    boundary: Annotated[
        Literal["open", "periodic"], Field(description="boundary condition along the chains")
    ] = "open"
    layers: Any

    @property
    def periodic(self) -> bool:
        """Whether the ends of the chains meet."""
        return self.boundary == "periodic"

    @property
    def sites(self) -> tuple[Site, ...]:
        """Labels rung by rung: nearest neighbours stay close, which DMRG needs."""
        layers = type(self.layers).model_fields
        return tuple(Site(layer, x) for x in range(self.length) for layer in layers)

    def rungs(self) -> tuple[float, ...]:
        """Return the hopping amplitude from each layer to the next."""
        raise NotImplementedError

    def on_sites(self, name: str) -> FloatArray:
        """Return a number of the layers, such as ``interaction``, on every site, shape (N,)."""
        return np.tile([getattr(layer, name) for _, layer in self.layers], self.length)

    def one_body(self) -> FloatArray:
        """Return h, shape (N, N).

        A periodic chain of two sites has its bond twice (once around each way), hence 2 t; one of
        a single site has no bond.
        """
        along = np.eye(self.length, k=1)
        if self.periodic and self.length > 1:
            along[-1, 0] += 1.0
        hoppings = np.diag([layer.hopping for _, layer in self.layers])
        bonds = np.kron(along, hoppings) + np.kron(np.eye(self.length), np.diag(self.rungs(), 1))
        return 0.0 - bonds - bonds.T  # from zero: -0.0 would look like another model in a hash


class HubbardChains(CoupledChains):
    """Chains with hopping, interaction and chemical potential, and hopping from one to the next.

    A geometry of any number of chains: each of its ``layers`` is a :class:`ChainLayer`; ``rungs``
    says the amplitudes between neighbouring layers. With a section
    ``filling`` (a :class:`~bilayer_orchestra.model.filling.Filling` of the same layers) its
    chemical potentials can be searched for.
    """

    model_config = ConfigDict(json_schema_extra=_state_or_filling)

    @model_validator(mode="before")
    @classmethod
    def _ground_state_of_filling(cls, data: Any) -> Any:
        """Add the ground state of equal spins to a file that names a filling but no state.

        Whether its particle number is right, or the filling can be read at all, is validated later.
        """
        given = data if isinstance(data, dict) else {}
        if given.get("state") is not None or given.get("filling") is None:
            return data
        try:
            densities = [value for key, value in data["filling"].items() if key != "tolerance"]
            half = max(1, round(int(data["length"]) * sum(map(float, densities)) / 2))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
            half = 1
        return data | {"state": {"n_up": half, "n_down": half}}

    @model_validator(mode="after")
    def _filling_has_these_particles(self) -> Self:
        if self.wished is None or not isinstance(self.state, CanonicalState):
            return self
        wished = particles(self.wished, self.length, self.state.n_up == self.state.n_down)
        given = self.state.n_up + self.state.n_down
        if given != wished:
            raise PydanticCustomError(
                "filling",
                f"has {given} electrons, but {listed(self.wished)} per site on {self.length} rungs "
                f"make {wished}; leave `state` out for equal spins",
                {"path": ("state",)},
            )
        return self

    def potentials(self) -> dict[str, str]:
        """Return layer -> path of its chemical potential in the file."""
        return {name: f"layers.{name}.chemical_potential" for name, _ in self.layers}

    def terms(self) -> Terms:
        """Return the model without physics words, from which every engine starts."""
        interaction, potential = self.on_sites("interaction"), self.on_sites("chemical_potential")
        return Terms(self.sites, self.one_body(), interaction, potential, self.state.as_terms())
