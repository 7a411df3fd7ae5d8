"""Tests whether chains agree with each other, and with themselves later on."""

from __future__ import annotations

import numpy as np

from bilayer_orchestra.analysis.common import ROUNDING
from bilayer_orchestra.terms import FloatArray

#: Probability, after allowing for the number of elements looked at, that counts as impossible.
IMPOSSIBLE = 1e-5


def chains_disagree(blocks: FloatArray, per_chain: list[int]) -> bool:
    """Whether the means of chains differ by more than the blocks inside them allow.

    The F test of a one-way analysis of variance, the statistic behind Gelman and Rubin's R-hat
    (Statist. Sci. 7, 457 (1992)) with its finite-sample distribution. Needs two chains with
    blocks to compare inside.

    Parameters
    ----------
    blocks : array, shape (n, M)
        Block averages, chain after chain.
    per_chain : list of int
        Blocks of every chain.
    """
    from scipy.special import fdtrc  # scipy.stats takes a second to load

    groups = [g for g in np.split(blocks, np.cumsum(per_chain)[:-1]) if len(g)]
    n, n_groups = len(blocks), len(groups)
    if n_groups < 2 or n - n_groups < 2:
        return False
    mean = blocks.mean(axis=0)
    between = sum(len(g) * (g.mean(axis=0) - mean) ** 2 for g in groups) / (n_groups - 1)
    within = sum(((g - g.mean(axis=0)) ** 2).sum(axis=0) for g in groups) / (n - n_groups)
    ratio = _ratio(np.asarray(between), np.asarray(within), blocks)
    return bool(fdtrc(n_groups - 1, n - n_groups, ratio) * blocks.shape[1] < IMPOSSIBLE)


def drifts(blocks: FloatArray, per_chain: list[int], inflation: float = 1.0) -> bool:
    """Whether the first halves of all chains differ from the second halves.

    J. Geweke's comparison (1992), as a two-sample F test of block averages.

    Parameters
    ----------
    blocks : array, shape (n, M)
        Block averages, chain after chain.
    per_chain : list of int
        Blocks of every chain.
    inflation : float
        Factor on variances for the correlation left between blocks.
    """
    from scipy.special import fdtrc  # scipy.stats takes a second to load

    groups = [g for g in np.split(blocks, np.cumsum(per_chain)[:-1]) if len(g) >= 2]
    if not groups:
        return False
    early = np.concatenate([g[: len(g) // 2] for g in groups])
    late = np.concatenate([g[-(len(g) // 2) :] for g in groups])
    n = len(early) + len(late)
    if n < 6:
        return False
    difference = (early.mean(axis=0) - late.mean(axis=0)) ** 2
    pooled = (early.var(axis=0) * len(early) + late.var(axis=0) * len(late)) / (n - 2)
    variance = pooled * inflation * (1 / len(early) + 1 / len(late))
    ratio = _ratio(difference, variance, blocks)
    return bool(fdtrc(1, n - 2, ratio) * blocks.shape[1] < IMPOSSIBLE)


def _ratio(signal: FloatArray, noise: FloatArray, blocks: FloatArray) -> float:
    """Largest signal to noise over the elements; differences at the level of rounding are none."""
    rounding = (ROUNDING * np.abs(blocks).max(axis=0, initial=0.0)) ** 2
    return float((signal / np.maximum(noise, rounding + 1e-300)).max(initial=0.0))
