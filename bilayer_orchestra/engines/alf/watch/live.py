"""The current error of one observable while a run is going on, cheap enough for every second.

Segments are complete once they appear and never change, so each is read once and kept as block
averages. When a chain has too many blocks, neighbours are joined and later bins fill longer
blocks: memory stays bounded while the run grows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bilayer_orchestra.analysis.autocorrelation import autocorrelation
from bilayer_orchestra.analysis.binning import block_length, merge
from bilayer_orchestra.analysis.jackknife import Estimate, jackknife
from bilayer_orchestra.analysis.trotter import extrapolate
from bilayer_orchestra.analysis.warmup import mser
from bilayer_orchestra.engines.alf.estimate.verdict import MIN_EFFECTIVE_BINS
from bilayer_orchestra.engines.alf.output import convert
from bilayer_orchestra.engines.alf.output.segments import Chain, find_chains, read_job
from bilayer_orchestra.terms import FloatArray, Terms

#: Blocks of one chain: joined in pairs when there are twice as many.
BLOCKS = 128


class LiveChain:
    """Block averages of one chain that grows.

    Attributes
    ----------
    length : int
        Bins in a block.
    blocks : dict
        Raw name -> (K, ...) averages of full blocks; what does not fill a block waits.
    """

    def __init__(self, length: int = 1) -> None:
        self.length = length
        self.segments = 0
        self.bins = 0
        self.blocks: dict[str, FloatArray] = {}
        self._waiting: dict[str, FloatArray] = {}

    def add(self, bins: dict[str, FloatArray]) -> None:
        """Append bins: raw name -> (b, ...)."""
        self.bins += len(bins[convert.SIGN])
        rest = {}
        for name, values in bins.items():
            joined = np.concatenate([self._waiting[name], values]) if self._waiting else values
            full = len(joined) // self.length
            means = joined[: full * self.length]
            means = means.reshape(full, self.length, *joined.shape[1:]).mean(axis=1)
            rest[name] = joined[full * self.length :]
            old = self.blocks.get(name)
            self.blocks[name] = means if old is None else np.concatenate([old, means])
        self._waiting = rest
        if len(self.blocks[convert.SIGN]) >= 2 * BLOCKS:
            self.lengthen(2 * self.length)

    def lengthen(self, length: int) -> None:
        """Join blocks to ``length`` bins, a multiple of the present length."""
        factor = length // self.length
        if factor == 1 or not self.blocks:
            self.length = length
            return
        for name, array in self.blocks.items():
            full = len(array) // factor
            tail = np.repeat(array[full * factor :], self.length, axis=0)
            # the unfinished block waits as bins of their block's average: the mean is the same
            self._waiting[name] = np.concatenate([tail, self._waiting[name]])
            whole = array[: full * factor]
            self.blocks[name] = whole.reshape(full, factor, *array.shape[1:]).mean(axis=1)
        self.length = length


class LiveError:
    """Follows one observable of one job; call :meth:`update` now and then."""

    def __init__(self, directory: Path, terms: Terms, observable: str) -> None:
        self.directory, self.terms, self.observable = directory, terms, observable
        self.dtau = [float(step) for step in read_job(directory)["dtau"]]
        self._chains: list[dict[Path, LiveChain]] = [{} for _ in self.dtau]
        self._estimates: list[Estimate | None] = [None] * len(self.dtau)

    def update(self) -> tuple[int, float]:
        """Read what is new.

        Returns
        -------
        bins : int
            Bins of all time steps and chains in complete segments.
        error : float
            Largest standard error over the elements, of the value extrapolated in dtau^2 if there
            are several steps; NaN as long as there are too few independent bins to tell.
        """
        for k in range(len(self.dtau)):
            if self._read_new(k):
                self._estimates[k] = self._estimate(list(self._chains[k].values()))
        estimates = [estimate for estimate in self._estimates if estimate is not None]
        bins = sum(chain.bins for step in self._chains for chain in step.values())
        if len(estimates) < len(self.dtau):
            return bins, float("nan")
        return bins, float(extrapolate(self.dtau, estimates).estimate.stderr.max())

    def step_errors(self) -> list[tuple[int, float]]:
        """Return (bins, largest standard error) of every time step, as of the last update."""
        return [
            (
                sum(chain.bins for chain in chains.values()),
                float("nan") if estimate is None else float(estimate.stderr.max()),
            )
            for chains, estimate in zip(self._chains, self._estimates, strict=True)
        ]

    def _read_new(self, k: int) -> bool:
        news = False
        for chain in find_chains(self.directory / f"dtau-{k}", self.terms.n_sites):
            live = self._chains[k].setdefault(chain.path, LiveChain())
            if len(chain.segments) < live.segments:  # someone started over
                live = self._chains[k][chain.path] = LiveChain()
            for segment in chain.segments[live.segments :]:
                for bins in self._bins(Chain(chain.path, (segment,))):
                    live.add(bins)
                live.segments += 1
                news = True
        return news

    def _bins(self, chain: Chain) -> list[dict[str, FloatArray]]:
        (segment,) = chain.segments
        values = {name: segment.scalars(name) for name in convert.SCALARS}
        scalars = {name: series.values for name, series in values.items()}
        scalars[convert.SIGN] = values["Kin_scal"].sign
        file = self._file(chain)
        if file is None:
            return [scalars]
        parts, done = [], 0
        for chunk in segment.matrices(file):
            count = len(chunk.sign)
            part = {name: series[done : done + count] for name, series in scalars.items()}
            part[file] = convert.pack(chunk.values)
            if file == "Den_eq":
                part[convert.BACKGROUND] = chunk.background
            parts.append(part)
            done += count
        return parts

    def _file(self, chain: Chain) -> str | None:
        if self.observable not in convert.SOURCES:
            return None
        sources = convert.SOURCES[self.observable]
        measured = {s for s in sources if all(segment.has(s) for segment in chain.segments)}
        return convert.needed_files((self.observable,), measured)[self.observable]

    def _estimate(self, chains: list[LiveChain]) -> Estimate | None:
        longest = max(chain.length for chain in chains)
        for chain in chains:  # lengths are powers of two
            chain.lengthen(longest)
        filled = [chain.blocks for chain in chains if len(chain.blocks[convert.SIGN])]
        if not filled:
            return None
        matrices = [name for name in filled[0] if name.endswith("_eq")]
        files = dict.fromkeys([self.observable], matrices[0]) if matrices else {}
        series = [one[self.observable] for one in convert.linearized(filled, files)]
        drop = max(mser(one.mean(axis=1)) for one in series)
        filled = [
            {name: array[drop:] for name, array in blocks.items()}
            for blocks in filled
            if len(blocks[convert.SIGN]) > drop
        ]
        series = [one[drop:] for one in series if len(one) > drop]
        time = autocorrelation(series)
        if sum(len(one) for one in series) < 2 * time.slowest * MIN_EFFECTIVE_BINS:
            return None  # an error this uncertain must not stop a run
        length = block_length([time], [len(one) for one in series])
        raw = {name: merge([blocks[name] for blocks in filled], length) for name in filled[0]}
        inflation = {self.observable: time.block_inflation(length)}
        estimates = jackknife(raw, lambda r: convert.observables_of(r, files), inflation)
        return estimates[self.observable]


_followed: dict[tuple[Path, str], LiveError] = {}


def quick_error(directory: Path, terms: Terms, observable: str) -> tuple[int, float]:
    """Return (bins, current largest standard error) of ``observable`` in a running job.

    Remembers what it has read: repeated calls cost a directory listing and the new segments. See
    :meth:`LiveError.update`.
    """
    return follow(directory, terms, observable).update()


def forget(directory: Path) -> None:
    """Free what is remembered of a job."""
    for key in [key for key in _followed if key[0] == directory.resolve()]:
        del _followed[key]


def follow(directory: Path, terms: Terms, observable: str) -> LiveError:
    """Return the follower of ``observable`` in ``directory``, the same one for every call."""
    key = (directory.resolve(), observable)
    if key not in _followed:
        _followed[key] = LiveError(directory, terms, observable)
    return _followed[key]
