"""How many bins of independently started chains to discard, decided from the data.

MSER (K. P. White, Simulation 69, 323 (1997)): drop the first d values where d minimizes
sum_{t >= d} (x_t - mean_d)^2 / (n - d)^2, the squared standard error that independent values would
have. It has no parameter, weighs the bias that is removed against the data that are lost, and did
best in comparisons of such rules (Hoad, Robinson, Davies, J. Oper. Res. Soc. 61, 1382 (2010)). The
chains start from independent random fields, so their transient is common and the noise is not:
the rule is applied to the mean over chains.
"""

from __future__ import annotations

import numpy as np

from bilayer_orchestra.terms import FloatArray


def mser(series: FloatArray) -> int:
    """Return the number of initial values to drop, at most half of them.

    Parameters
    ----------
    series : array, shape (n,)
    """
    n = len(series)
    if n < 4:
        return 0
    backwards = (series - series[n // 2 :].mean())[::-1]
    count = np.arange(1, n + 1)
    sums, squares = np.cumsum(backwards), np.cumsum(backwards**2)
    spread = np.maximum(squares - sums**2 / count, 0.0)[::-1]  # index d: values d ... n-1
    kept = count[::-1]
    objective = spread[: n // 2 + 1] / kept[: n // 2 + 1].astype(float) ** 2
    if objective.min() <= 0:  # constant up to rounding
        return 0
    return int(np.argmin(objective))


def warmup_length(chains: list[dict[str, FloatArray]]) -> int:
    """Return the bins to drop from every chain: the largest that any monitored series asks for.

    Parameters
    ----------
    chains : list of dict
        Per chain: name -> series of shape (n_c,). The common length is compared, of chains that
        have at least half as many values as the longest.
    """
    lengths = [min(len(series) for series in chain.values()) for chain in chains]
    long = [c for c, n in zip(chains, lengths, strict=True) if 2 * n >= max(lengths)]
    common = min(n for n in lengths if 2 * n >= max(lengths))
    return max(mser(np.mean([c[name][:common] for c in long], axis=0)) for name in chains[0])
