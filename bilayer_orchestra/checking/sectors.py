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
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bilayer_orchestra.dataset.reading import by_site
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.model.state import CanonicalState

if TYPE_CHECKING:
    import xarray as xr

    from bilayer_orchestra.model.spec import Model

#: Changes of (n_up, n_down) that are looked at: electrons, pairs, a flipped spin, two pairs.
CHANGES = (
    *((1, 0), (0, 1), (-1, 0), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1)),
    *((2, 2), (-2, -2)),
)
#: Levels closer than this to the wanted one are the same level.
SAME = 1e-8
#: A sector's margin if nothing lies on one side of it (empty or full): any value will do.
FREE_MARGIN = 1.0

Solver = Callable[["Model"], "xr.Dataset"]


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
        entries = [
            (
                f"({other.n_up}, {other.n_down})",
                _cost(self.wanted, other, self.mu),
                other.degeneracy / self.wanted.degeneracy,
            )
            for other in self.others
        ]
        if np.isfinite(self.wanted.gap):
            entries.append(("same sector", self.wanted.gap, 1.0 / self.wanted.degeneracy))
        return sorted(entries, key=lambda entry: entry[1])

    @property
    def smallest(self) -> tuple[str, float]:
        """The state that is thermally excited first, and its cost."""
        costs = self.costs()
        return (costs[0][0], costs[0][1]) if costs else ("none", np.inf)

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
        low, high = 0.0, 1.0 / self.smallest[1]
        while self.residual(high) > tolerance:
            high *= 2.0
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.residual(middle) > tolerance else (low, middle)
        return high


def level_of(dataset: xr.Dataset, model: Model) -> Level:
    """Return the ground level of a canonical result."""
    state = model.state
    assert isinstance(state, CanonicalState)
    terms = model.terms()
    density = by_site(dataset["density"].sum("spin"), terms.sites)
    return Level(
        state.n_up,
        state.n_down,
        float(dataset["energy"]) - float(terms.chemical_potential @ density),
        float(dataset["degeneracy"]) if "degeneracy" in dataset else 1.0,
        float(dataset["gap"]) if "gap" in dataset else np.nan,
    )


def neighbours(model: Model) -> list[tuple[int, int]]:
    """Return the sectors (n_up, n_down) around the model's own that exist on its sites."""
    state, sites = model.state, len(model.sites)
    assert isinstance(state, CanonicalState)
    sectors = [(state.n_up + up, state.n_down + down) for up, down in CHANGES]
    return [(a, b) for a, b in sectors if 0 <= a <= sites and 0 <= b <= sites]


def with_sector(model: Model, n_up: int, n_down: int) -> Model:
    """Return the same Hamiltonian in another sector."""
    return model.replace(state={"n_up": n_up, "n_down": n_down})


def with_beta(model: Model, beta: float, mu: float = 0.0) -> Model:
    """Return the thermal state of the same Hamiltonian, all chemical potentials raised by mu."""
    raised = model.raised(mu)
    assert raised is not None
    return raised.replace(state={"beta": beta})


def solve_sectors(
    model: Model, solve: Solver
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
    state = model.state
    assert isinstance(state, CanonicalState)
    own = (state.n_up, state.n_down)
    levels: dict[tuple[int, int], Level] = {}
    results: dict[tuple[int, int], xr.Dataset] = {}
    for sector in [own, *neighbours(model)]:
        canonical = (max(sector), min(sector))
        if canonical not in results:
            there = with_sector(model, *canonical)
            results[canonical] = solve(there)
            levels[canonical] = level_of(results[canonical], there)
        levels[sector] = levels[canonical]._replace(n_up=sector[0], n_down=sector[1])
    return levels[own], [levels[sector] for sector in neighbours(model)], results


def place(wanted: Level, others: list[Level]) -> Placement:
    """Return the common shift of mu that separates ``wanted`` best from all ``others``.

    Raises
    ------
    OrchestraError
        If no shift selects the sector: it is not the ground state of any grand canonical ensemble
        with one chemical potential.
    """
    n_wanted = wanted.n_up + wanted.n_down
    lower, upper = -np.inf, np.inf
    below: list[tuple[int, float]] = []
    above: list[tuple[int, float]] = []
    for other in others:
        change, cost = other.n_up + other.n_down - n_wanted, other.energy - wanted.energy
        if change > 0:
            upper = min(upper, cost / change)
            above.append((change, cost))
        elif change < 0:
            lower = max(lower, cost / change)
            below.append((change, cost))
        elif cost < -SAME:
            raise OrchestraError(
                f"the sector ({other.n_up}, {other.n_down}) lies {-cost:.3g} below "
                f"({wanted.n_up}, {wanted.n_down}) at the same number of electrons: without a "
                "field no thermal state goes over into this one"
            )
    if not lower < upper - SAME:
        raise OrchestraError(
            f"no chemical potential selects ({wanted.n_up}, {wanted.n_down}): it would have to be "
            f"above {lower:.6g} and below {upper:.6g}"
            + (" (an odd number of electrons breaks a pair)" if n_wanted % 2 else "")
        )
    candidates = [(ca - cb) / (na - nb) for na, ca in above for nb, cb in below]
    candidates += [] if below else [upper - FREE_MARGIN]
    candidates += [] if above else [lower + FREE_MARGIN]

    def margin(mu: float) -> float:
        return min(cost - mu * change for change, cost in above + below)

    best = max(candidates, key=margin)
    width = min(upper - lower, FREE_MARGIN)
    # few digits: the same potential whichever engine found the energies
    digits = max(0, int(np.ceil(-np.log10(width / 40))))
    return Placement(wanted, tuple(others), round(best, digits), lower, upper)


def _cost(wanted: Level, other: Level, mu: float) -> float:
    change = other.n_up + other.n_down - wanted.n_up - wanted.n_down
    return other.energy - wanted.energy - mu * change
