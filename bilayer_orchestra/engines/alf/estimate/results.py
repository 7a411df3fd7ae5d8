"""A finished ALF job as averages in the project's convention: what ``parse`` calls."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from bilayer_orchestra.analysis.estimates import Estimate, at_least_common, jackknife
from bilayer_orchestra.analysis.series import (
    Autocorrelation,
    autocorrelation,
    block_length,
    merge,
)
from bilayer_orchestra.analysis.trotter import Extrapolated, extrapolate
from bilayer_orchestra.averages import Averages
from bilayer_orchestra.engines.alf.estimate import verdict
from bilayer_orchestra.engines.alf.output import convert
from bilayer_orchestra.engines.alf.output.reduce import StepData, reduce_step
from bilayer_orchestra.engines.alf.output.segments import read_job
from bilayer_orchestra.engines.alf.settings import ALFNumerics
from bilayer_orchestra.terms import FloatArray, Terms

ENERGIES = ("energy", "kinetic_energy", "interaction_energy")


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


def averages_from_job(
    directory: Path, terms: Terms, observables: tuple[str, ...], numerics: ALFNumerics
) -> Averages:
    """Read the job in ``directory`` and return values with errors and a verdict.

    Parameters
    ----------
    directory : Path
        Holds ``job.json`` and ``dtau-<k>/chain-<c>/seg-<nnnn>``.
    observables : tuple of str
        What was asked for; energies are always returned.

    Returns
    -------
    Averages
        With several time steps the values are extrapolated to dtau = 0 and ``bias`` is the size
        of what may be left (see :mod:`bilayer_orchestra.analysis.trotter`); with one it is NaN.

    Raises
    ------
    EngineError
        If output is missing, damaged, inconsistent or too short for an error bar.
    """
    if numerics.pair_susceptibility:
        observables = (*observables, "pair_susceptibility")
    steps = _estimate_steps(directory, terms.n_sites, observables)
    limits = _limits(steps)
    converged, reason = verdict.judge(steps, limits, numerics, terms)
    return Averages(
        values={name: limit.estimate.value for name, limit in limits.items()},
        bias=biases(limits),
        stderr={name: limit.estimate.stderr for name, limit in limits.items()},
        deviations={name: limit.estimate.deviations for name, limit in limits.items()},
        attributes={name: _attributes(name, steps, limits[name]) for name in limits},
        diagnostics=_diagnostics(steps),
        converged=converged,
        reason=reason,
    )


def quick_error(directory: Path, terms: Terms, observable: str) -> float:
    """Return the largest standard error over the elements of one observable of a running job.

    NaN as long as there are too few independent bins to tell: a small error by accident must not
    stop a run.

    Raises
    ------
    EngineError
        As :func:`averages_from_job`.
    """
    observables = () if observable in ENERGIES else (observable,)
    steps = _estimate_steps(directory, terms.n_sites, observables)
    if min(verdict.effective_bins(step) for step in steps) < verdict.MIN_EFFECTIVE_BINS:
        return float("nan")
    return float(_limits(steps)[observable].estimate.stderr.max())


def _estimate_steps(
    directory: Path, n_sites: int, observables: tuple[str, ...]
) -> list[StepEstimates]:
    return [
        estimate_step(reduce_step(directory / f"dtau-{k}", float(dtau), n_sites, observables))
        for k, dtau in enumerate(read_job(directory)["dtau"])
    ]


def _limits(steps: list[StepEstimates]) -> dict[str, Extrapolated]:
    dtau = [step.data.dtau for step in steps]
    return {
        name: extrapolate(dtau, [step.estimates[name] for step in steps])
        for name in steps[0].estimates
    }


def biases(limits: dict[str, Extrapolated]) -> dict[str, FloatArray]:
    """Return the biases of all observables.

    What is left of one energy may cross zero, even that of the sum; of all three it does not.
    """
    bias = {name: limit.bias for name, limit in limits.items()}
    together = at_least_common(np.stack([bias[name] for name in ENERGIES]))
    return bias | dict(zip(ENERGIES, together, strict=True))


def estimate_step(data: StepData) -> StepEstimates:
    """Return block-jackknife estimates of one time step."""
    chains = convert.linearized(data.chains, data.files)
    names = list(chains[0])
    times = {name: autocorrelation([chain[name] for chain in chains]) for name in names}
    counts = [len(chain[convert.SIGN]) for chain in data.chains]
    length = block_length(list(times.values()), counts)
    inflation = {name: time.block_inflation(length) for name, time in times.items()}
    raw = {
        key: merge([chain[key] for chain in data.chains], length)
        for key in data.chains[0]
        if key != "Part_scal"
    }
    estimates = jackknife(raw, lambda r: convert.observables_of(r, data.files), inflation)
    return StepEstimates(
        data,
        estimates,
        times,
        _tau_in_bins(data, chains, times),
        {name: merge([chain[name] for chain in chains], length) for name in names},
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


def _diagnostics(steps: list[StepEstimates]) -> dict[str, float]:
    """Scalars that describe the run; the worst of all time steps."""
    precisions, acceptances = zip(*(step.data.health for step in steps), strict=True)
    return {
        "bins": sum(step.data.used for step in steps),
        "chains": min(len(step.data.bins) for step in steps),
        "warmup_bins": max(step.data.warmup for step in steps),
        "autocorrelation_time": max(max(step.tau.values()) for step in steps),
        "effective_bins": min(verdict.effective_bins(step) for step in steps),
        "average_sign": min(verdict.average_sign(step) for step in steps),
        "precision": float(np.fmax.reduce(precisions)),
        "acceptance": float(np.fmin.reduce(acceptances)),
    }


def _attributes(name: str, steps: list[StepEstimates], limit: Extrapolated) -> dict[str, float]:
    """Return what belongs beside one observable."""
    attributes = {
        "autocorrelation_time_bins": max(step.tau[name] for step in steps),
        "covariance_degrees_of_freedom": limit.estimate.degrees,
    }
    if len(limit.steps) > 1:
        attributes["trotter_correction"] = float(np.abs(limit.correction).max())
    if limit.dof:
        attributes["trotter_chi2_per_dof"] = float(np.mean(limit.chi2)) / limit.dof
    return attributes
