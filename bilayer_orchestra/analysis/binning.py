"""From bins to blocks: how long blocks are, and joining bins into them."""

from __future__ import annotations

import numpy as np

from bilayer_orchestra.analysis.autocorrelation import Autocorrelation
from bilayer_orchestra.terms import FloatArray

#: Blocks are lengthened until the correlation left between them changes a variance by less.
RESIDUAL = 0.1
#: Fewer blocks than this make the error itself too uncertain (18 % at 16).
MIN_BLOCKS = 16
#: More are of little use: the error is known to 6 %, and covariances of tens of distances are.
MAX_BLOCKS = 128


def block_length(times: list[Autocorrelation], steps: list[int]) -> int:
    """Return the length of jackknife blocks in steps, the same for all observables.

    The shortest for which no observable needs more than :data:`RESIDUAL` of correction, at most
    :data:`MAX_BLOCKS` blocks, and at least :data:`MIN_BLOCKS` as long as there are as many steps.

    Parameters
    ----------
    times : list of Autocorrelation
        One per observable.
    steps : list of int
        Length of every chain.
    """
    lengths = range(1, max(steps) + 1)
    # long enough for few blocks; the division drops the remainder of every chain
    allowed = [n for n in lengths if sum(k // n for k in steps) <= MAX_BLOCKS] or [max(steps)]
    best = allowed[0]
    for length in _ladder(allowed):
        if sum(k // length for k in steps) < MIN_BLOCKS and length > best:
            break
        best = length
        if max((t.block_inflation(length) for t in times), default=1.0) <= 1 + RESIDUAL:
            break
    return best


def _ladder(allowed: list[int]) -> list[int]:
    """Every length up to 10, then steps of about 10 %."""
    chosen = [allowed[0]]
    for length in allowed:
        if length >= max(chosen[-1] + 1, 1.1 * chosen[-1]):
            chosen.append(length)
    return chosen


def merge(chains: list[FloatArray], length: int) -> FloatArray:
    """Join ``length`` consecutive steps into one block average; chains are not mixed.

    Parameters
    ----------
    chains : list of arrays, shape (n_c, ...)
        Steps of every chain.
    length : int
        Steps of a block.

    Returns
    -------
    array, shape (n, ...)
        Blocks of all chains; what does not fill a block is dropped at a chain's beginning.
    """
    joined = []
    for chain in chains:
        count = len(chain) // length
        if count:
            used = chain[len(chain) - count * length :]
            joined.append(used.reshape(count, length, *chain.shape[1:]).mean(axis=1))
    return np.concatenate(joined)
