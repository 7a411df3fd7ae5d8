"""The observables every engine reports: names, definitions, dimensions.

This table is the project's one convention (source: the definitions of arXiv:2604.28187 and the
plain operator products written out here). Backends convert to it at their own boundary.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: What follows the name of a quantity in the names of its errors and of what limits say of it.
COMPANION = re.compile("_(stderr|bias|deviation|systematic|trotter_slope|chi2_per_dof|gap)$")
TWO_POINT = ("layer", "x", "layer_", "x_")
#: Between two sites of the chain in which the engines order the sites.
CUT = "cut"


@dataclass(frozen=True)
class Observable:
    """One measured quantity.

    Parameters
    ----------
    name : str
        Of its variable in datasets and in the model file.
    dims : tuple of str
        Dimensions of the labelled variable; for other labels of the sites see :meth:`on`.
    long_name, definition : str
        In words, and as a formula.
    units : str
        Energies are in the unit of the hopping amplitudes of the model file; averages of
        occupations are dimensionless.
    on_request : bool
        Whether it is in a dataset only if the model file asks for it.
    extra : bool
        Whether one method has it and others have not: no comparison misses it.
    fixed_on_site : tuple of str
        The observables from which its elements with equal sites follow.
    symbol : str
        Title of an axis that shows its magnitude, for matplotlib.
    fit_name : str
        What its fits are called; empty if there are none.
    """

    name: str
    dims: tuple[str, ...]
    long_name: str
    definition: str
    units: str = "1"
    on_request: bool = False
    extra: bool = False
    fixed_on_site: tuple[str, ...] = ()
    symbol: str = ""
    fit_name: str = ""

    def on(self, site: tuple[str, ...]) -> tuple[str, ...]:
        """Return the dimensions where the labels of sites have other fields than layer and x."""
        there = {"layer": site, "layer_": tuple(f"{dim}_" for dim in site), "x": (), "x_": ()}
        return tuple(new for dim in self.dims for new in there.get(dim, (dim,)))

    @property
    def two_point(self) -> bool:
        """Whether it is a function of two sites."""
        return "x_" in self.dims


ENERGY_UNITS = "energy unit of the model file"
INVERSE_ENERGY_UNITS = "1 / energy unit of the model file"

_ENERGIES = {
    "energy": "<H> with the hopping and interaction terms only, without the -mu N terms",
    "kinetic_energy": "sum_ijs h_ij <c+_{i,s} c_{j,s}>",
    "interaction_energy": "sum_i U_i <n_{i,up} n_{i,dn}>",
    "level_energy": "-sum_i (U_i / 2) <n_i>",
    "field_energy": "-sum_i h_i <S^z_i>",
    "total_energy": "<H> with all terms: energy + level_energy + field_energy",
}

OBSERVABLES = {
    observable.name: observable
    for observable in (
        *(
            Observable(name, (), name.replace("_", " "), definition, ENERGY_UNITS)
            for name, definition in _ENERGIES.items()
        ),
        Observable(
            "density",
            ("spin", "layer", "x"),
            "density per spin",
            "<n_{i,s}>, for each spin s",
            on_request=True,
        ),
        Observable(
            "double_occupancy",
            ("layer", "x"),
            "double occupancy",
            "<n_{i,up} n_{i,dn}>",
            on_request=True,
        ),
        Observable("magnetization", ("layer", "x"), "magnetization", "<S^z_i>"),
        Observable(
            "pair",
            TWO_POINT,
            "pair correlation",
            "<Delta+_i Delta_j>, Delta_i = c_{i,dn} c_{i,up}; diagonal = double_occupancy",
            fixed_on_site=("double_occupancy",),
            on_request=True,
            symbol=r"pair $|\langle\Delta^\dagger_i\Delta_j\rangle|$",
            fit_name="pair",
        ),
        Observable(
            "green",
            ("spin", *TWO_POINT),
            "equal-time Green function",
            "<c+_{i,s} c_{j,s}>, for each spin s",
            fixed_on_site=("density",),
            on_request=True,
            fit_name="green",
        ),
        Observable(
            "density_density",
            TWO_POINT,
            "connected density correlation",
            "<n_i n_j> - <n_i><n_j>, n = n_up + n_dn",
            fixed_on_site=("density", "double_occupancy"),
            on_request=True,
            symbol=r"density $|\langle n_in_j\rangle_c|$",
            fit_name="density",
        ),
        Observable(
            "spin_spin",
            TWO_POINT,
            "spin correlation",
            "<S^z_i S^z_j>",
            fixed_on_site=("density", "double_occupancy"),
            on_request=True,
            symbol=r"longitudinal spin $|\langle S^z_iS^z_j\rangle|$",
        ),
        Observable(
            "spin_flip",
            TWO_POINT,
            "transverse spin correlation",
            "<S^+_i S^-_j>, S^+_i = c+_{i,up} c_{i,dn}",
            fixed_on_site=("density", "double_occupancy"),
            on_request=True,
            symbol=r"transverse spin $|\langle S^+_iS^-_j\rangle|$",
        ),
        Observable(
            "pair_susceptibility",
            TWO_POINT,
            "pair susceptibility",
            "integral over tau from 0 to beta of <Delta+_i(tau) Delta_j(0)>",
            INVERSE_ENERGY_UNITS,
            extra=True,
        ),
        Observable(
            "entanglement_entropy",
            (CUT,),
            "entanglement entropy",
            "-Tr rho ln rho of the first `cut` sites, counted rung by rung (P 0, M 0, P 1, ...)",
            extra=True,
        ),
        Observable(
            "spin_flip_susceptibility",
            TWO_POINT,
            "transverse spin susceptibility",
            "integral over tau from 0 to beta of <S^+_i(tau) S^-_j(0)>",
            INVERSE_ENERGY_UNITS,
            extra=True,
        ),
    )
}

#: What is in a dataset only if its model file asked for it; energies cost nothing.
OPTIONAL = frozenset(name for name, one in OBSERVABLES.items() if one.on_request)
#: What one method has and others have not.
EXTRAS = frozenset(name for name, one in OBSERVABLES.items() if one.extra)
#: Name of a fit -> the observable that it is made of, in the order of tables; with spins last.
FITTED = {
    one.fit_name: name
    for name, one in sorted(OBSERVABLES.items(), key=lambda item: "spin" in item[1].dims)
    if one.fit_name
}
