"""From averages of the attractive bilayer to those of the Anderson lattice.

With a_{i,s} the operators of the attractive model that the engines solve and c_{i,s} those of the
Anderson lattice, c_{i,up} = a_{i,up} and c_{i,dn} = s_i a+_{i,dn} on a bipartite lattice
(arXiv:2604.28187; H. Shiba, Prog. Theor. Phys. 48, 2171 (1972)). Hence, averages of the attractive
model on the right:

====================  =======================================================================
density               (n_up, 1 - n_dn)
magnetization         <S^z_i> = (n_up + n_dn - 1) / 2
double_occupancy      n_up - <n_up n_dn>
green                 up as it is; down: s_i s_j (delta_ij - <a+_{j,dn} a_{i,dn}>)
spin_flip             <S^+_i S^-_j> = s_i s_j <Delta+_i Delta_j>
spin_spin             <S^z_i S^z_j> = <n_i n_j>_c / 4 + <S^z_i> <S^z_j>
density_density       <n_i n_j>_c = 4 (<S^z_i S^z_j> - <S^z_i> <S^z_j>), S^z of the attractive model
kinetic_energy        as it is
interaction_energy    sum_i U_i n_up - |interaction energy|
log_partition         + beta sum_i (U_i - h_i) / 2
====================  =======================================================================

Every entry is linear in the averages, or a product of two of them that is linearized for errors.
Statistical errors follow from the blocks' deviations and so contain all correlations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from bilayer_orchestra.averages import Averages
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.observables import OBSERVABLES
from bilayer_orchestra.terms import FloatArray

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


def sources(observables: tuple[str, ...]) -> tuple[str, ...]:
    """Return the observables of the attractive model from which ``observables`` follow."""
    return tuple(dict.fromkeys(["density", *(SOURCES[name] for name in observables)]))


def engine_targets(targets: dict[str, float]) -> dict[str, float]:
    """Translate wished errors; those of sums (double occupancy) become those of their main part.

    Raises
    ------
    OrchestraError
        If a target is no observable of the Anderson lattice.
    """
    result: dict[str, float] = {}
    for name, target in targets.items():
        if name not in SOURCES and not name.endswith("energy"):
            raise OrchestraError(
                f"target_stderr names `{name}`, which the Anderson lattice does not "
                f"report; known: {', '.join(SOURCES)}"
            )
        result[SOURCES.get(name, name)] = target * _TARGET_FACTOR.get(name, 1.0)
    return result


def translated(
    averages: Averages,
    sublattice: FloatArray,
    interaction: FloatArray,
    field: FloatArray,
    beta: float | None,
) -> Averages:
    """Return the averages of the Anderson lattice.

    Parameters
    ----------
    averages : Averages
        Of the attractive bilayer, with ``density``.
    sublattice, interaction, field : array, shape (N,)
        s_i, and U_i and h_i of the Anderson lattice.
    beta : float or None
        Inverse temperature of a thermal state.
    """
    old = averages.values
    n_sites = len(sublattice)
    signs = np.outer(sublattice, sublattice)
    moment = 0.5 * (old["density"].sum(axis=0) - 1.0)
    spin = 0.5 * (old["density"][0] - old["density"][1])
    shift = float(np.sum(interaction - field)) / 2  # H of the Anderson lattice = H - shift

    values: dict[str, FloatArray] = {}
    parts: dict[str, list[Part]] = {}

    def add(name: str, constant: Any, *summands: Part, value: Any = None) -> None:
        if all(part.source in old for part in summands):
            linear = constant + sum(part.of(old[part.source]) for part in summands)
            values[name] = np.asarray(linear if value is None else value, dtype=float)
            parts[name] = list(summands)

    def energy(name: str, source: str | None, constant: float, up: Any, down: Any) -> None:
        """Constant + source + sum_i (up_i n_up + down_i n_dn)."""
        weights = np.stack([up * np.ones(n_sites), down * np.ones(n_sites)])
        density = Part("density", 1.0, lambda n: n.sum(axis=(-2, -1)), weights)
        add(name, constant, density, *([Part(source)] if source else []))

    energy("energy", "energy", 0.0, interaction, 0.0)
    add("kinetic_energy", 0.0, Part("kinetic_energy"))
    energy("interaction_energy", "interaction_energy", 0.0, interaction, 0.0)
    half = interaction.sum() / 2
    energy("level_energy", None, -half, -interaction / 2, interaction / 2)
    energy("field_energy", None, field.sum() / 2, -field / 2, -field / 2)
    potential = (interaction - field) / 2
    energy("total_energy", "energy", -shift, potential, potential)
    flip = np.array([[1.0], [-1.0]])
    add("density", np.array([[0.0], [1.0]]), Part("density", flip))
    add("magnetization", -0.5, Part("density", 0.5, lambda n: n.sum(axis=-2)))
    add(
        "double_occupancy",
        0.0,
        Part("density", 1.0, lambda n: n[..., 0, :]),
        Part("double_occupancy", -1.0),
    )
    add("spin_flip", 0.0, Part("pair", signs))
    add("spin_flip_susceptibility", 0.0, Part("pair_susceptibility", signs))
    spins = np.stack([np.ones_like(signs), -signs])
    hole = np.stack([np.zeros_like(signs), np.diag(np.ones(n_sites))])
    add("green", hole, Part("green", spins, _transpose_down))
    row, column = moment[:, None], moment[None, :]
    add(
        "spin_spin",
        0.0,
        Part("density_density", 0.25),
        Part("density", 0.5 * column, lambda n: n.sum(axis=-2)[..., :, None]),
        Part("density", 0.5 * row, lambda n: n.sum(axis=-2)[..., None, :]),
        value=0.25 * old["density_density"] + row * column if "density_density" in old else None,
    )
    row, column = spin[:, None], spin[None, :]
    add(
        "density_density",
        0.0,
        Part("spin_spin", 4.0),
        Part("density", -2.0 * column, lambda n: n.sum(axis=-2)[..., :, None], flip),
        Part("density", -2.0 * row, lambda n: n.sum(axis=-2)[..., None, :], flip),
        value=4.0 * (old["spin_spin"] - row * column) if "spin_spin" in old else None,
    )
    diagnostics = dict(averages.diagnostics)
    if "log_partition" in diagnostics and beta is not None:
        diagnostics["log_partition"] = diagnostics["log_partition"] + beta * shift
    deviations = {
        name: np.asarray(sum(part.of(averages.deviations[part.source]) for part in parts[name]))
        for name in values
        if all(part.source in averages.deviations for part in parts[name])
    }
    return replace(
        averages,
        values=values,
        bias={
            # parts that cancel would claim an accuracy that none of them has
            name: sum(part.size_of(averages.bias[part.source]) for part in parts[name])
            + np.zeros(values[name].shape)
            for name in values
            if all(part.source in averages.bias for part in parts[name])
        },
        stderr={name: np.sqrt(np.sum(one**2, axis=0)) for name, one in deviations.items()},
        deviations=deviations,
        attributes={
            name: _attributes(name, [part.source for part in parts[name]], averages)
            for name in values
        },
        diagnostics=diagnostics,
    )


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


#: Where the Anderson lattice's words differ from those of the table of observables.
DEFINITIONS = {
    "energy": "<H> with the hopping, hybridization and interaction terms only: without the level "
    "-(U/2) n and without the field",
    "kinetic_energy": OBSERVABLES["kinetic_energy"].definition + ", hybridization included",
}


def _transpose_down(green: FloatArray) -> FloatArray:
    """Exchange i and j of the down spin."""
    return np.stack([green[..., 0, :, :], green[..., 1, :, :].swapaxes(-1, -2)], axis=-3)
