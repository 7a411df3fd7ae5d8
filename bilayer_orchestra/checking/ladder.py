"""The ladder of temperatures on which a thermal state is followed to a ground state.

Which sector the limit T -> 0 is, is decided by the chemical potentials (see
:mod:`bilayer_orchestra.checking.sectors`); how low T must go, by the lowest excitation of all:
within the sector, or into another one. No curve is fitted through the rungs. The lowest rung stands
for the limit, and what may be missing is added as two named errors:

``temperature``
    What the last halving of T changed, times r / (1 - r) with r = exp(-(beta_2 - beta_1) gap): the
    rest of an approach that is exponential with the known gap. Slower parts do not exist, faster
    ones leave less.
``other sectors``
    What the known ground states of the other sectors mix in with their Boltzmann weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from bilayer_orchestra.checking.sectors import Placement, with_beta
from bilayer_orchestra.engines.base import Engine, Request, Sampling
from bilayer_orchestra.model.load import stored_model
from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.observables import OBSERVABLES

#: Weight of everything but the wanted level at the lowest temperature.
RESIDUAL = 0.01
#: Longest imaginary time, in units of 1 / largest hopping or interaction energy, that is tried.
LONGEST = 200.0
#: Sweeps, all chains and time steps, below which Monte Carlo gives no error bars worth having.
FEWEST_SWEEPS = 2000
#: What a projected state may contain of the next level: exp(-theta gap).
UNPROJECTED = 1e-3


@dataclass(frozen=True)
class Rung:
    """One temperature: the model to solve and what Monte Carlo would pay for it."""

    beta: float
    model: Model
    sampling: Sampling | None
    residual: float


@dataclass(frozen=True)
class Ladder:
    """The rungs, lowest temperature last, or the reason why T -> 0 is out of reach."""

    rungs: tuple[Rung, ...]
    placement: Placement | None
    needed_beta: float
    out_of_reach: str = ""

    def describe(self) -> list[str]:
        """Return what was decided, line by line."""
        lines = []
        if self.placement is not None:
            place, (first, cost) = self.placement, self.placement.smallest
            lines.append(
                f"chemical potentials: all raised by mu = {place.mu:g}, which selects "
                f"({place.wanted.n_up}, {place.wanted.n_down}) between {place.lower:.4f} and "
                f"{place.upper:.4f}"
            )
            lines.append(
                f"lowest excitation: {cost:.4g} ({first}); below {100 * RESIDUAL:g} % of other "
                f"states from beta = {self.needed_beta:.4g}"
            )
        if self.out_of_reach:
            lines.append(f"T -> 0 is out of reach: {self.out_of_reach}")
        lines += [
            f"beta = {rung.beta:g}: other states weigh {rung.residual:.2g}"
            + (f", about {rung.sampling.seconds:.2g} s per sweep" if rung.sampling else "")
            for rung in self.rungs
        ]
        return lines


def plan_ladder(
    model: Model,
    placement: Placement,
    stochastic: Sequence[Engine],
    needed_by: Engine | None,
) -> Ladder:
    """Return the rungs that lead to the sector of ``placement``.

    Parameters
    ----------
    model : Model
        Canonical; its numerics decide what Monte Carlo can afford.
    stochastic : sequence of Engine
        Monte Carlo engines whose imaginary-time steps have to fit.
    needed_by : Engine or None
        The one of them that alone reaches these sites, so that its cost counts.
    """
    needed = placement.needed_beta(RESIDUAL)
    first, cost = placement.smallest
    scale = model.terms().energy_scale
    if not needed * scale <= LONGEST:
        what = "needs" if np.isfinite(needed) else "would need"
        return Ladder(
            (),
            placement,
            needed,
            f"the lowest excitation ({first}) costs {cost:.2g}, the gap within the sector is "
            f"{placement.wanted.gap:.2g}: this {what} beta = {needed:.3g}; "
            f"beyond {LONGEST / scale:.3g} nothing is tried, and nothing is extrapolated from "
            "higher temperatures",
        )
    top = needed
    for engine in stochastic:
        top = engine.round_time(model.settings(engine.name), top)
    betas = (top / 4, top / 2, top)
    rungs = tuple(
        Rung(
            beta,
            with_beta(model, beta, placement.mu),
            _sampling(with_beta(model, beta, placement.mu), needed_by),
            placement.residual(beta),
        )
        for beta in betas
    )
    sampling = rungs[-1].sampling
    if sampling is not None and sampling.sweeps < FEWEST_SWEEPS:
        assert needed_by is not None
        return Ladder(
            (),
            placement,
            needed,
            f"beta = {top:g} costs {sampling.seconds:.2g} s per sweep, {sampling.sweeps:.0f} "
            f"sweeps in the time budget, {FEWEST_SWEEPS} needed (raise numerics.{needed_by.name})",
        )
    return Ladder(rungs, placement, needed)


def projection_time(model: Model, engine: Engine, gap: float) -> float | None:
    """Return the projection time that leaves UNPROJECTED of the next level; None if out of reach.

    Never shorter than what the model file asks for.
    """
    settings = model.settings(engine.name)
    asked = engine.projection_time(settings)
    assert asked is not None
    if not gap > 0:
        return None
    needed = max(math.log(1.0 / UNPROJECTED) / gap, asked)
    if needed * model.terms().energy_scale > max(LONGEST, asked):
        return None
    return asked if needed == asked else engine.round_time(settings, needed)


def temperature_term(colder: xr.Dataset, warmer: xr.Dataset, gap: float) -> dict[str, xr.DataArray]:
    """Return, per observable, what the limit may still differ from the colder result."""
    beta = [_beta(dataset) for dataset in (warmer, colder)]
    factor = math.exp(-(beta[1] - beta[0]) * gap)
    rest = factor / (1.0 - factor)
    terms = {}
    for name in OBSERVABLES:
        if name in colder and name in warmer:
            change = abs(colder[name] - warmer[name])
            terms[name] = rest * _at_least_typical(change)
    return terms


def sector_term(
    placement: Placement,
    results: dict[tuple[int, int], xr.Dataset],
    beta: float,
) -> dict[str, xr.DataArray]:
    """Return, per observable, what the other sectors' ground states change at ``beta``.

    Parameters
    ----------
    results : dict
        (n_up, n_down), n_up >= n_down -> ground state.
    """
    wanted = (placement.wanted.n_up, placement.wanted.n_down)
    own = raw_averages(results[(max(wanted), min(wanted))])
    weights = placement.weights(beta)
    norm = 1.0 + sum(weights.values())
    mixed = {name: (1.0 / norm) * value for name, value in own.items()}
    used = 1.0 / norm
    for level in placement.others:
        weight = weights[f"({level.n_up}, {level.n_down})"] / norm
        there = raw_averages(results[(max(level[:2]), min(level[:2]))])
        mirrored = level.n_up < level.n_down
        for name, sum_so_far in mixed.items():
            value = there[name]
            if mirrored and "spin" in value.dims:
                value = value.isel(spin=slice(None, None, -1)).assign_coords(spin=value["spin"])
            mixed[name] = sum_so_far + weight * value
        used += weight
    # excited states of the wanted sector are the temperature's, not another sector's
    mixed = {name: value + (1.0 - used) * own[name] for name, value in mixed.items()}
    before, after = _connected(own), _connected(mixed)
    return {name: _at_least_typical(abs(after[name] - before[name])) for name in before}


def projection_term(dataset: xr.Dataset, theta: float, gap: float) -> dict[str, xr.DataArray]:
    """Return, per observable, what a projection of this length may have left of the next level.

    The amplitude exp(-theta gap), times the typical size of the observable: the overlap with the
    next level is not known and taken to be one. If all chemical potentials are equal the energy is
    stationary: there it is the square.
    """
    amplitude = math.exp(-theta * gap)
    potential = stored_model(dataset.attrs["model"]).terms().chemical_potential
    stationary = float(np.ptp(potential)) == 0.0
    return {
        name: xr.full_like(
            dataset[name],
            (amplitude**2 if name == "energy" and stationary else amplitude)
            * _typical(dataset[name]),
        )
        for name in OBSERVABLES
        if name in dataset
    }


def raw_averages(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return the observables that mix linearly: ``<n_i n_j>`` instead of its connected part."""
    averages = {name: dataset[name] for name in OBSERVABLES if name in dataset}
    if "density_density" in averages and "density" in averages:
        averages["density_density"] = averages["density_density"] + _product(averages["density"])
    else:
        averages.pop("density_density", None)
    return averages


def _connected(averages: dict[str, xr.DataArray]) -> dict[str, xr.DataArray]:
    if "density_density" not in averages:
        return averages
    connected = averages["density_density"] - _product(averages["density"])
    return averages | {"density_density": connected}


def _product(density: xr.DataArray) -> xr.DataArray:
    total = density.sum("spin")
    return total * total.rename({"layer": "layer_", "x": "x_"})


def _beta(dataset: xr.Dataset) -> float:
    state = stored_model(dataset.attrs["model"]).state
    assert hasattr(state, "beta")
    return float(state.beta)


def _typical(array: xr.DataArray) -> float:
    return float(np.sqrt((array**2).mean()))


def _at_least_typical(change: xr.DataArray) -> xr.DataArray:
    """Raise what is small by chance: a change that crosses zero is not one that ended."""
    return change.clip(min=_typical(change))


def _sampling(model: Model, engine: Engine | None) -> Sampling | None:
    if engine is None:
        return None
    settings = model.settings(engine.name)
    return engine.sampling(Request(model.terms(), model.measured(), settings, model.name))
