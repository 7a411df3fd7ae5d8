"""The bilayer of arXiv:2604.28187: a pairing chain P coupled rung by rung to a metallic chain M.

    H = sum_l [ -t_l sum_<x,x+1> (c+_{x,l} c_{x+1,l} + h.c.) + U_l sum_x n_up n_dn - mu_l N_l ]
        - t_perp sum_x (c+_{x,P} c_{x,M} + h.c.)

Spins are summed over; l is P or M.
"""

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from bilayer_orchestra.model.chains import ChainLayer, Coupling, HubbardChains
from bilayer_orchestra.model.filling import Density, Filling, Tolerance, filling_field
from bilayer_orchestra.model.spec import observables_field
from bilayer_orchestra.settings import SpecModel

ObservableName = Literal[
    "density", "double_occupancy", "pair", "green", "density_density", "spin_spin"
]
OBSERVABLES: tuple[ObservableName, ...] = get_args(ObservableName)


class Layers(SpecModel):
    """The two layers."""

    P: Annotated[ChainLayer, Field(description="pairing layer")]
    M: Annotated[ChainLayer, Field(description="metallic layer")]


class BilayerFilling(Filling):
    """Wished densities; the chemical potentials that give them are searched for."""

    P: Annotated[Density, Field(description="electrons per P site, both spins together: 0 to 2")]
    M: Annotated[Density, Field(description="electrons per M site, both spins together: 0 to 2")]
    tolerance: Tolerance = None


class BilayerModel(HubbardChains):
    """A model file with `model: bilayer`."""

    ORDER: ClassVar = ("length", "boundary", "layers", "t_perp", "filling")

    model: Annotated[Literal["bilayer"], Field(description="geometry")] = "bilayer"
    layers: Layers
    t_perp: Annotated[Coupling, Field(description="inter-layer tunnelling amplitude")]
    filling: Annotated[BilayerFilling | None, filling_field()] = None
    observables: Annotated[tuple[ObservableName, ...], observables_field()] = OBSERVABLES

    def rungs(self) -> tuple[float, ...]:
        """Return the inter-layer tunnelling."""
        return (self.t_perp,)
