"""Whether the projector method has reached the ground state: three tests, see docs/decisions/0010.

- Pair and Green matrices are measured twice: in the window, at least theta away from the trial
  state, and at the edge, about theta/2 away from it. What is still decaying differs between the
  two. A state so close to the ground state that both contain it alike (a gap far below 1/theta)
  stays unseen.
- Where the sector is small, what is left is computed (:mod:`.projection_exact`).
- Elsewhere a part of the run starts from another trial state, with the pairs at one end: a state
  that both contain alike would have to hide from that too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bilayer_orchestra.averages import Averages
from bilayer_orchestra.engines.alf.estimate.projection_exact import in_reach, projection_error
from bilayer_orchestra.engines.alf.estimate.results import estimate_step
from bilayer_orchestra.engines.alf.estimate.verdict import effective_bins
from bilayer_orchestra.engines.alf.output.convert import pack
from bilayer_orchestra.engines.alf.output.reduce import reduce_step
from bilayer_orchestra.engines.alf.output.segments import Chain, find_chains, read_job
from bilayer_orchestra.errors import EngineError
from bilayer_orchestra.terms import FloatArray, Terms

__all__ = ["depends_on_trial", "in_reach", "not_projected", "not_yet_ground_state"]

#: Matrices that are measured in both places, and what they are called in messages.
EDGES = {"Pair_eq": ("PairEdge_eq", "pair"), "Green_eq": ("GreenEdge_eq", "green")}
#: Blocks that the error of the difference is taken from.
BLOCKS = 40
#: Probability of a false alarm in the whole matrix.
LEVEL = 1e-3
#: Independent bins from another trial state that a comparison needs.
LEAST_BINS = 16
#: Errors are not taken to be smaller than this: what is left at theta is about the square of what
#: theta and theta/2 differ by, and the rounding of ALF's Green function is below it.
NEGLIGIBLE = 1e-7


def not_projected(step: Path, n_sites: int, theta: float) -> str | None:
    """Return why theta is too short, or None if the edge agrees with the window.

    Parameters
    ----------
    step : Path
        Directory of one time step, which holds the chains.
    """
    from scipy.special import stdtrit

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
        mean = blocks.mean(axis=0)
        error = blocks.std(axis=0, ddof=1) / np.sqrt(BLOCKS)
        score = np.abs(mean) / np.maximum(error, NEGLIGIBLE)
        worst = int(score.argmax())
        if score[worst] > stdtrit(BLOCKS - 1, 1 - LEVEL / 2 / score.size):
            return (
                f"not projected onto the ground state: {name} still changes by up to "
                f"{np.abs(mean[worst]):.2g} ({score[worst]:.1f} sigma) between projection times "
                f"{theta / 2:g} and {theta:g}; increase numerics.alf.projection_time"
            )
    return None


def not_yet_ground_state(
    terms: Terms, theta: float, averages: Averages
) -> tuple[str | None, dict[str, FloatArray]]:
    """Return why the exact projection of this length is no ground state, or None, and its errors.

    The errors are those of every observable; none are known if the level is too degenerate.
    """
    try:
        exact = projection_error(terms, theta)
    except EngineError as problem:
        return f"what is left of the trial state is not known: {problem}", {}
    if exact.problem is not None:
        return exact.problem, exact.error
    worst, found = 1.0, None
    for name, error in exact.error.items():
        if name not in averages.stderr:
            continue
        size = np.abs(error) / np.maximum(averages.stderr[name], NEGLIGIBLE)
        if size.max(initial=0.0) > worst:
            worst = float(size.max())
            found = (
                f"not projected onto the ground state: {name} is off by up to "
                f"{np.abs(error).max():.2g} at projection time {theta:g} (computed exactly in this "
                f"sector of {exact.dimension} states, gap {exact.gap:.2g}); increase "
                "numerics.alf.projection_time"
            )
    return found, exact.error


def depends_on_trial(
    directory: Path, terms: Terms, observables: tuple[str, ...], theta: float
) -> str | None:
    """Return why theta is too short, or None if two different trial states give the same."""
    from scipy.special import stdtrit

    job = read_job(directory)
    estimates = []
    for step in (job["probe"]["step"], job["probe"]["compare"]):
        dtau = float(job["dtau"][job["probe"]["compare"]])
        try:
            data = reduce_step(directory / f"dtau-{step}", dtau, terms.n_sites, observables)
        except EngineError as problem:
            return f"projection not checked with another trial state: {problem}"
        estimates.append(estimate_step(data))
    one, other = estimates
    if effective_bins(one) < LEAST_BINS:
        return (
            "projection not checked with another trial state: only "
            f"{effective_bins(one):.0f} independent bins of it (raise time_budget)"
        )
    for name, first in one.estimates.items():
        second = other.estimates[name]
        error = np.sqrt(first.stderr**2 + second.stderr**2)
        score = np.abs(first.value - second.value) / np.maximum(error, NEGLIGIBLE)
        degrees = min(first.degrees, second.degrees)
        if score.max() > stdtrit(degrees, 1 - LEVEL / 2 / score.size / len(one.estimates)):
            return (
                f"not projected onto the ground state: after projection time {theta:g} another "
                f"trial state gives {name} up to {np.abs(first.value - second.value).max():.2g} "
                f"away ({score.max():.1f} sigma); increase numerics.alf.projection_time, unless "
                "the ground level is degenerate (is t_perp zero?): then correlators are not "
                "determined"
            )
    return None


def _packed(chain: Chain, name: str) -> FloatArray:
    """Return the matrices of all bins, packed: shape (bins, N (N + 1) / 2)."""
    chunks = chain.matrices(name)
    return np.concatenate([pack(chunk.values / chunk.sign[:, None, None]) for chunk in chunks])
