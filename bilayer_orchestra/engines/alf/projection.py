"""Whether the projector method has reached the ground state: three tests, see docs/decisions/0010.

- Pair and Green matrices are measured twice: in the window, at least theta away from the trial
  state, and at the edge, about theta/2 away from it. What is still decaying differs between the
  two. A state so close to the ground state that both contain it alike (a gap far below 1/theta)
  stays unseen.
- Where the sector is small, exp(-theta H) |trial> and the ground state are both vectors: what the
  projection leaves is known element by element, whatever the gap.
- Elsewhere a part of the run starts from another trial state, with the pairs at one end: a state
  that both contain alike would have to hide from that too.
"""

import math
from pathlib import Path

import numpy as np
from scipy.special import ive, stdtrit

from bilayer_orchestra.averages import Averages, observables_from_raw
from bilayer_orchestra.engines.alf.chains import Chain, find_chains, read_job
from bilayer_orchestra.engines.alf.convert import pack
from bilayer_orchestra.engines.alf.estimates import estimate_step
from bilayer_orchestra.engines.alf.reduce import reduce_step
from bilayer_orchestra.engines.alf.trial import needs_probe, trial_orbitals
from bilayer_orchestra.engines.base import Request
from bilayer_orchestra.engines.exact.fock import Sector
from bilayer_orchestra.engines.exact.ground import ground_level
from bilayer_orchestra.engines.exact.measure import measure_states
from bilayer_orchestra.errors import EngineError
from bilayer_orchestra.terms import Canonical, FloatArray, Terms

#: Matrices that are measured in both places, and what they are called in messages.
EDGES = {"Pair_eq": ("PairEdge_eq", "pair"), "Green_eq": ("GreenEdge_eq", "green")}
#: Blocks that the error of the difference is taken from.
BLOCKS = 40
#: Probability of a false alarm in everything that is compared at once.
LEVEL = 1e-3
#: Independent bins from another trial state that a comparison needs.
LEAST_BINS = 16
#: Errors are not taken to be smaller than this: what is left at theta is about the square of what
#: theta and theta/2 differ by, and the rounding of ALF's Green function is below it.
NEGLIGIBLE = 1e-7
#: What is not projected begins with this.
TOO_SHORT = "not projected onto the ground state"


def judge_projection(directory: Path, request: Request, averages: Averages) -> None:
    """Add to the verdict whether the projection time was long enough, and to the bias what is left.

    Parameters
    ----------
    directory : Path
        The finished job.
    request : Request
        What it solves.
    averages : Averages
        What was measured; changed in place.
    """
    terms, theta, job = request.terms, request.numerics.projection_time, read_job(directory)
    finest = job["dtau"].index(min(job["dtau"]))  # has most of the bins
    problem = not_projected(directory / f"dtau-{finest}", terms.n_sites, theta)
    passed = "half the projection time gives the same within errors"
    if not needs_probe(terms):
        worse, errors = not_yet_ground_state(terms, theta, averages)
        problem = worse or problem
        for name in errors.keys() & averages.bias.keys():
            averages.bias[name] = averages.bias[name] + np.abs(errors[name])
        passed += " and what is left of the trial state, computed exactly, is below the errors"
    elif "probe" in job:
        problem = problem or depends_on_trial(directory, request)
        passed += " and so does another trial state"
    if problem is None:
        averages.reason += f"; {passed}"
        return
    averages.reason = f"{averages.reason}; {problem}" if not averages.converged else problem
    averages.converged = False


def not_projected(step: Path, n_sites: int, theta: float) -> str | None:
    """Return why theta is too short, or None if the edge agrees with the window.

    Parameters
    ----------
    step : Path
        Directory of one time step, which holds the chains.
    n_sites : int
        Sites of the model.
    theta : float
        Projection time in 1/energy.
    """
    chains = find_chains(step, n_sites)
    for window, (edge, name) in EDGES.items():
        if not all(segment.has(edge) for chain in chains for segment in chain.segments):
            continue
        difference = np.concatenate(
            [_packed(chain, window) - _packed(chain, edge) for chain in chains]
        )
        skip = len(difference) // 20  # what the chains still remember of their start
        size = (len(difference) - skip) // BLOCKS
        if size < 1:
            continue
        used = difference[len(difference) - size * BLOCKS :]
        blocks = used.reshape(BLOCKS, size, -1).mean(axis=1)
        error = blocks.std(axis=0, ddof=1) / np.sqrt(BLOCKS)
        found = _beyond_noise(blocks.mean(axis=0), error, BLOCKS - 1)
        if found:
            return (
                f"{TOO_SHORT}: {name} still changes {found} between projection times "
                f"{theta / 2:g} and {theta:g}; increase numerics.alf.projection_time"
            )
    return None


def depends_on_trial(directory: Path, request: Request) -> str | None:
    """Return why theta is too short, or None if two different trial states give the same."""
    job, n_sites = read_job(directory), request.terms.n_sites
    unchecked = "projection not checked with another trial state"
    probe, other = job["probe"]["step"], job["probe"]["compare"]
    dtau = float(job["dtau"][other])
    try:
        one, two = (
            estimate_step(
                reduce_step(directory / f"dtau-{step}", dtau, n_sites, request.observables)
            )
            for step in (probe, other)
        )
    except EngineError as problem:
        return f"{unchecked}: {problem}"
    if one.effective_bins < LEAST_BINS:
        return (
            f"{unchecked}: only {one.effective_bins:.0f} independent bins of it (raise time_budget)"
        )
    for name, first in one.estimates.items():
        second = two.estimates[name]
        error = np.sqrt(first.stderr**2 + second.stderr**2)
        degrees = min(first.degrees, second.degrees)
        found = _beyond_noise(first.value - second.value, error, degrees, len(one.estimates))
        if found:
            return (
                f"{TOO_SHORT}: after projection time {request.numerics.projection_time:g} another "
                f"trial state gives {name} that differs {found}; increase "
                "numerics.alf.projection_time, unless the ground level is degenerate (is t_perp "
                "zero?): then correlators are not determined"
            )
    return None


def _beyond_noise(
    difference: FloatArray, error: FloatArray, degrees: float, observables: int = 1
) -> str | None:
    """Say by how much the elements differ that do so beyond noise, or None if there are none."""
    score = np.abs(difference) / np.maximum(error, NEGLIGIBLE)
    certain = score > stdtrit(degrees, 1 - LEVEL / 2 / score.size / observables)
    if not certain.any():
        return None
    return f"by up to {np.abs(difference)[certain].max():.2g} ({score.max():.1f} sigma)"


def _packed(chain: Chain, name: str) -> FloatArray:
    """Return the matrices of all bins, packed: shape (bins, N (N + 1) / 2)."""
    chunks = chain.chunks(name)
    return np.concatenate([pack(chunk.values / chunk.sign[:, None, None]) for chunk in chunks])


def not_yet_ground_state(
    terms: Terms, theta: float, averages: Averages
) -> tuple[str | None, dict[str, FloatArray]]:
    """Return why the exact projection of this length is no ground state, or None, and its errors.

    The measurement window lies between theta and more; its edge, where this is evaluated, is worst.

    Parameters
    ----------
    terms : Terms
        A model with a sector in reach.
    theta : float
        Projection time in 1/energy.
    averages : Averages
        Holds the statistical errors that the projection is judged by.

    Returns
    -------
    problem : str or None
        No projection, however long, ends in a state that is determined where the level is
        degenerate.
    errors : dict
        Projected minus ground state, per observable; the ground state of a degenerate level is the
        average over it. None are known if it has more states than can be resolved.
    """
    state = terms.state
    assert isinstance(state, Canonical)
    sector = Sector(terms, state.n_up, state.n_down)
    orbitals = trial_orbitals(terms, state.n_up)
    occupied = np.array([np.flatnonzero(row) for row in sector.up.occupation])
    amplitudes = np.linalg.det(orbitals[occupied])
    try:
        level = ground_level(sector, 1)
    except EngineError as problem:
        return f"what is left of the trial state is not known: {problem}", {}
    projected = _project(sector, np.outer(amplitudes, amplitudes).ravel(), theta, level.energy)
    found, wanted = (
        _observables(terms, sector, states)
        for states in (projected.reshape(1, *sector.shape), level.states)
    )
    errors = {name: found[name] - wanted[name] for name in found}
    if len(level.states) > 1:
        return (
            f"the lowest {len(level.states)} levels are one within {level.resolution:.1e}, and the "
            "projection stays in what the trial state has of them: correlators are not determined"
        ), errors
    scores = {
        name: (np.abs(error) / np.maximum(averages.stderr[name], NEGLIGIBLE)).max(initial=0.0)
        for name, error in errors.items()
        if name in averages.stderr
    }
    name = max(scores, key=lambda key: scores[key])
    if scores[name] <= 1:
        return None, errors
    return (
        f"{TOO_SHORT}: {name} is off by up to {np.abs(errors[name]).max():.2g} at projection time "
        f"{theta:g} (computed exactly in this sector of {len(projected)} states, gap "
        f"{level.gap:.2g}); increase numerics.alf.projection_time"
    ), errors


def _project(sector: Sector, vector: FloatArray, theta: float, lowest: float) -> FloatArray:
    """Return exp(-theta H) applied to ``vector``, normalized, by Chebyshev polynomials of H.

    H. Tal-Ezer and R. Kosloff, J. Chem. Phys. 81, 3967 (1984). All levels lie between ``lowest``
    and the sector's scale.
    """
    centre, half = (sector.scale + lowest) / 2, (sector.scale - lowest) / 2 or 1.0
    # what is left out is below exp(-40), rounding
    order = np.arange(40 + math.ceil(math.sqrt(80 * theta * half)))
    weights = (-1.0) ** order * ive(order, theta * half) * np.where(order == 0, 1, 2)
    before, now = vector, (sector.apply(vector) - centre * vector) / half
    result = weights[0] * before + weights[1] * now
    for weight in weights[2:]:
        before, now = now, (sector.apply(now) - centre * now) * (2 / half) - before
        result += weight * now
    return np.asarray(result / np.linalg.norm(result))


def _observables(terms: Terms, sector: Sector, states: FloatArray) -> dict[str, FloatArray]:
    raw = measure_states(sector, states)
    raw["double_occupancy"] = raw["pair"].diagonal().copy()
    return observables_from_raw(raw, terms)
