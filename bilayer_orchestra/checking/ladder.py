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

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from bilayer_orchestra.checking.sectors import Level, Placement, with_beta
from bilayer_orchestra.dataset.reading import density_product
from bilayer_orchestra.engines.base import Engine, Sampling
from bilayer_orchestra.model.spec import Model, stored_model
from bilayer_orchestra.observables import OBSERVABLES
from bilayer_orchestra.running.point import make_request

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


@dataclass(frozen=True)
class Ladder:
    """The rungs, lowest temperature last, or the reason why T -> 0 is out of reach."""

    placement: Placement | None = None
    rungs: tuple[Rung, ...] = ()
    out_of_reach: str = ""

    def describe(self) -> list[str]:
        """Return what was decided, line by line."""
        lines = [f"T -> 0 is out of reach: {self.out_of_reach}"] if self.out_of_reach else []
        if self.placement is None:
            return lines
        chosen, (first, cost) = self.placement, self.placement.smallest
        return [
            f"chemical potentials: all raised by mu = {chosen.mu:g}, which selects "
            f"{chosen.wanted.sector} between {chosen.lower:.4f} and {chosen.upper:.4f}",
            f"lowest excitation: {cost:.4g} ({first}); below {100 * RESIDUAL:g} % of other "
            f"states from beta = {chosen.needed_beta(RESIDUAL):.4g}",
            *lines,
            *(
                f"beta = {rung.beta:g}: other states weigh {chosen.residual(rung.beta):.2g}"
                + (f", about {rung.sampling.seconds:.2g} s per sweep" if rung.sampling else "")
                for rung in self.rungs
            ),
        ]


def plan_ladder(
    model: Model, placement: Placement, stochastic: Sequence[Engine], needed_by: Engine | None
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
    longest = LONGEST / model.terms().energy_scale
    if not needed <= longest:
        what = "needs" if np.isfinite(needed) else "would need"
        out_of_reach = (
            f"the lowest excitation ({first}) costs {cost:.2g}, the gap within the sector is "
            f"{placement.wanted.gap:.2g}: this {what} beta = {needed:.3g}; beyond {longest:.3g} "
            "nothing is tried, and nothing is extrapolated from higher temperatures"
        )
        return Ladder(placement, out_of_reach=out_of_reach)
    for engine in stochastic:
        top = engine.round_time(model.settings(engine.name), top)
    rungs = []
    for beta in (top / 4, top / 2, top):
        thermal = with_beta(model, beta, placement.mu)
        sampling = needed_by.sampling(make_request(thermal, needed_by)) if needed_by else None
        rungs.append(Rung(beta, thermal, sampling))
    if needed_by and sampling and sampling.sweeps < FEWEST_SWEEPS:
        out_of_reach = (
            f"beta = {top:g} costs {sampling.seconds:.2g} s per sweep, {sampling.sweeps:.0f} "
            f"sweeps in the time budget, {FEWEST_SWEEPS} needed (raise numerics.{needed_by.name})"
        )
        return Ladder(placement, out_of_reach=out_of_reach)
    return Ladder(placement, tuple(rungs))


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
        Distance to the next level of the sector, in units of energy; NaN if it is not known.

    Returns
    -------
    float or None
        In 1/energy.
    """
    settings = model.settings(engine.name)
    asked = engine.projection_time(settings)
    assert asked is not None
    if np.isnan(gap):
        return asked
    needed = max(math.log(1.0 / UNPROJECTED) / gap, asked) if gap > 0 else np.inf
    if needed * model.terms().energy_scale > max(LONGEST, asked):
        return None
    return asked if needed == asked else engine.round_time(settings, needed)


def limit_terms(
    by_beta: dict[float, xr.Dataset],
    placement: Placement,
    sectors: dict[tuple[int, int], xr.Dataset],
) -> dict[str, xr.Dataset]:
    """Return, per named error and observable, what the limit may differ from the coldest result.

    Excited states of the wanted sector are the temperature's, not another sector's.

    Parameters
    ----------
    by_beta : dict
        Inverse temperature, in 1/energy -> result of one engine; at least two.
    placement : Placement
        The sectors, at the chemical potentials of the thermal state.
    sectors : dict
        (n_up, n_down), n_up >= n_down -> ground state.
    """

    def averages(level: Level) -> xr.Dataset:
        result = sectors[max(level[:2]), min(level[:2])]
        raw = _with_product(_present(result), 1.0)
        if level.n_up < level.n_down and "spin" in raw.dims:  # the mirror image was solved
            return raw.isel(spin=slice(None, None, -1)).assign_coords(spin=raw["spin"])
        return raw

    *_, warmer, coldest = sorted(by_beta)
    left = math.exp(-(coldest - warmer) * placement.smallest[1])
    change = _differences(_present(by_beta[coldest]), _present(by_beta[warmer]))
    weights, own = placement.weights(coldest), averages(placement.wanted)
    norm = 1.0 + sum(weights.values())
    mixed = own
    for level in placement.others:
        mixed = mixed + weights[level.sector] / norm * (averages(level) - own)
    mixed = _differences(_with_product(mixed, -1.0), _with_product(own, -1.0))
    return {"temperature": left / (1.0 - left) * change, "other sectors": mixed}


def projection_term(dataset: xr.Dataset, theta: float, gap: float) -> xr.Dataset:
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
    left = _present(dataset).map(lambda one: xr.full_like(one, amplitude * _typical(one)))
    if "energy" in left and np.ptp(potential) == 0.0:
        left["energy"] *= amplitude
    return left


def _present(dataset: xr.Dataset) -> xr.Dataset:
    """Return the observables of a result without what belongs to them."""
    return dataset[[name for name in OBSERVABLES if name in dataset]]


def _with_product(averages: xr.Dataset, sign: float) -> xr.Dataset:
    """Add or remove ``<n_i><n_j>``: averages mix linearly, their connected parts do not."""
    if not {"density", "density_density"} <= set(averages):
        return averages.drop_vars("density_density", errors="ignore")
    product = density_product(averages["density"])
    return averages.assign(density_density=averages["density_density"] + sign * product)


def _differences(one: xr.Dataset, other: xr.Dataset) -> xr.Dataset:
    """Return the sizes of the differences, raised to what is typical of the observable.

    A change that is small by chance, since it crosses zero, is not one that ended.
    """
    return abs(one - other).map(lambda change: change.clip(min=_typical(change)))


def _typical(array: xr.DataArray) -> float:
    return float(np.sqrt((array**2).mean()))
