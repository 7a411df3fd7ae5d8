"""From a DMRG engine's stages to averages, and the verdict on its convergence.

Shared by all DMRG backends: the engines leave the same arrays (stage, ...) in ``output.npz``.
"""

import numpy as np

from bilayer_orchestra.analysis.estimates import at_least_common
from bilayer_orchestra.analysis.truncation import extrapolate
from bilayer_orchestra.averages import Averages, observables_from_raw
from bilayer_orchestra.engine_side.dmrg import LOWER_PER_WEIGHT
from bilayer_orchestra.engines.dmrg.settings import DMRGNumerics
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


class _Search:
    """A finished search: what it left, with energies in the units of the model.

    Attributes
    ----------
    unit : float
        Unit of energy of the accuracies.
    proof : int
        The stage that the other two starts are compared with.
    energy_bias : float
        Truncation error of <H - mu N>; NaN if it is not known.
    gap, resolution : float
        Distance to the next state, NaN without the proof; the smallest that is told from zero.
    variance, contamination : float
        <H^2> - <H>^2, and the weight that it leaves other states.
    scatter : float
        How much truncation explains that two energies differ by.
    missed, excess : float
        By how much a second start ended lower, beyond what truncation explains, else zero; by how
        much it ended higher than that stage.
    deviation : float
        Largest difference of its correlators.
    """

    def __init__(self, output: dict[str, FloatArray], terms: Terms, numerics: DMRGNumerics) -> None:
        self.numerics, self.unit = numerics, unit_of(terms)
        self.weights = output["discarded_weight"]
        self.weight, self.drift = float(self.weights[-1]), float(output["drift"][-1])
        self.bond = int(output["bond_dimension"][-1])
        self.proof = int(np.searchsorted(output["bond_dimension"], output["proof_bond_dimension"]))
        # numbers have one value per stage, averages of operators an array
        operators = [name for name, values in output.items() if values.ndim > 1]
        self.stages = [
            observables_from_raw({name: output[name][k] for name in operators}, terms)
            for k in range(len(self.weights))
        ]
        energies = output["energy_with_mu"] * self.unit
        second = float(output["second_energy"]) * self.unit
        above = float(output["orthogonal_energy"]) * self.unit
        self.energy_bias = float(extrapolate(self.weights, energies, variational=True).bias)
        self.gap = above - float(energies[self.proof])
        self.resolution = max(numerics.gap_resolution * self.unit, self.energy_bias)
        # its contraction is exact to rounding, which can also make it negative
        variance = max(abs(float(output["energy_variance"][-1])), VARIANCE_ROUNDING)
        self.variance = variance * self.unit**2
        self.contamination = self.variance / self.gap**2 if self.gap > 0 else np.inf
        truncation = abs(float(energies[self.proof] - energies[-1]))
        self.scatter = max(SAME_ENERGY * self.unit, 3 * truncation)
        lower = float(energies[-1]) - second
        explained = max(self.scatter, LOWER_PER_WEIGHT * self.weight * self.unit)
        self.missed = lower if lower > explained else 0.0
        self.excess = second - float(energies[self.proof])
        self.deviation = float(output["second_deviation"])


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
    search = _Search(output, terms, numerics)
    unit, gap, resolution, stages = search.unit, search.gap, search.resolution, search.stages
    # without the proof the gap is not known: then the smallest one that would be accepted
    left = UNSOLVED * unit / (resolution if np.isnan(gap) else max(gap, resolution))
    left = max(left, search.drift)
    values, bias = {}, {}
    for name in stages[0]:
        series = np.stack([stage[name] for stage in stages])
        values[name], size = extrapolate(search.weights, series, variational=name == "energy")
        one = unit if name.endswith("energy") else 1.0
        least = left * one + ROUNDING * max(one, float(np.abs(values[name]).max()))
        bias[name] = at_least_common(np.maximum(size, least))
    allowed = np.maximum(SAME_CORRELATORS, 3 * np.nan_to_num(bias["density"]))
    broken = _broken_symmetry(terms, values["density"], allowed)
    determined = np.isfinite(left) and not (gap <= resolution or broken or search.missed)
    if not determined:
        bias = {name: np.full(size.shape, np.nan) for name, size in bias.items()}
    of_energy, potential = max(search.energy_bias, search.missed), terms.chemical_potential
    if potential.any():
        moved = [np.sum(potential * stage["density"]) for stage in stages]
        of_energy += float(extrapolate(search.weights, np.array(moved)).bias)
        of_energy += left * float(np.abs(potential).sum()) if determined else np.nan
    bias["energy"] = np.maximum(of_energy, ROUNDING * max(unit, abs(float(values["energy"]))))
    converged, reason = _judge(search, broken)
    return Averages(
        values,
        bias,
        diagnostics={
            "energy_truncation": search.energy_bias,
            "energy_variance": search.variance,
            "discarded_weight": search.weight,
            "bond_dimension": search.bond,
            "gap": gap,
            "second_start_deviation": search.deviation,
        },
        converged=converged,
        reason=reason,
    )


def _judge(search: _Search, broken: float) -> tuple[bool, str]:
    """Return (converged, reason). All reasons against are listed.

    ``broken`` is by how much the density breaks a symmetry.
    """
    numerics, unit, bond, gap = search.numerics, search.unit, search.bond, search.gap
    weight, energy_bias, deviation = search.weight, search.energy_bias, search.deviation
    units = "" if unit == 1 else f" in units of {unit:.3g}"
    against: list[str] = []
    if not np.isfinite(search.drift):
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
    elif search.excess > search.scatter:
        against.append(f"a second start ended {search.excess:.1e} higher in energy")
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


def _broken_symmetry(terms: Terms, density: FloatArray, allowed: FloatArray) -> float:
    """Return by how much the density breaks a symmetry of H that it should have, or zero.

    A ground state that is the only one of its level has all of them. Two searches that freeze in
    the same pattern agree with each other, and the next state that they find may lie far above;
    their density gives them away. Looked at are the reflection x -> L - 1 - x, the translation
    x -> x + 1 of a ring, and isolated sites: they keep their electrons, and two of the same kind
    may be exchanged.

    Parameters
    ----------
    terms : Terms
        The model.
    density, allowed : array, shape (2, N)
        <n_is>, and the size of its error: deviations within the errors of both sites are none.
    """
    beyond = [0.0]
    place = {site: k for k, site in enumerate(terms.sites)}
    along = ((-1, terms.length - 1), (1, 1)) if "x" in terms.dims else ()
    for sign, shift in along:
        moved = [site._replace(x=(sign * site.x + shift) % terms.length) for site in terms.sites]
        order = [place.get(site, -1) for site in moved]
        if -1 not in order and _invariant(terms, order):
            difference = np.abs(density - density[:, order])
            beyond.extend(difference[difference > allowed + allowed[:, order]])
    kinds: dict[tuple[float, float], list[int]] = {}
    levels = terms.one_body.diagonal() - terms.chemical_potential
    for k in np.flatnonzero(~terms.hopping.any(axis=1)).tolist():
        kinds.setdefault((float(levels[k]), float(terms.interaction[k])), []).append(k)
    for sites in kinds.values():
        found = density[:, sites]
        difference = np.abs(found - np.round(found.mean(axis=1, keepdims=True)))
        beyond.extend(difference[difference > allowed[:, sites]])
    return float(max(beyond))


def _invariant(terms: Terms, order: list[int]) -> bool:
    moved = terms.permuted(order)
    return all(
        np.array_equal(getattr(moved, name), getattr(terms, name))
        for name in ("one_body", "interaction", "chemical_potential")
    )
