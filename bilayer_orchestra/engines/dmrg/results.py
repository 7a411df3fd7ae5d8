"""From a DMRG engine's stages to averages, and the verdict on its convergence.

Shared by all DMRG backends: the engines leave the same arrays (stage, ...) in ``output.npz``.
"""

from __future__ import annotations

import numpy as np

from bilayer_orchestra.analysis.common import at_least_common
from bilayer_orchestra.analysis.truncation import extrapolate
from bilayer_orchestra.averages import Averages, observables_from_raw
from bilayer_orchestra.engines.dmrg.settings import DMRGNumerics
from bilayer_orchestra.engines.dmrg.symmetry import broken_symmetry
from bilayer_orchestra.terms import FloatArray, Terms

#: Weight of other states up to which the variance alone proves the state: <H^2> - <H>^2 over gap^2.
PROVEN_CONTAMINATION = 1e-3
#: Correlators of two starts may differ by this much, or by a multiple of what truncation explains.
SAME_CORRELATORS = 1e-3
#: What the local solver leaves undone, in energy: over the gap it is an error of every correlator.
#: And rounding, in units of the largest value or of one. Measured: docs/decisions/0005.
UNSOLVED, ROUNDING = 2e-11, 1e-12

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

    Notes
    -----
    The bias of an element is the largest of its extrapolation's, the drift, and what solver and
    rounding leave, and no smaller than what all elements have in common. It is NaN, not estimated,
    with one stage, where the last one did not settle, and where the state is not determined.
    <H - mu N> has errors of second order; those of mu N, which the energy is without, are of first
    order like those of correlators.
    """
    unit = unit_of(terms)
    output = output | {name: output[name] * unit**power for name, power in _ENERGIES.items()}
    weights, energies = output["discarded_weight"], output["energy_with_mu"]
    per_stage = [
        observables_from_raw(
            {name: output[name][k] for name in _OPERATORS if name in output}, terms
        )
        for k in range(len(weights))
    ]
    energy_bias = float(extrapolate(weights, energies, variational=True).bias)
    proof = int(np.searchsorted(output["bond_dimension"], output["proof_bond_dimension"]))
    gap = float(output["orthogonal_energy"] - energies[proof])
    resolution = max(numerics.gap_resolution * unit, energy_bias)
    # without the proof the gap is not known: then the smallest one that would be accepted
    left = UNSOLVED * unit / (resolution if np.isnan(gap) else max(gap, resolution))
    left = max(left, output["drift"][-1])
    values, bias = {}, {}
    for name in per_stage[0]:
        stages = np.stack([stage[name] for stage in per_stage])
        values[name], size = extrapolate(weights, stages, variational=name == "energy")
        one = unit if name.endswith("energy") else 1.0
        least = left * one + ROUNDING * max(one, float(np.abs(values[name]).max()))
        bias[name] = at_least_common(np.maximum(size, least))
    allowed = np.maximum(SAME_CORRELATORS, 3 * np.nan_to_num(bias["density"]))
    broken = broken_symmetry(terms, values["density"], allowed)
    determined = bool(np.isfinite(left)) and not gap <= resolution and not broken
    if not determined:
        bias = {name: np.full(size.shape, np.nan) for name, size in bias.items()}
    of_energy, potential = energy_bias, terms.chemical_potential
    if potential.any():
        moved = [np.sum(potential * stage["density"]) for stage in per_stage]
        of_energy += float(extrapolate(weights, np.array(moved)).bias)
        of_energy += left * float(np.abs(potential).sum()) if determined else np.nan
    bias["energy"] = np.maximum(of_energy, ROUNDING * max(unit, abs(float(values["energy"]))))
    # the contraction of (H - E)^2 is exact to rounding, which can also make it negative
    variance = max(abs(float(output["energy_variance"][-1])), VARIANCE_ROUNDING * unit**2)
    deviation = float(output["second_deviation"])
    converged, reason = _judge(
        output, numerics, unit, per_stage, proof, gap, variance, energy_bias, broken
    )
    return Averages(
        values,
        bias,
        diagnostics={
            "energy_truncation": energy_bias,
            "energy_variance": variance,
            "discarded_weight": float(weights[-1]),
            "bond_dimension": int(output["bond_dimension"][-1]),
            "gap": gap,
            "second_start_deviation": deviation,
        },
        converged=converged,
        reason=reason,
    )


def _judge(
    output: dict[str, FloatArray],
    numerics: DMRGNumerics,
    unit: float,
    per_stage: list[dict[str, FloatArray]],
    proof: int,
    gap: float,
    variance: float,
    energy_bias: float,
    broken: float,
) -> tuple[bool, str]:
    """Return (converged, reason). All reasons against are listed."""
    against: list[str] = []
    bond = int(output["bond_dimension"][-1])
    weight = float(output["discarded_weight"][-1])
    energies = output["energy_with_mu"]
    units = "" if unit == 1 else f" in units of {unit:.3g}"
    if not np.isfinite(output["drift"][-1]):
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
    drift = max(
        float(np.abs(per_stage[proof][name] - per_stage[-1][name]).max())
        for name in ("pair", "green")
    )
    truncation = abs(float(energies[proof] - energies[-1]))
    excess = float(output["second_energy"] - energies[proof])
    deviation = float(output["second_deviation"])
    contamination = variance / gap**2 if gap > 0 else np.inf
    if np.isnan(gap):
        against.append("not proven: `proof` is off in the numerics")
    elif gap <= max(numerics.gap_resolution * unit, energy_bias):
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
    elif excess > max(1e-6 * unit, 3 * truncation):
        against.append(f"a second start ended {excess:.1e} higher in energy")
    elif deviation > max(SAME_CORRELATORS, 3 * drift) and contamination > PROVEN_CONTAMINATION:
        against.append(
            f"a second start found the same energy but correlators that differ by {deviation:.1e}"
        )
    if against:
        return False, "; ".join(against)
    proof_text = (
        f"variance {variance:.1e} leaves other states a weight below {contamination:.1e}"
        if contamination <= PROVEN_CONTAMINATION
        else f"a second start agrees within {deviation:.1e}"
    )
    return True, (
        f"discarded weight {weight:.1e} at bond dimension {bond}; {proof_text}; gap {gap:.2e}"
    )
