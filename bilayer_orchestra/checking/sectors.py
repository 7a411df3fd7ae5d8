"""Chemical potentials that select one particle-number sector, and what other sectors still weigh.

A grand-canonical state goes over into the ground state of the sector (n_up, n_down) as T -> 0 if
that sector has the lowest E - mu N of all. With E the lowest energy of each sector, the model's own
layer potentials included, and one common shift mu on top of them:

    E(s) - E(wanted) - mu (N_s - N_wanted) > 0   for every other sector s.

Attraction makes odd particle numbers costly, so that pairs usually bound the window: the sectors
with one electron more or less and those with one and two pairs more or less are all looked at, as
is a flipped spin, which no common mu can remove.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.optimize import brentq

from bilayer_orchestra.dataset.reading import by_site
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.model.spec import CanonicalState, Model

#: Changes of (n_up, n_down) that are looked at: electrons, pairs, a flipped spin, two pairs.
CHANGES = (
    *((1, 0), (0, 1), (-1, 0), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1)),
    *((2, 2), (-2, -2)),
)
#: Levels closer than this to the wanted one are the same level.
SAME = 1e-8
#: A sector's margin if nothing lies on one side of it (empty or full): any value will do.
FREE_MARGIN = 1.0


class Level(NamedTuple):
    """Lowest level of one sector.

    ``energy`` includes the -mu N of the model's own layer potentials; ``gap`` is the distance to
    the next level of the sector (NaN if unknown).
    """

    n_up: int
    n_down: int
    energy: float
    degeneracy: float = 1.0
    gap: float = np.nan

    @property
    def sector(self) -> str:
        """Its particle numbers, as they are shown."""
        return f"({self.n_up}, {self.n_down})"

    def above(self, other: Level) -> tuple[int, float]:
        """Return how many electrons and how much energy this level has more than another."""
        electrons = self.n_up + self.n_down - other.n_up - other.n_down
        return electrons, self.energy - other.energy


@dataclass(frozen=True)
class Placement:
    """A common shift ``mu`` of all chemical potentials that selects ``wanted``.

    Parameters
    ----------
    wanted : Level
        The sector that the limit T -> 0 shall be.
    others : tuple of Level
        The sectors that were looked at.
    mu : float
        The shift with the largest margin, rounded; comes on top of the layers' own potentials.
    lower, upper : float
        The window of shifts that select the sector.
    """

    wanted: Level
    others: tuple[Level, ...]
    mu: float
    lower: float
    upper: float

    def costs(self) -> list[tuple[str, float, float]]:
        """Return (description, energy above the wanted level at ``mu``, degeneracy ratio)."""
        entries = []
        for other in self.others:
            electrons, energy = other.above(self.wanted)
            ratio = other.degeneracy / self.wanted.degeneracy
            entries.append((other.sector, energy - self.mu * electrons, ratio))
        if np.isfinite(self.wanted.gap):
            entries.append(("same sector", self.wanted.gap, 1.0 / self.wanted.degeneracy))
        return sorted(entries, key=lambda entry: entry[1])

    @property
    def smallest(self) -> tuple[str, float]:
        """The state that is thermally excited first, and its cost."""
        return next(((name, cost) for name, cost, _ in self.costs()), ("none", np.inf))

    def weights(self, beta: float) -> dict[str, float]:
        """Return description -> Boltzmann weight relative to the wanted level."""
        return {name: ratio * float(np.exp(-beta * cost)) for name, cost, ratio in self.costs()}

    def residual(self, beta: float) -> float:
        """Part of the thermal state outside the wanted level, from the levels that are known."""
        total = sum(self.weights(beta).values())
        return total / (1.0 + total)

    def needed_beta(self, tolerance: float) -> float:
        """Return the inverse temperature at which `residual` falls to ``tolerance``."""
        if self.smallest[1] <= SAME:
            return np.inf
        high = 1.0 / self.smallest[1]
        while self.residual(high) > tolerance:
            high *= 2.0
        return float(brentq(lambda beta: self.residual(beta) - tolerance, 0.0, high))


def with_beta(model: Model, beta: float, mu: float = 0.0) -> Model:
    """Return the thermal state of the same Hamiltonian, all chemical potentials raised by mu.

    Parameters
    ----------
    model : Model
        Of a geometry with chemical potentials.
    beta : float
        Inverse temperature, in 1/energy.
    mu : float
        In units of energy.
    """
    raised = model.raised(mu)
    assert raised is not None
    return raised.replace(state={"beta": beta})


def solve_sectors(
    model: Model, solve: Callable[[Model], xr.Dataset]
) -> tuple[Level, list[Level], dict[tuple[int, int], xr.Dataset]]:
    """Solve the model's sector and those around it.

    The Hamiltonian has no field, so (a, b) and (b, a) have the same energies: one is solved.

    Returns
    -------
    Level
        Of the model's own sector.
    list of Level
        Of the sectors around it.
    dict
        (n_up, n_down) -> result, n_up >= n_down, of all sectors that were solved.
    """
    state, terms = model.state, model.terms()
    assert isinstance(state, CanonicalState)
    results: dict[tuple[int, int], xr.Dataset] = {}
    levels = []
    for up, down in ((0, 0), *CHANGES):
        sector = state.n_up + up, state.n_down + down
        if min(sector) < 0 or max(sector) > terms.n_sites:
            continue
        n_up, n_down = solved = max(sector), min(sector)
        if solved not in results:
            results[solved] = solve(model.replace(state={"n_up": n_up, "n_down": n_down}))
        result = results[solved]
        density = by_site(result["density"].sum("spin"), terms.sites)
        energy = float(result["energy"]) - float(terms.chemical_potential @ density)
        degeneracy, gap = result.get("degeneracy", 1.0), result.get("gap", np.nan)
        levels.append(Level(*sector, energy, float(degeneracy), float(gap)))
    return levels[0], levels[1:], results


def place_potentials(wanted: Level, others: list[Level]) -> Placement:
    """Return the common shift of mu that separates ``wanted`` best from all ``others``.

    Raises
    ------
    OrchestraError
        If no shift selects the sector: it is not the ground state of any grand canonical ensemble
        with one chemical potential.
    """
    changes = np.array([other.above(wanted) for other in others], float).reshape(-1, 2)
    for other, (electrons, cost) in zip(others, changes, strict=True):
        if electrons == 0 and cost < -SAME:
            raise OrchestraError(
                f"the sector {other.sector} lies {-cost:.3g} below {wanted.sector} at the same "
                "number of electrons: without a field no thermal state goes over into this one"
            )
    above, below = changes[changes[:, 0] > 0], changes[changes[:, 0] < 0]
    upper = float((above[:, 1] / above[:, 0]).min(initial=np.inf))
    lower = float((below[:, 1] / below[:, 0]).max(initial=-np.inf))
    if not lower < upper - SAME:
        odd = (wanted.n_up + wanted.n_down) % 2
        raise OrchestraError(
            f"no chemical potential selects {wanted.sector}: it would have to be above {lower:.6g} "
            f"and below {upper:.6g}"
            + (" (an odd number of electrons breaks a pair)" if odd else "")
        )
    steps = (above[:, None] - below).reshape(-1, 2)
    shifts = steps[:, 1] / steps[:, 0]  # as far from a sector above as from one below
    if not len(shifts):
        shifts = np.array([lower + FREE_MARGIN if len(below) else upper - FREE_MARGIN])
    moved = np.concatenate([above, below])
    best = shifts[np.argmax((moved[:, 1] - shifts[:, None] * moved[:, 0]).min(axis=1))]
    width = min(upper - lower, FREE_MARGIN)
    # few digits: the same potential whichever engine found the energies
    digits = max(0, int(np.ceil(-np.log10(width / 40))))
    return Placement(wanted, tuple(others), round(float(best), digits), lower, upper)
