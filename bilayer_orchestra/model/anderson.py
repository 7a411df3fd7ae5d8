"""The periodic Anderson lattice, solved exactly as an attractive bilayer.

    H = - t_f sum_<x,x+1>,s (f+_{x,s} f_{x+1,s} + h.c.)
        - t_c sum_<x,x+1>,s (c+_{x,s} c_{x+1,s} + h.c.)
        - V sum_{x,s} (f+_{x,s} c_{x,s} + h.c.)
        + sum_i [ U_i n_{i,up} n_{i,dn} - (U_i / 2) n_i - h_i S^z_i ]          i over f and c sites

The level -U/2 is the particle-hole symmetric one; only there the transformation of the down spin
``c_{i,dn} -> s_i c+_{i,dn}``, s_i = (-1)^(x + layer), gives equal potentials to both spins. The
couplings of the bilayer that is solved: interaction -U_i, mu_i = (h_i - U_i) / 2, hoppings as they
are, N_dn -> N_sites - N_dn. The way back is in :mod:`bilayer_orchestra.model.particle_hole`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

import numpy as np
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from bilayer_orchestra.averages import Averages
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.model.chains import CoupledChains, Coupling, chains_one_body, rung_by_rung
from bilayer_orchestra.model.particle_hole import engine_targets, sources, translated
from bilayer_orchestra.model.spec import observables_field
from bilayer_orchestra.model.state import CanonicalState
from bilayer_orchestra.settings import SpecModel
from bilayer_orchestra.terms import Canonical, FloatArray, GrandCanonical, Site, Terms

ObservableName = Literal[
    "density", "double_occupancy", "spin_flip", "green", "density_density", "spin_spin"
]
OBSERVABLES: tuple[ObservableName, ...] = get_args(ObservableName)


class AndersonLayer(SpecModel):
    """One chain of the Anderson lattice."""

    hopping: Annotated[Coupling, Field(description="t of -t (c+_x c_{x+1} + h.c.)")] = 0.0
    interaction: Annotated[
        Coupling,
        Field(ge=0, description="U of +U n_up n_dn; the level is the symmetric one, -U/2"),
    ] = 0.0
    field: Annotated[Coupling, Field(description="magnetic field h of -h S^z")] = 0.0


class AndersonLayers(SpecModel):
    """Localized and conduction electrons."""

    f: Annotated[AndersonLayer, Field(description="localized, interacting electrons")]
    c: Annotated[AndersonLayer, Field(description="conduction electrons")]


class AndersonModel(CoupledChains):
    """A model file with `model: anderson`."""

    ORDER: ClassVar = ("length", "boundary", "layers", "hybridization")
    TRANSLATION: ClassVar = 1

    model: Annotated[Literal["anderson"], Field(description="geometry")]
    layers: AndersonLayers
    hybridization: Annotated[Coupling, Field(description="V of -V (f+_x c_x + h.c.)")]
    observables: Annotated[tuple[ObservableName, ...], observables_field()] = OBSERVABLES

    @model_validator(mode="after")
    def _bipartite(self) -> AndersonModel:
        one_body, sign = self._one_body(), self.sublattice()
        if np.any(one_body[np.equal.outer(sign, sign)]):
            raise PydanticCustomError(
                "bipartite",
                "a periodic chain of {length} sites is not bipartite, and the Anderson lattice is "
                "solved by a transformation that needs two sublattices; take an even length or "
                "`boundary: open`",
                {"length": self.length, "path": ("length",)},
            )
        return self

    @property
    def sites(self) -> tuple[Site, ...]:
        """Site labels f0 c0 f1 c1 ..."""
        return rung_by_rung(self.length, ("f", "c"))

    def sublattice(self) -> FloatArray:
        """Return s_i = (-1)^(x + layer), shape (2 L,)."""
        layer = {"f": 0, "c": 1}
        return np.array([1.0 - 2.0 * ((site.x + layer[site.layer]) % 2) for site in self.sites])

    def on_site(self) -> tuple[FloatArray, FloatArray]:
        """Return U_i and h_i of the Anderson lattice, shape (2 L,) each."""
        layers = (self.layers.f, self.layers.c)
        interaction = np.tile([layer.interaction for layer in layers], self.length)
        return interaction, np.tile([layer.field for layer in layers], self.length)

    def terms(self) -> Terms:
        """Return the attractive bilayer that this model is mapped to, with labels f and c."""
        interaction, field = self.on_site()
        state = (
            Canonical(self.state.n_up, len(self.sites) - self.state.n_down)
            if isinstance(self.state, CanonicalState)
            else GrandCanonical(self.state.beta)
        )
        # 0 - U: no negative zeros, which would look like another model in a hash
        return Terms(
            self.sites, self._one_body(), 0.0 - interaction, (field - interaction) / 2, state
        )

    def measured(self) -> tuple[str, ...]:
        """Return the attractive model's observables from which the wished ones follow."""
        return sources(self.observables)

    def settings(self, backend: str) -> SpecModel:
        """Return a backend's settings, with targets of the attractive model."""
        settings = super().settings(backend)
        targets = getattr(settings, "target_stderr", None)
        if not targets:
            return settings
        try:
            translated = engine_targets(targets)
        except OrchestraError as error:
            raise OrchestraError(f"numerics.{backend}.{error}") from error
        return settings.model_copy(update={"target_stderr": translated})

    def reported(self, averages: Averages) -> Averages:
        """Translate averages of the attractive bilayer back."""
        interaction, field = self.on_site()
        beta = None if isinstance(self.state, CanonicalState) else self.state.beta
        return translated(averages, self.sublattice(), interaction, field, beta)

    def remark(self) -> str:
        """Say what the engine was given."""
        text = "the Anderson lattice is solved as the attractive bilayer it is equivalent to"
        if isinstance(self.state, CanonicalState):
            sites = len(self.sites)
            text += (
                f", with n_down = {sites} - {self.state.n_down} = {sites - self.state.n_down}; "
                f"that has equal numbers of both spins if n_up + n_down = {sites}"
            )
        return text

    def _one_body(self) -> FloatArray:
        hoppings = (self.layers.f.hopping, self.layers.c.hopping)
        return chains_one_body(self.length, self.periodic, hoppings, (self.hybridization,))
