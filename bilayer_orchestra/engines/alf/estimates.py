"""Estimates with errors: of one time step, and of the limit that all time steps give."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from bilayer_orchestra.analysis.estimates import Estimate, jackknife
from bilayer_orchestra.analysis.series import Autocorrelation, autocorrelation, block_length, merge
from bilayer_orchestra.analysis.trotter import Extrapolated, extrapolate
from bilayer_orchestra.engines.alf import convert
from bilayer_orchestra.engines.alf.chains import read_job
from bilayer_orchestra.engines.alf.reduce import StepData, reduce_step
from bilayer_orchestra.terms import FloatArray


class StepEstimates(NamedTuple):
    """One time step: its data, the estimates, and the times they rest on.

    ``times`` are in base blocks; ``tau`` (per observable, the slowest element) in bins; ``blocks``
    are the jackknife blocks' linearized observables (n, elements), with ``per_chain`` of each
    chain, for the tests of stationarity.
    """

    data: StepData
    estimates: dict[str, Estimate]
    times: dict[str, Autocorrelation]
    tau: dict[str, float]
    blocks: dict[str, FloatArray]
    per_chain: list[int]
    inflation: dict[str, float]

    @property
    def effective_bins(self) -> float:
        """Independent bins: the number used over twice the longest autocorrelation time."""
        return self.data.used / (2 * max(0.5, *self.tau.values()))

    @property
    def average_sign(self) -> float:
        """Smallest average sign of any chain."""
        return min(float(chain[convert.SIGN].mean()) for chain in self.data.chains)


def estimate_step(data: StepData) -> StepEstimates:
    """Return block-jackknife estimates of one time step."""
    chains = convert.linearized(data.chains, data.files)
    times = {name: autocorrelation([chain[name] for chain in chains]) for name in chains[0]}
    counts = [len(chain[convert.SIGN]) for chain in data.chains]
    length = block_length(list(times.values()), counts)
    inflation = {name: time.block_inflation(length) for name, time in times.items()}
    raw = {key: merge([chain[key] for chain in data.chains], length) for key in data.chains[0]}
    return StepEstimates(
        data,
        jackknife(raw, lambda averages: convert.observables_of(averages, data.files), inflation),
        times,
        _tau_in_bins(data, chains, times),
        {name: merge([chain[name] for chain in chains], length) for name in times},
        [count // length for count in counts],
        inflation,
    )


def _tau_in_bins(
    data: StepData, chains: list[dict[str, FloatArray]], times: dict[str, Autocorrelation]
) -> dict[str, float]:
    """Convert tau from base blocks to bins, through the variance of single bins.

    2 tau sigma^2 per step is the same in both units of time.
    """
    if data.length == 1:
        return {name: time.slowest for name, time in times.items()}
    (sample,) = convert.linearized([data.sample], data.files)
    result = {}
    for name, time in times.items():
        blocks = np.concatenate([chain[name] for chain in chains]).var(axis=0)
        bins = sample[name].var(axis=0)
        ratio = float(np.mean(blocks[bins > 0] / bins[bins > 0])) if (bins > 0).any() else 0.0
        result[name] = max(0.5, time.slowest * ratio * data.length)
    return result


def estimate_job(
    directory: Path, n_sites: int, observables: tuple[str, ...]
) -> tuple[list[StepEstimates], dict[str, Extrapolated]]:
    """Return the estimates of all time steps of a job, and their limits by observable.

    Parameters
    ----------
    directory : Path
        Holds ``job.json`` and ``dtau-<k>/chain-<c>/seg-<nnnn>``.
    n_sites : int
        Sites of the model.
    observables : tuple of str
        What is wanted besides the energies.

    Raises
    ------
    EngineError
        If output is missing, damaged, inconsistent or too short for an error bar.
    """
    steps = [
        estimate_step(reduce_step(directory / f"dtau-{k}", float(dtau), n_sites, observables))
        for k, dtau in enumerate(read_job(directory)["dtau"])
    ]
    dtau = [step.data.dtau for step in steps]
    limits = {
        name: extrapolate(dtau, [step.estimates[name] for step in steps])
        for name in steps[0].estimates
    }
    return steps, limits
