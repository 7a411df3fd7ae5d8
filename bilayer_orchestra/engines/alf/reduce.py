"""From raw bins to base blocks in one pass, in memory that does not grow with the bins.

The number of bins is known from the file sizes and the warm-up from the scalars (small), so every
bin has its block before it is read. A base block is one bin as long as there are few; at most a
few million numbers per observable are kept, whatever the length of the run.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bilayer_orchestra.analysis.series import warmup_length
from bilayer_orchestra.engines.alf import convert
from bilayer_orchestra.engines.alf.bins import Bins
from bilayer_orchestra.engines.alf.chains import Chain, Health, find_chains, read_info
from bilayer_orchestra.engines.alf.convert import SIGN
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
        In 1/energy.
    bins : list of int
        Bins of every chain before anything is dropped; chains that hold nothing beyond the warm-up
        are left out.
    dropped : list of int
        Bins dropped at the beginning of every chain, warm-up and remainder.
    warmup : int
        Bins that the warm-up rule asked to drop.
    length : int
        Bins in a base block.
    imaginary : float
        Largest imaginary part of a weighted average.
    files : dict
        Observable -> the file it is read from.
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
    health: Health
    imaginary: float
    files: dict[str, str]
    chains: list[dict[str, FloatArray]] = field(default_factory=list)
    tails: dict[str, Tails] = field(default_factory=dict)
    sample: dict[str, FloatArray] = field(default_factory=dict)

    @property
    def used(self) -> int:
        """Bins that enter the averages."""
        return sum(self.bins) - sum(self.dropped)


def reduce_step(step: Path, dtau: float, n_sites: int, observables: tuple[str, ...]) -> StepData:
    """Read all chains of one time step.

    Parameters
    ----------
    step : Path
        The directory that holds the chains.
    dtau : float
        Its time step, in 1/energy.
    n_sites : int
        Sites of the model.
    observables : tuple of str
        What is wanted besides the energies.

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
    files = convert.needed_files(observables, lambda file: all(s.has(file) for s in segments))
    scalars = [chain.scalars for chain in chains]
    warmup = warmup_length([{k: one.values for k, one in each.items()} for each in scalars])
    total = sum(max(0, chain.bins - warmup) for chain in chains)
    if total < MIN_BINS:
        raise EngineError(
            f"{step} holds {[chain.bins for chain in chains]} bins in its chains, too few for an "
            f"error bar (warm-up {warmup})"
        )
    numbers = n_sites * (n_sites + 1) // 2
    most = min(MAX_BASE_BLOCKS, max(256, MAX_NUMBERS // numbers))
    length = min(-(-total // most), max(chain.bins for chain in chains) - warmup)
    chains = [chain for chain in chains if chain.bins - warmup >= length]
    data = StepData(
        dtau=dtau,
        bins=[chain.bins for chain in chains],
        dropped=[chain.bins - (chain.bins - warmup) // length * length for chain in chains],
        warmup=warmup,
        length=length,
        health=health,
        imaginary=max(_imaginary(bins) for each in scalars for bins in each.values()),
        files=files,
    )
    for chain, drop in zip(chains, data.dropped, strict=True):
        series = {SIGN: chain.sign} | {k: one.values for k, one in chain.scalars.items()}
        blocks = {k: v[drop:].reshape(-1, length).mean(axis=1) for k, v in series.items()}
        data.chains.append(blocks)
        if length > 1 and not data.sample:
            data.sample = {k: v[drop : drop + SAMPLE] for k, v in series.items()}
    for name in sorted(set(files.values())):
        data.tails[name] = _reduce_matrix(chains, name, data)
    return data


def _reduce_matrix(chains: list[Chain], name: str, data: StepData) -> Tails:
    """Add the base blocks of one matrix file to ``data`` and return its tails."""
    shift: FloatArray | None = None
    count = 0
    for chain, drop, blocks in zip(chains, data.dropped, data.chains, strict=True):
        end = 0  # number of the bin after a chunk
        for chunk in chain.chunks(name):
            first, end = end, end + len(chunk.sign)
            if not np.array_equal(chunk.sign, chain.sign[first:end]):
                raise EngineError(
                    f"{chain.path}: {name} has another sign than the scalars near bin {first + 1}; "
                    "the files do not belong together"
                )
            if end <= drop:
                continue
            skip = max(0, drop - first)
            block = np.arange(first + skip - drop, end - drop) // data.length
            used = {key: one[skip:] for key, one in convert.raw_matrices(name, chunk).items()}
            for key, values in used.items():
                sums = blocks.setdefault(key, np.zeros((len(blocks[SIGN]), values.shape[1])))
                np.add.at(sums, block, values / data.length)
                if data.sample and chain is chains[0]:
                    earlier = data.sample.get(key, values[:0])
                    room = len(data.sample[SIGN]) - len(earlier)
                    data.sample[key] = np.concatenate([earlier, values[:room]])
            packed = used[name]
            if shift is None:
                shift = packed.mean(axis=0)
                sums_of_powers = np.zeros((4, len(shift)))
            deviation = packed - shift
            power = np.ones_like(deviation)
            for k in range(4):
                power *= deviation
                sums_of_powers[k] += power.sum(axis=0)
            count += len(packed)
    mean, second, third, fourth = sums_of_powers / count  # about ``shift``
    variance = np.maximum(second - mean**2, 0.0)
    fourth += -4 * mean * third + 6 * mean**2 * second - 3 * mean**4
    return Tails(count, variance, fourth)


def _imaginary(scalar: Bins) -> float:
    """Return the largest imaginary part of a scalar, in units of its size."""
    size = max(1.0, float(np.abs(scalar.values).max(initial=0.0)))
    return float(np.abs(scalar.beside).max(initial=0.0)) / size
