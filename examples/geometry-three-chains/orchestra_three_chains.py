"""Three Hubbard chains, A - B - C, coupled rung by rung.

    H = sum_l [ -t_l sum_<x,x+1> (c+_{x,l} c_{x+1,l} + h.c.) + U_l sum_x n_up n_dn - mu_l N_l ]
        - sum_x [ t_AB (c+_{x,A} c_{x,B} + h.c.) + t_BC (c+_{x,B} c_{x,C} + h.c.) ]

Spins are summed over; l is A, B or C.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from bilayer_orchestra.model.chains import ChainLayer, Coupling, HubbardChains
from bilayer_orchestra.model.filling import Density, Filling, Tolerance, filling_field
from bilayer_orchestra.model.spec import observables_field
from bilayer_orchestra.settings import SpecModel

Name = Literal["density", "double_occupancy", "pair", "green", "density_density", "spin_spin"]


class Layers(SpecModel):
    """The three chains, in the order of the sites of a rung."""

    A: Annotated[ChainLayer, Field(description="first outer chain")]
    B: Annotated[ChainLayer, Field(description="middle chain")]
    C: Annotated[ChainLayer, Field(description="second outer chain")]


class ThreeFilling(Filling):
    """Wished densities, in place of chemical potentials."""

    A: Density
    B: Density
    C: Density
    tolerance: Tolerance = None


class ThreeChains(HubbardChains):
    """A model file with `model: three-chains`."""

    ORDER: ClassVar = ("length", "boundary", "layers", "t_AB", "t_BC", "filling")

    model: Annotated[Literal["three-chains"], Field(description="geometry")]
    layers: Layers
    t_AB: Annotated[Coupling, Field(description="hopping amplitude between A and B")]  # noqa: N815
    t_BC: Annotated[Coupling, Field(description="hopping amplitude between B and C")]  # noqa: N815
    filling: Annotated[ThreeFilling | None, filling_field()] = None
    observables: Annotated[tuple[Name, ...], observables_field()] = get_args(Name)

    def rungs(self) -> tuple[float, ...]:
        """Return the hopping amplitude from each layer to the next."""
        return (self.t_AB, self.t_BC)
