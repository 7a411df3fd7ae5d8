"""From a DMRG engine's stages to averages, and the verdict on its convergence.

Shared by all DMRG backends: the engines leave the same arrays (stage, ...) in ``output.npz``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilayer_orchestra.analysis.estimates import at_least_common
from bilayer_orchestra.analysis.truncation import extrapolate
from bilayer_orchestra.averages import Averages, observables_from_raw
from bilayer_orchestra.engine_side.dmrg import LOWER_PER_WEIGHT
from bilayer_orchestra.engines.dmrg.settings import DMRGNumerics
from bilayer_orchestra.engines.dmrg.symmetry import broken_symmetry
from bilayer_orchestra.terms import FloatArray, Terms

#: Weight of other states up to which the variance alone proves the state: <H^2> - <H>^2 over gap^2.
PROVEN_CONTAMINATION = 1e-3
#: Correlators of two starts may differ by this much, or by a multiple of what truncation explains.
SAME_CORRELATORS = 1e-3
#: Energies of two starts may differ by this much, or by a multiple of what truncation explains.
SAME_ENERGY = 1e-6
#: What the local solver leaves undone, in energy: over the gap it is an error of every correlator.
#: Measured: docs/decisions/0005.
UNSOLVED = 2e-11
#: Rounding, in units of the largest value or of one. Measured as well.
ROUNDING = 1e-12
#: Smallest variance that double precision resolves for energies of order 10 to 1000.
VARIANCE_ROUNDING = 1e-12

#: Smallest unit of energy, in units of the largest level.
RESOLVED = 1e-9
#: What engines measure in their own units of energy, and in which power of it.
_ENERGIES = {
    "energy_with_mu": 1,
    "second_energy": 1,
    "orthogonal_energy": 1,
    "energy_variance": 2,
}
_OPERATORS = (
    "green",
    "double_occupancy",
    "pair",
    "density_product",
    "spin_spin",
    "entanglement_entropy",
)


def unit_of(terms: Terms) -> float:
    """Return the unit of energy in which a DMRG computes: the model's own scale.

    Its thresholds then mean the same for every unit that a model is written in. What is smaller
    than :data:`RESOLVED` of the largest level is lost in the rounding of the energy.
    """
    levels = np.abs(terms.one_body.diagonal() - terms.chemical_potential)
    return max(terms.energy_scale, RESOLVED * float(levels.max()))


def in_own_units(terms: Terms) -> Terms:
    """Return the model as a DMRG gets it; see :func:`unit_of`."""
    return terms.in_units(unit_of(terms))


@dataclass(frozen=True)
class _Search:
    """A finished search: what it left, and what follows from that.

    Parameters
    ----------
    output : dict
        Arrays of :func:`averages_from_stages`, energies in the units of the model.
    stages : list of dict
        All observables at every bond dimension.
    proof : int
        The stage that the other two starts are compared with.
    unit : float
        Unit of energy of the accuracies.
    numerics : DMRGNumerics
        What was asked for.
    energy_bias : float
        Truncation error of <H - mu N>; NaN if it is not known.
    """

    output: dict[str, FloatArray]
    stages: list[dict[str, FloatArray]]
    proof: int
    unit: float
    numerics: DMRGNumerics
    energy_bias: float

    def last(self, name: str) -> float:
        """Return a number of the last stage."""
        return float(self.output[name][-1])

    @property
    def bond(self) -> int:
        """Largest bond dimension."""
        return int(self.last("bond_dimension"))

    @property
    def energies(self) -> FloatArray:
        """<H - mu N> of every stage."""
        return self.output["energy_with_mu"]

    @property
    def gap(self) -> float:
        """Distance to the next state; NaN without the proof."""
        return float(self.output["orthogonal_energy"] - self.energies[self.proof])

    @property
    def resolution(self) -> float:
        """The smallest gap that is told from zero."""
        return max(self.numerics.gap_resolution * self.unit, self.energy_bias)

    @property
    def variance(self) -> float:
        """<H^2> - <H>^2; its contraction is exact to rounding, which can also make it negative."""
        return max(abs(self.last("energy_variance")), VARIANCE_ROUNDING * self.unit**2)

    @property
    def contamination(self) -> float:
        """Weight that the variance leaves other states."""
        return self.variance / self.gap**2 if self.gap > 0 else np.inf

    @property
    def scatter(self) -> float:
        """How much truncation explains that two energies differ by."""
        truncation = abs(float(self.energies[self.proof] - self.energies[-1]))
        return max(SAME_ENERGY * self.unit, 3 * truncation)

    @property
    def missed(self) -> float:
        """By how much a second start ended lower, beyond what truncation explains; else zero."""
        lower = float(self.energies[-1] - self.output["second_energy"])
        scatter = LOWER_PER_WEIGHT * self.last("discarded_weight") * self.unit
        return lower if lower > max(self.scatter, scatter) else 0.0


def averages_from_stages(
    output: dict[str, FloatArray], terms: Terms, numerics: DMRGNumerics
) -> Averages:
    """Extrapolate every observable in the discarded weight and judge the convergence.

    Parameters
    ----------
    output : dict
        Energies are in units of :func:`unit_of`, like the accuracies of ``numerics``. Per
        stage: ``bond_dimension``, ``discarded_weight``, ``energy_with_mu``,
        ``energy_variance``, ``drift`` (largest change of a correlator over the last sweep, infinite
        if it did not settle) and the operator averages. Once: ``second_energy``,
        ``second_deviation``, ``orthogonal_energy``, ``proof_bond_dimension``.
    terms : Terms
        The model, in its own units.
    numerics : DMRGNumerics
        What was asked for.

    Notes
    -----
    The bias of an element is the largest of its extrapolation's, the drift, and what solver and
    rounding leave, and no smaller than what all elements have in common. It is NaN, not estimated,
    with one stage, where the last one did not settle, and where the state is not determined or not
    the ground state. <H - mu N> has errors of second order; those of mu N, which the energy is
    without, are of first order like those of correlators.
    """
    unit = unit_of(terms)
    output = output | {name: output[name] * unit**power for name, power in _ENERGIES.items()}
    weights = output["discarded_weight"]
    stages = [
        observables_from_raw(
            {name: output[name][k] for name in _OPERATORS if name in output}, terms
        )
        for k in range(len(weights))
    ]
    energy_bias = float(extrapolate(weights, output["energy_with_mu"], variational=True).bias)
    proof = int(np.searchsorted(output["bond_dimension"], output["proof_bond_dimension"]))
    search = _Search(output, stages, proof, unit, numerics, energy_bias)
    gap, resolution = search.gap, search.resolution
    # without the proof the gap is not known: then the smallest one that would be accepted
    left = UNSOLVED * unit / (resolution if np.isnan(gap) else max(gap, resolution))
    left = max(left, search.last("drift"))
    values, bias = {}, {}
    for name in stages[0]:
        series = np.stack([stage[name] for stage in stages])
        values[name], size = extrapolate(weights, series, variational=name == "energy")
        one = unit if name.endswith("energy") else 1.0
        least = left * one + ROUNDING * max(one, float(np.abs(values[name]).max()))
        bias[name] = at_least_common(np.maximum(size, least))
    allowed = np.maximum(SAME_CORRELATORS, 3 * np.nan_to_num(bias["density"]))
    broken = broken_symmetry(terms, values["density"], allowed)
    determined = np.isfinite(left) and not (gap <= resolution or broken or search.missed)
    if not determined:
        bias = {name: np.full(size.shape, np.nan) for name, size in bias.items()}
    of_energy, potential = max(energy_bias, search.missed), terms.chemical_potential
    if potential.any():
        moved = [np.sum(potential * stage["density"]) for stage in stages]
        of_energy += float(extrapolate(weights, np.array(moved)).bias)
        of_energy += left * float(np.abs(potential).sum()) if determined else np.nan
    bias["energy"] = np.maximum(of_energy, ROUNDING * max(unit, abs(float(values["energy"]))))
    converged, reason = _judge(search, broken)
    return Averages(
        values,
        bias,
        diagnostics={
            "energy_truncation": energy_bias,
            "energy_variance": search.variance,
            "discarded_weight": search.last("discarded_weight"),
            "bond_dimension": search.bond,
            "gap": gap,
            "second_start_deviation": float(output["second_deviation"]),
        },
        converged=converged,
        reason=reason,
    )


def _judge(search: _Search, broken: float) -> tuple[bool, str]:
    """Return (converged, reason). All reasons against are listed.

    ``broken`` is by how much the density breaks a symmetry.
    """
    numerics, unit, bond, gap = search.numerics, search.unit, search.bond, search.gap
    weight, energy_bias = search.last("discarded_weight"), search.energy_bias
    units = "" if unit == 1 else f" in units of {unit:.3g}"
    against: list[str] = []
    if not np.isfinite(search.last("drift")):
        against.append(
            f"energy or correlators still changed after {numerics.max_sweeps_per_stage} sweeps at "
            f"bond dimension {bond} (raise max_sweeps_per_stage)"
        )
    if weight > numerics.discarded_weight and np.isnan(energy_bias):
        against.append(
            f"one bond dimension, {bond}, does not tell what its truncation (discarded weight "
            f"{weight:.1e}) does to the energy (raise max_bond_dimension)"
        )
    elif weight > numerics.discarded_weight and not energy_bias <= numerics.energy_accuracy * unit:
        against.append(
            f"truncation at bond dimension {bond} shifts the energy by {energy_bias:.1e}, more "
            f"than energy_accuracy = {numerics.energy_accuracy:.0e}{units} "
            "(raise max_bond_dimension)"
        )
    reference, last = search.stages[search.proof], search.stages[-1]
    drift = max(float(np.abs(reference[name] - last[name]).max()) for name in ("pair", "green"))
    excess = float(search.output["second_energy"] - search.energies[search.proof])
    deviation = float(search.output["second_deviation"])
    unproven = search.contamination > PROVEN_CONTAMINATION
    if np.isnan(gap):
        against.append("not proven: `proof` is off in the numerics")
    elif gap <= search.resolution:
        against.append(
            f"the next state of the same sector lies {max(gap, 0.0):.1e} above, closer than "
            + (
                f"gap_resolution = {numerics.gap_resolution:.0e}{units}"
                if gap <= numerics.gap_resolution * unit
                else f"truncation resolves ({energy_bias:.1e}; raise max_bond_dimension)"
            )
            + ": the energy holds, correlators are not determined"
        )
    elif broken:
        against.append(
            f"the density breaks a symmetry of H by {broken:.2g}: the ground level is degenerate, "
            "or the search froze (is t_perp zero?); correlators are not determined"
        )
    elif search.missed:
        against.append(
            f"a second start ended {search.missed:.1e} lower in energy: this is not the ground "
            "state (take another seed, or raise max_bond_dimension)"
        )
    elif excess > search.scatter:
        against.append(f"a second start ended {excess:.1e} higher in energy")
    elif deviation > max(SAME_CORRELATORS, 3 * drift) and unproven:
        against.append(
            f"a second start found the same energy but correlators that differ by {deviation:.1e}"
        )
    if against:
        return False, "; ".join(against)
    proof_text = (
        f"a second start agrees within {deviation:.1e}"
        if unproven
        else f"variance {search.variance:.1e} leaves other states a weight below "
        f"{search.contamination:.1e}"
    )
    return True, (
        f"discarded weight {weight:.1e} at bond dimension {bond}; {proof_text}; gap {gap:.2e}"
    )
