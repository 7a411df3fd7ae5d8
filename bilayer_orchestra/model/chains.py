"""What geometries of coupled chains share: labels, bonds, the order of the sites."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.settings import SpecModel
from bilayer_orchestra.terms import FloatArray, Site, Terms

if TYPE_CHECKING:
    from typing import Self

#: Larger couplings are typing errors; the bound also keeps every product finite.
Coupling = Annotated[float, Field(ge=-1e4, le=1e4)]
#: Longer chains are out of reach of every engine; the bound turns a typing error into a message.
MAX_LENGTH = 1000


class ChainLayer(SpecModel):
    """One chain."""

    hopping: Annotated[Coupling, Field(description="t of -t (c+_x c_{x+1} + h.c.)")]
    interaction: Annotated[Coupling, Field(description="U of +U n_up n_dn")] = 0.0
    chemical_potential: Annotated[Coupling, Field(description="mu of -mu n")] = 0.0


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
    a :class:`ChainLayer`; ``rungs`` says the amplitudes between neighbouring layers.
    """

    layers: Any

    def chains(self) -> dict[str, ChainLayer]:
        """Return the layers by name, in the order of the sites of a rung."""
        return {name: getattr(self.layers, name) for name in type(self.layers).model_fields}

    def rungs(self) -> tuple[float, ...]:
        """Return the hopping amplitude from each layer to the next."""
        raise NotImplementedError

    def raised(self, mu: float) -> Self:
        """Return the model with all chemical potentials raised by ``mu``."""
        layers = {
            name: chain.model_dump() | {"chemical_potential": chain.chemical_potential + mu}
            for name, chain in self.chains().items()
        }
        return self.replace(layers=layers)

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
