"""From raw bins to base blocks in one pass, in memory that does not grow with the bins.

The number of bins is known from the file sizes and the warm-up from the scalars (small), so every
bin has its block before it is read. A base block is one bin as long as there are few; at most a
few million numbers per observable are kept, whatever the length of the run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bilayer_orchestra.analysis.series import warmup_length
from bilayer_orchestra.engines.alf.output import convert
from bilayer_orchestra.engines.alf.output.health import Health, read_info
from bilayer_orchestra.engines.alf.output.segments import Chain, find_chains, refuse_repeated_bins
from bilayer_orchestra.errors import EngineError
from bilayer_orchestra.terms import FloatArray

#: Base blocks of all chains together.
MAX_BASE_BLOCKS = 1024
#: Numbers kept per observable (32 MB).
MAX_NUMBERS = 4_000_000
#: Fewer bins than this have no error bar at all.
MIN_BINS = 4
#: Single bins that are kept beside the blocks.
SAMPLE = 512
#: An imaginary part of a weighted average beyond this is no rounding.
MAX_IMAGINARY = 1e-6


@dataclass
class Tails:
    """Second and fourth central moment of single bins, element by element."""

    count: int
    variance: FloatArray
    fourth: FloatArray


@dataclass
class StepData:
    """Everything of one time step, reduced.

    Parameters
    ----------
    dtau : float
    bins : list of int
        Bins of every chain before anything is dropped; chains that hold nothing beyond the warm-up
        are left out.
    dropped : list of int
        Bins dropped at the beginning of every chain, warm-up and remainder.
    warmup : int
        Bins that the warm-up rule asked to drop.
    length : int
        Bins in a base block.
    chains : list of dict
        Per chain: raw name -> base blocks (K_c, ...): ``sign``, scalars, packed matrices,
        ``Den_background``.
    tails : dict
        Matrix file -> distribution of bins.
    sample : dict
        Raw name -> the first single bins after the warm-up, (b, ...) with b <= :data:`SAMPLE`, if
        base blocks are longer than a bin: what one bin scatters, for every observable.
    """

    dtau: float
    bins: list[int]
    dropped: list[int]
    warmup: int
    length: int
    chains: list[dict[str, FloatArray]]
    health: Health
    imaginary: float
    files: dict[str, str] = field(default_factory=dict)
    tails: dict[str, Tails] = field(default_factory=dict)
    sample: dict[str, FloatArray] = field(default_factory=dict)

    @property
    def used(self) -> int:
        """Bins that enter the averages."""
        return sum(self.bins) - sum(self.dropped)


def reduce_step(step: Path, dtau: float, n_sites: int, observables: tuple[str, ...]) -> StepData:
    """Read all chains of one time step.

    Raises
    ------
    EngineError
        If there are no bins, or one is damaged, or chains are copies of each other.
    """
    chains = find_chains(step, n_sites)
    if not chains:
        raise EngineError(f"{step} holds no complete segment: the run was stopped too early")
    segments = [segment for chain in chains for segment in chain.segments]
    health = read_info([segment.path for segment in segments], dtau)
    measured = {file for files in convert.SOURCES.values() for file in files}
    measured = {file for file in measured if all(s.has(file) for s in segments)}
    files = convert.needed_files(observables, measured)
    series, imaginary = _scalar_series(chains)
    bins = [chain.bins for chain in chains]
    warmup = warmup_length([{k: s[k] for k in s if k != convert.SIGN} for s in series])
    total = sum(max(0, n - warmup) for n in bins)
    if total < MIN_BINS:
        raise EngineError(
            f"{step} holds {bins} bins in its chains, too few for an error bar (warm-up {warmup})"
        )
    numbers = n_sites * (n_sites + 1) // 2
    most = min(MAX_BASE_BLOCKS, max(256, MAX_NUMBERS // numbers))
    length = min(-(-total // most), max(bins) - warmup)
    used = [c for c, n in enumerate(bins) if n - warmup >= length]
    chains, series = [chains[c] for c in used], [series[c] for c in used]
    bins = [bins[c] for c in used]
    dropped = [n - (n - warmup) // length * length for n in bins]
    data = StepData(dtau, bins, dropped, warmup, length, [], health, imaginary, files)
    for one, drop in zip(series, dropped, strict=True):
        data.chains.append({k: v[drop:].reshape(-1, length).mean(axis=1) for k, v in one.items()})
    if length > 1:
        data.sample = {k: v[dropped[0] : dropped[0] + SAMPLE] for k, v in series[0].items()}
    for name in sorted(set(files.values())):
        _reduce_matrix(chains, name, [one[convert.SIGN] for one in series], data)
    return data


def _scalar_series(chains: list[Chain]) -> tuple[list[dict[str, FloatArray]], float]:
    """Return sign and scalars of every chain, bin by bin, and the largest imaginary part."""
    result, imaginary = [], 0.0
    energies: dict[Path, FloatArray] = {}
    for chain in chains:
        series: dict[str, list[FloatArray]] = {}
        for segment in chain.segments:
            for name in (*convert.SCALARS, "Part_scal"):
                values, imag, sign = segment.scalars(name)
                series.setdefault(name, []).append(values)
                scale = max(1.0, float(np.abs(values).max(initial=0.0)))
                imaginary = max(imaginary, float(np.abs(imag).max(initial=0.0)) / scale)
            series.setdefault(convert.SIGN, []).append(sign)
        joined = {name: np.concatenate(parts) for name, parts in series.items()}
        result.append(joined)
        energies[chain.path] = joined["Kin_scal"]
        for segment, values in zip(chain.segments[1:], series["Kin_scal"][1:], strict=True):
            energies[segment.path] = values
    refuse_repeated_bins(energies)
    return result, imaginary


def _reduce_matrix(chains: list[Chain], name: str, signs: list[FloatArray], data: StepData) -> None:
    """Add the base blocks and the tails of one matrix file to ``data``."""
    shift: FloatArray | None = None
    count = 0
    for chain, drop, blocks, sign in zip(chains, data.dropped, data.chains, signs, strict=True):
        n_blocks = len(blocks[convert.SIGN])
        first = 0  # number of a chunk's first bin
        for chunk in chain.matrices(name):
            numbers = first + np.arange(len(chunk.sign))
            if not np.array_equal(chunk.sign, sign[numbers]):
                raise EngineError(
                    f"{chain.path}: {name} has another sign than the scalars near bin {first + 1}; "
                    "the files do not belong together"
                )
            first += len(numbers)
            kept = numbers >= drop
            if not kept.any():
                continue
            block = (numbers[kept] - drop) // data.length
            used = {key: one[kept] for key, one in convert.raw_matrices(name, chunk).items()}
            for key, values in used.items():
                sums = blocks.setdefault(key, np.zeros((n_blocks, values.shape[1])))
                np.add.at(sums, block, values / data.length)
                if data.sample and chain is chains[0]:
                    earlier = data.sample.get(key, values[:0])
                    room = len(data.sample[convert.SIGN]) - len(earlier)
                    data.sample[key] = np.concatenate([earlier, values[:room]])
            packed = used[name]
            if shift is None:
                shift = packed.mean(axis=0)
                sums_of_powers = np.zeros((4, len(shift)))
            packed -= shift
            squares = packed**2
            sums_of_powers[0] += packed.sum(axis=0)
            sums_of_powers[1] += squares.sum(axis=0)
            sums_of_powers[2] += np.einsum("kt,kt->t", squares, packed)
            sums_of_powers[3] += np.einsum("kt,kt->t", squares, squares)
            count += len(packed)
    mean, second, third, fourth = sums_of_powers / count  # about ``shift``
    variance = np.maximum(second - mean**2, 0.0)
    fourth += -4 * mean * third + 6 * mean**2 * second - 3 * mean**4
    data.tails[name] = Tails(count, variance, fourth)
