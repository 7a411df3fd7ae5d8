"""Whether the projector method has reached the ground state.

The Hamiltonian measures pair and Green matrices twice: in the window, at least theta away from the
trial state, and at the edge, about theta/2 away from it. What is still decaying differs between
the two. Agreement is necessary, not sufficient: a state so close to the ground state that both
contain it alike (a gap far below 1/theta) stays unseen.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bilayer_orchestra.backends.alf.convert import pack
from bilayer_orchestra.backends.alf.segments import Chain, find_chains
from bilayer_orchestra.terms import FloatArray

#: Matrices that are measured in both places, and what they are called in messages.
EDGES = {"Pair_eq": ("PairEdge_eq", "pair"), "Green_eq": ("GreenEdge_eq", "green")}
#: Blocks that the error of the difference is taken from.
BLOCKS = 40
#: Probability of a false alarm in the whole matrix.
LEVEL = 1e-3


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
        difference = np.concatenate([_difference(chain, window, edge) for chain in chains])
        skip = len(difference) // 20  # what the chains still remember of their start
        size = (len(difference) - skip) // BLOCKS
        if size < 1:
            continue
        used = difference[len(difference) - size * BLOCKS :]
        blocks = used.reshape(BLOCKS, size, -1).mean(axis=1)
        mean = blocks.mean(axis=0)
        error = blocks.std(axis=0, ddof=1) / np.sqrt(BLOCKS)
        score = np.abs(mean) / np.maximum(error, 1e-12)
        worst = int(score.argmax())
        if score[worst] > stdtrit(BLOCKS - 1, 1 - LEVEL / 2 / score.size):
            return (
                f"not projected onto the ground state: {name} still changes by up to "
                f"{np.abs(mean[worst]):.2g} ({score[worst]:.1f} sigma) between projection times "
                f"{theta / 2:g} and {theta:g}; increase numerics.alf.projection_time"
            )
    return None


def _difference(chain: Chain, window: str, edge: str) -> FloatArray:
    """Window minus edge, bin by bin, packed: shape (bins, N (N + 1) / 2)."""
    parts = [_packed(chain, name) for name in (window, edge)]
    return parts[0] - parts[1]


def _packed(chain: Chain, name: str) -> FloatArray:
    return np.concatenate(
        [
            pack(chunk.values / chunk.sign[:, None, None])
            for segment in chain.segments
            for chunk in segment.matrices(name)
        ]
    )
