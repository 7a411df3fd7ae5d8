"""What geometries of coupled chains share: labels, bonds, the order of the sites."""

from collections.abc import Sequence
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
    """Chains of equal length, coupled rung by rung; site order A0 B0 A1 B1 ..."""

    length: Annotated[int, Field(ge=1, le=MAX_LENGTH, description="number of rungs L")]
    boundary: Annotated[
        Literal["open", "periodic"], Field(description="boundary condition along the chains")
    ] = "open"

    @property
    def periodic(self) -> bool:
        """Whether the ends of the chains meet."""
        return self.boundary == "periodic"


class HubbardChains(CoupledChains):
    """Chains with hopping, interaction and chemical potential, and hopping from one to the next.

    A geometry of any number of chains: its ``layers`` is a section whose keys are the layers, each
    a :class:`ChainLayer`; ``rungs`` says the amplitudes between neighbouring layers. With a section
    ``filling`` (a :class:`~bilayer_orchestra.model.filling.Filling` of the same layers) its
    chemical potentials can be searched for.
    """

    model_config = ConfigDict(json_schema_extra=_state_or_filling)

    layers: Any

    @model_validator(mode="before")
    @classmethod
    def _ground_state_of_filling(cls, data: Any) -> Any:
        """Add the ground state of equal spins to a file that names a filling but no state.

        Whether its particle number is right, or the filling can be read at all, is validated later.
        """
        if not isinstance(data, dict) or data.get("state") is not None:
            return data
        if data.get("filling") is None:
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

    def chains(self) -> dict[str, ChainLayer]:
        """Return the layers by name, in the order of the sites of a rung."""
        return {name: getattr(self.layers, name) for name in type(self.layers).model_fields}

    def rungs(self) -> tuple[float, ...]:
        """Return the hopping amplitude from each layer to the next."""
        raise NotImplementedError

    def potentials(self) -> dict[str, str]:
        """Return layer -> path of its chemical potential in the file."""
        return {name: f"layers.{name}.chemical_potential" for name in self.chains()}

    @property
    def sites(self) -> tuple[Site, ...]:
        """Site labels, rung by rung."""
        return rung_by_rung(self.length, tuple(self.chains()))

    def terms(self) -> Terms:
        """Return the model without physics words, from which every engine starts."""
        chains = self.chains().values()
        one_body = chains_one_body(
            self.length, self.periodic, [chain.hopping for chain in chains], self.rungs()
        )
        interaction = np.tile([chain.interaction for chain in chains], self.length)
        potential = np.tile([chain.chemical_potential for chain in chains], self.length)
        return Terms(self.sites, one_body, interaction, potential, self.state.as_terms())


def rung_by_rung(length: int, layers: Sequence[str]) -> tuple[Site, ...]:
    """Return the labels rung by rung: nearest neighbours stay close, which DMRG needs."""
    return tuple(Site(layer, x) for x in range(length) for layer in layers)


def chains_one_body(
    length: int, periodic: bool, hoppings: Sequence[float], rungs: Sequence[float]
) -> FloatArray:
    """Return h, shape (n L, n L), of n chains whose sites are ordered rung by rung.

    A periodic chain of two sites has its bond twice (once around each way), hence 2 t; one of
    a single site has no bond.

    Parameters
    ----------
    length : int
        Number of rungs L.
    periodic : bool
        Whether the ends of the chains meet.
    hoppings : sequence of float
        Amplitude t along each of the n chains.
    rungs : sequence of float
        Amplitude from each chain to the next, n - 1 of them.
    """
    count = len(hoppings)
    matrix = np.zeros((count * length, count * length))

    def bond(a: int, b: int, hopping: float) -> None:
        matrix[a, b] -= hopping
        matrix[b, a] -= hopping

    for x in range(length):
        for offset, hopping in enumerate(rungs):
            bond(count * x + offset, count * x + offset + 1, hopping)
        following = (x + 1) % length
        if following == x or (following == 0 and not periodic):
            continue
        for offset, hopping in enumerate(hoppings):
            bond(count * x + offset, count * following + offset, hopping)
    return matrix
