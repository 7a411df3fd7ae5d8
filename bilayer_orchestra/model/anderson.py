"""The periodic Anderson lattice, solved exactly as an attractive bilayer.

    H = - t_f sum_<x,x+1>,s (f+_{x,s} f_{x+1,s} + h.c.)
        - t_c sum_<x,x+1>,s (c+_{x,s} c_{x+1,s} + h.c.)
        - V sum_{x,s} (f+_{x,s} c_{x,s} + h.c.)
        + sum_i [ U_i n_{i,up} n_{i,dn} - (U_i / 2) n_i - h_i S^z_i ]          i over f and c sites

The level -U/2 is the particle-hole symmetric one; only there the transformation of the down spin
``c_{i,dn} -> s_i c+_{i,dn}``, s_i = (-1)^(x + layer), gives equal potentials to both spins. The
couplings of the bilayer that is solved: interaction -U_i, mu_i = (h_i - U_i) / 2, hoppings as they
are, N_dn -> N_sites - N_dn.

With a_{i,s} the operators of the attractive model that the engines solve and c_{i,s} those of the
Anderson lattice, c_{i,up} = a_{i,up} and c_{i,dn} = s_i a+_{i,dn} on a bipartite lattice
(arXiv:2604.28187; H. Shiba, Prog. Theor. Phys. 48, 2171 (1972)). Hence, averages of the attractive
model on the right (S^z as well):

    density             (n_up, 1 - n_dn)
    magnetization       <S^z_i> = (n_up + n_dn - 1) / 2
    double_occupancy    n_up - <n_up n_dn>
    green               up as it is; down: s_i s_j (delta_ij - <a+_{j,dn} a_{i,dn}>)
    spin_flip           <S^+_i S^-_j> = s_i s_j <Delta+_i Delta_j>
    spin_spin           <S^z_i S^z_j> = <n_i n_j>_c / 4 + <S^z_i> <S^z_j>
    density_density     <n_i n_j>_c = 4 (<S^z_i S^z_j> - <S^z_i> <S^z_j>)
    kinetic_energy      as it is
    interaction_energy  sum_i U_i n_up - |interaction energy|
    log_partition       + beta sum_i (U_i - h_i) / 2

Every entry is linear in the averages, or a product of two of them that is linearized for errors.
Statistical errors follow from the blocks' deviations and so contain all correlations.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, get_args

import numpy as np
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from bilayer_orchestra.averages import Averages
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.model.chains import CoupledChains, Coupling
from bilayer_orchestra.model.spec import CanonicalState, observables_field
from bilayer_orchestra.observables import OBSERVABLES as TABLE
from bilayer_orchestra.settings import SpecModel
from bilayer_orchestra.terms import Canonical, FloatArray, Terms

ObservableName = Literal[
    "density", "double_occupancy", "spin_flip", "green", "density_density", "spin_spin"
]
OBSERVABLES: tuple[ObservableName, ...] = get_args(ObservableName)

#: Observable of the Anderson lattice -> what must be measured on the attractive bilayer, beside
#: ``density``, which the energies need anyway.
SOURCES = {
    "density": "density",
    "double_occupancy": "double_occupancy",
    "spin_flip": "pair",
    "green": "green",
    "density_density": "spin_spin",
    "spin_spin": "density_density",
}
#: How much larger an error of the measured quantity may be than the one wished for.
_TARGET_FACTOR = {"spin_spin": 4.0, "density_density": 0.25}
#: Where the Anderson lattice's words differ from those of the table of observables.
DEFINITIONS = {
    "energy": "<H> with the hopping, hybridization and interaction terms only: without the level "
    "-(U/2) n and without the field",
    "kinetic_energy": TABLE["kinetic_energy"].definition + ", hybridization included",
}


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


Select = Callable[[FloatArray], FloatArray]


class Part(NamedTuple):
    """``coefficient * select(weights * source)``: one summand of a linearized observable.

    ``select`` acts on the last axes only, so that it takes blocks of deviations as well. It
    chooses and adds; signs are in ``coefficient`` and ``weights``, where they can be left out.
    """

    source: str
    coefficient: Any = 1.0
    select: Select = lambda array: array
    weights: Any = 1.0

    def of(self, change: FloatArray) -> FloatArray:
        """Return what a change of the source makes of it."""
        return np.asarray(self.coefficient * self.select(self.weights * change))

    def size_of(self, error: FloatArray) -> FloatArray:
        """Return the most that errors of the source, of these sizes and any sign, make of it."""
        return np.asarray(np.abs(self.coefficient) * self.select(np.abs(self.weights) * error))


class AndersonModel(CoupledChains):
    """A model file with `model: anderson`."""

    ORDER: ClassVar = ("length", "boundary", "layers", "hybridization")
    TRANSLATION: ClassVar = 1

    model: Annotated[Literal["anderson"], Field(description="geometry")]
    layers: AndersonLayers
    hybridization: Annotated[Coupling, Field(description="V of -V (f+_x c_x + h.c.)")]
    observables: Annotated[tuple[ObservableName, ...], observables_field()] = OBSERVABLES

    @model_validator(mode="after")
    def _bipartite(self) -> Self:
        one_body, sign = self.one_body(), self.sublattice()
        if np.any(one_body[np.equal.outer(sign, sign)]):
            raise PydanticCustomError(
                "bipartite",
                f"a periodic chain of {self.length} sites is not bipartite, and the Anderson "
                "lattice is solved by a transformation that needs two sublattices; take an even "
                "length or `boundary: open`",
                {"path": ("length",)},
            )
        return self

    def rungs(self) -> tuple[float, ...]:
        """Return the hybridization."""
        return (self.hybridization,)

    def sublattice(self) -> FloatArray:
        """Return s_i = (-1)^(x + layer), shape (2 L,)."""
        return 1.0 - 2.0 * (np.add.outer(range(self.length), range(2)).ravel() % 2)

    def terms(self) -> Terms:
        """Return the attractive bilayer that this model is mapped to, with labels f and c."""
        interaction, field = self.on_sites("interaction"), self.on_sites("field")
        state = self.state.as_terms()
        if isinstance(state, Canonical):
            state = state._replace(n_down=len(self.sites) - state.n_down)
        # 0 - U: no negative zeros, which would look like another model in a hash
        return Terms(
            self.sites, self.one_body(), 0.0 - interaction, (field - interaction) / 2, state
        )

    def measured(self) -> tuple[str, ...]:
        """Return the attractive model's observables from which the wished ones follow."""
        return tuple(dict.fromkeys(["density", *(SOURCES[name] for name in self.observables)]))

    def settings(self, backend: str) -> SpecModel:
        """Return a backend's settings, with targets of the attractive model.

        Those of sums (double occupancy) become those of their main part.
        """
        settings = super().settings(backend)
        targets: dict[str, float] = {}
        for name, target in (getattr(settings, "target_stderr", None) or {}).items():
            if name not in SOURCES and not name.endswith("energy"):
                raise OrchestraError(
                    f"numerics.{backend}.target_stderr names `{name}`, which the Anderson lattice "
                    f"does not report; known: {', '.join(SOURCES)}"
                )
            targets[SOURCES.get(name, name)] = target * _TARGET_FACTOR.get(name, 1.0)
        return settings.model_copy(update={"target_stderr": targets}) if targets else settings

    def reported(self, averages: Averages) -> Averages:
        """Translate averages of the attractive bilayer back."""
        old = averages.values
        signs = np.outer(self.sublattice(), self.sublattice())
        interaction, field = self.on_sites("interaction"), self.on_sites("field")
        moment = 0.5 * (old["density"].sum(axis=0) - 1.0)
        spin = 0.5 * (old["density"][0] - old["density"][1])
        shift = float(np.sum(interaction - field)) / 2  # H of the Anderson lattice = H - shift
        potential = (interaction - field) / 2
        flip = np.array([[1.0], [-1.0]])
        spins = np.stack([np.ones_like(signs), -signs])
        hole = np.stack([np.zeros_like(signs), np.eye(len(signs))])

        def levels(up: FloatArray, down: FloatArray) -> Part:
            """Return sum_i (up_i n_up + down_i n_dn)."""
            return Part("density", 1.0, lambda n: n.sum(axis=(-2, -1)), np.stack([up, down]))

        def product(factor: float, average: FloatArray, weights: Any = 1.0) -> tuple[Part, Part]:
            """Return the change of factor a_i a_j, a the sum of both spins' weighted densities."""
            return (
                Part("density", factor * average, lambda n: n.sum(-2)[..., :, None], weights),
                Part(
                    "density", factor * average[:, None], lambda n: n.sum(-2)[..., None, :], weights
                ),
            )

        first = levels(interaction, np.zeros_like(interaction))
        table: dict[str, tuple[Any, list[Part]]] = {  # constant, and what is added to it
            "energy": (0.0, [first, Part("energy")]),
            "kinetic_energy": (0.0, [Part("kinetic_energy")]),
            "interaction_energy": (0.0, [first, Part("interaction_energy")]),
            "level_energy": (-interaction.sum() / 2, [levels(-interaction / 2, interaction / 2)]),
            "field_energy": (field.sum() / 2, [levels(-field / 2, -field / 2)]),
            "total_energy": (-shift, [levels(potential, potential), Part("energy")]),
            "density": (np.array([[0.0], [1.0]]), [Part("density", flip)]),
            "magnetization": (-0.5, [Part("density", 0.5, lambda n: n.sum(axis=-2))]),
            "double_occupancy": (
                0.0,
                [Part("density", 1.0, lambda n: n[..., 0, :]), Part("double_occupancy", -1.0)],
            ),
            "spin_flip": (0.0, [Part("pair", signs)]),
            "spin_flip_susceptibility": (0.0, [Part("pair_susceptibility", signs)]),
            "green": (hole, [Part("green", spins, _transpose_down)]),
            "spin_spin": (0.0, [Part("density_density", 0.25), *product(0.5, moment)]),
            "density_density": (0.0, [Part("spin_spin", 4.0), *product(-2.0, spin, flip)]),
        }
        parts = {
            name: summands
            for name, (_, summands) in table.items()
            if all(part.source in old for part in summands)
        }

        def mapped(
            known: dict[str, FloatArray], rule: Callable[[Part, FloatArray], FloatArray]
        ) -> dict[str, FloatArray]:
            return {
                name: np.asarray(sum(rule(part, known[part.source]) for part in summands))
                for name, summands in parts.items()
                if all(part.source in known for part in summands)
            }

        values = {name: table[name][0] + linear for name, linear in mapped(old, Part.of).items()}
        # not linear: what is above is the change that goes with a small change of the averages
        if "spin_spin" in values:
            values["spin_spin"] = 0.25 * old["density_density"] + moment[:, None] * moment
        if "density_density" in values:
            values["density_density"] = 4.0 * (old["spin_spin"] - spin[:, None] * spin)
        diagnostics = dict(averages.diagnostics)
        if "log_partition" in diagnostics and not isinstance(self.state, CanonicalState):
            diagnostics["log_partition"] = diagnostics["log_partition"] + self.state.beta * shift
        deviations = mapped(averages.deviations, Part.of)
        # parts that cancel would claim an accuracy that none of them has
        bias = mapped(averages.bias, Part.size_of)
        return replace(
            averages,
            values=values,
            bias={name: size + np.zeros(values[name].shape) for name, size in bias.items()},
            stderr={name: np.sqrt(np.sum(one**2, axis=0)) for name, one in deviations.items()},
            deviations=deviations,
            attributes={
                name: _attributes(name, [part.source for part in parts[name]], averages)
                for name in values
            },
            diagnostics=diagnostics,
        )

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


def _attributes(name: str, used: list[str], averages: Averages) -> dict[str, Any]:
    """Return the worst of what stands beside the sources, and the Anderson lattice's definition."""
    worst = {"covariance_degrees_of_freedom": min}
    found: dict[str, list[Any]] = {}
    for source in used:
        for key, value in averages.attributes.get(source, {}).items():
            found.setdefault(key, []).append(value)
    result = {key: worst.get(key, max)(numbers) for key, numbers in found.items()}
    if name in DEFINITIONS:
        result["definition"] = DEFINITIONS[name]
    result["obtained_from"] = ", ".join(dict.fromkeys(used)) + " of the attractive bilayer"
    return result


def _transpose_down(green: FloatArray) -> FloatArray:
    """Exchange i and j of the down spin."""
    return np.stack([green[..., 0, :, :], green[..., 1, :, :].swapaxes(-1, -2)], axis=-3)
