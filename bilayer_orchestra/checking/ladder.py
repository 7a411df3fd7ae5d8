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

from bilayer_orchestra.checking.sectors import Level, Placement, with_beta
from bilayer_orchestra.dataset.reading import density_product
from bilayer_orchestra.engines.base import Engine, Request, Sampling
from bilayer_orchestra.model.spec import Model, stored_model
from bilayer_orchestra.observables import OBSERVABLES
from bilayer_orchestra.terms import GrandCanonical

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
    out_of_reach: str = ""

    def describe(self) -> list[str]:
        """Return what was decided, line by line."""
        lines = []
        if self.placement is not None:
            chosen, (first, cost) = self.placement, self.placement.smallest
            lines.append(
                f"chemical potentials: all raised by mu = {chosen.mu:g}, which selects "
                f"{chosen.wanted.sector} between {chosen.lower:.4f} and {chosen.upper:.4f}"
            )
            lines.append(
                f"lowest excitation: {cost:.4g} ({first}); below {100 * RESIDUAL:g} % of other "
                f"states from beta = {chosen.needed_beta(RESIDUAL):.4g}"
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
    placement : Placement
        The chemical potentials.
    stochastic : sequence of Engine
        Monte Carlo engines whose imaginary-time steps have to fit.
    needed_by : Engine or None
        The one of them that alone reaches these sites, so that its cost counts.
    """
    top = needed = placement.needed_beta(RESIDUAL)
    first, cost = placement.smallest
    scale = model.terms().energy_scale
    if not needed * scale <= LONGEST:
        what = "needs" if np.isfinite(needed) else "would need"
        return Ladder(
            (),
            placement,
            f"the lowest excitation ({first}) costs {cost:.2g}, the gap within the sector is "
            f"{placement.wanted.gap:.2g}: this {what} beta = {needed:.3g}; "
            f"beyond {LONGEST / scale:.3g} nothing is tried, and nothing is extrapolated from "
            "higher temperatures",
        )
    for engine in stochastic:
        top = engine.round_time(model.settings(engine.name), top)
    rungs = []
    for beta in (top / 4, top / 2, top):
        thermal, sampling = with_beta(model, beta, placement.mu), None
        if needed_by is not None:
            settings = thermal.settings(needed_by.name)
            request = Request(thermal.terms(), thermal.measured(), settings, thermal.name)
            sampling = needed_by.sampling(request)
        rungs.append(Rung(beta, thermal, sampling, placement.residual(beta)))
    if needed_by is not None and sampling is not None and sampling.sweeps < FEWEST_SWEEPS:
        return Ladder(
            (),
            placement,
            f"beta = {top:g} costs {sampling.seconds:.2g} s per sweep, {sampling.sweeps:.0f} "
            f"sweeps in the time budget, {FEWEST_SWEEPS} needed (raise numerics.{needed_by.name})",
        )
    return Ladder(tuple(rungs), placement)


def projection_time(model: Model, engine: Engine, gap: float) -> float | None:
    """Return the projection time that leaves UNPROJECTED of the next level; None if out of reach.

    Never shorter than what the model file asks for.

    Parameters
    ----------
    model : Model
        What is solved.
    engine : Engine
        One that projects; its settings say what is asked for.
    gap : float
        Distance to the next level of the sector, in units of energy.

    Returns
    -------
    float or None
        In 1/energy.
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
    """Return, per observable, what the limit may still differ from the colder result.

    Parameters
    ----------
    colder, warmer : Dataset
        The results on the last two rungs.
    gap : float
        The lowest excitation of all, in units of energy.
    """
    states = [stored_model(dataset.attrs["model"]).terms().state for dataset in (colder, warmer)]
    cold, warm = (state.beta for state in states if isinstance(state, GrandCanonical))
    left = math.exp(-(cold - warm) * gap)
    changes = _differences(_present(colder), _present(warmer))
    return {name: left / (1.0 - left) * change for name, change in changes.items()}


def sector_term(
    placement: Placement,
    results: dict[tuple[int, int], xr.Dataset],
    beta: float,
) -> dict[str, xr.DataArray]:
    """Return, per observable, what the other sectors' ground states change at ``beta``.

    Excited states of the wanted sector are the temperature's, not another sector's.

    Parameters
    ----------
    placement : Placement
        The sectors, at the chemical potentials of the thermal state.
    results : dict
        (n_up, n_down), n_up >= n_down -> ground state.
    beta : float
        Inverse temperature.
    """

    def averages(level: Level) -> xr.Dataset:
        result = results[max(level[:2]), min(level[:2])]
        raw = _with_product(_present(result), 1.0)
        if level.n_up < level.n_down and "spin" in raw.dims:  # the mirror image was solved
            return raw.isel(spin=slice(None, None, -1)).assign_coords(spin=raw["spin"])
        return raw

    weights, own = placement.weights(beta), averages(placement.wanted)
    norm = 1.0 + sum(weights.values())
    mixed = own
    for level in placement.others:
        mixed = mixed + weights[level.sector] / norm * (averages(level) - own)
    return _differences(_with_product(mixed, -1.0), _with_product(own, -1.0))


def projection_term(dataset: xr.Dataset, theta: float, gap: float) -> dict[str, xr.DataArray]:
    """Return, per observable, what a projection of this length may have left of the next level.

    The amplitude exp(-theta gap), times the typical size of the observable: the overlap with the
    next level is not known and taken to be one. If all chemical potentials are equal the energy is
    stationary: there it is the square.

    Parameters
    ----------
    dataset : Dataset
        The projected result.
    theta : float
        Projection time, in 1/energy.
    gap : float
        Distance to the next level, in units of energy.
    """
    amplitude = math.exp(-theta * gap)
    potential = stored_model(dataset.attrs["model"]).terms().chemical_potential
    stationary = float(np.ptp(potential)) == 0.0
    return {
        str(name): xr.full_like(
            values,
            (amplitude**2 if name == "energy" and stationary else amplitude) * _typical(values),
        )
        for name, values in _present(dataset).items()
    }


def _present(dataset: xr.Dataset) -> xr.Dataset:
    """Return the observables of a result without what belongs to them."""
    return dataset[[name for name in OBSERVABLES if name in dataset]]


def _with_product(averages: xr.Dataset, sign: float) -> xr.Dataset:
    """Add or remove ``<n_i><n_j>``: averages mix linearly, their connected parts do not."""
    if not {"density", "density_density"} <= set(averages):
        return averages.drop_vars("density_density", errors="ignore")
    product = density_product(averages["density"])
    return averages.assign(density_density=averages["density_density"] + sign * product)


def _typical(array: xr.DataArray) -> float:
    return float(np.sqrt((array**2).mean()))


def _differences(one: xr.Dataset, other: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return the sizes of the differences, raised to what is typical of the observable.

    A change that is small by chance, since it crosses zero, is not one that ended.
    """
    changes = abs(one - other)
    return {str(name): change.clip(min=_typical(change)) for name, change in changes.items()}
