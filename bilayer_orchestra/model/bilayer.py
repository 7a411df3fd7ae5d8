"""The bilayer of arXiv:2604.28187: a pairing chain P coupled rung by rung to a metallic chain M.

H = sum_{l=P,M} [ -t_l sum_<x,x+1> (c+_{x,l} c_{x+1,l} + h.c.) + U_l sum_x n_up n_dn - mu_l N_l ]
    - t_perp sum_x (c+_{x,P} c_{x,M} + h.c.)
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from bilayer_orchestra.model.base import SpecModel
from bilayer_orchestra.terms import FloatArray, Site

#: Larger couplings are typing errors; the bound also keeps every product finite.
Coupling = Annotated[float, Field(ge=-1e4, le=1e4)]
#: Longer chains are out of reach of every engine; the bound turns a typing error into a message.
MAX_LENGTH = 1000


class Layer(SpecModel):
    """One chain of the bilayer."""

    hopping: Annotated[Coupling, Field(description="t of -t (c+_x c_{x+1} + h.c.)")]
    interaction: Annotated[Coupling, Field(description="U of +U n_up n_dn")] = 0.0
    chemical_potential: Annotated[Coupling, Field(description="mu of -mu n")] = 0.0


class Layers(SpecModel):
    """The two layers."""

    P: Annotated[Layer, Field(description="pairing layer")]
    M: Annotated[Layer, Field(description="metallic layer")]


class Bilayer(SpecModel):
    """Geometry and couplings of the bilayer; knows the site order P0 M0 P1 M1 ..."""

    model: Annotated[Literal["bilayer"], Field(description="geometry")] = "bilayer"
    length: Annotated[int, Field(ge=1, le=MAX_LENGTH, description="number of rungs L")]
    boundary: Annotated[
        Literal["open", "periodic"], Field(description="boundary condition along the chains")
    ] = "open"
    layers: Layers
    t_perp: Annotated[Coupling, Field(description="inter-layer tunnelling amplitude")]

    @property
    def sites(self) -> tuple[Site, ...]:
        """Site labels, rung by rung: nearest neighbours stay close, which DMRG needs."""
        return tuple(Site(layer, x) for x in range(self.length) for layer in ("P", "M"))

    def one_body(self) -> FloatArray:
        """Return h, shape (2 L, 2 L).

        A periodic chain of two sites has its bond twice (once around each way), hence 2 t; one of
        a single site has no bond.
        """
        matrix = np.zeros((2 * self.length, 2 * self.length))

        def bond(a: int, b: int, hopping: float) -> None:
            matrix[a, b] -= hopping
            matrix[b, a] -= hopping

        for x in range(self.length):
            bond(2 * x, 2 * x + 1, self.t_perp)
            following = (x + 1) % self.length
            if following == x or (following == 0 and self.boundary == "open"):
                continue
            for offset, layer in enumerate((self.layers.P, self.layers.M)):
                bond(2 * x + offset, 2 * following + offset, layer.hopping)
        return matrix

    def on_site(self) -> tuple[FloatArray, FloatArray]:
        """Return the interactions U_i and the chemical potentials mu_i, shape (2 L,) each."""
        layers = (self.layers.P, self.layers.M)
        interaction = np.tile([layer.interaction for layer in layers], self.length)
        potential = np.tile([layer.chemical_potential for layer in layers], self.length)
        return interaction, potential
