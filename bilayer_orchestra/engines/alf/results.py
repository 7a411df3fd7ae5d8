"""A finished ALF job as averages in the project's convention, and whether they can be trusted.

Every reason against a result is said.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bilayer_orchestra.analysis.estimates import ROUNDING, at_least_common
from bilayer_orchestra.analysis.series import chains_disagree, drifts
from bilayer_orchestra.analysis.trotter import Extrapolated
from bilayer_orchestra.averages import Averages
from bilayer_orchestra.engines.alf.estimates import StepEstimates, estimate_job
from bilayer_orchestra.engines.alf.reduce import Tails
from bilayer_orchestra.engines.alf.settings import ALFNumerics
from bilayer_orchestra.engines.alf.steps import largest_energy, resonant_steps
from bilayer_orchestra.engines.base import Request
from bilayer_orchestra.terms import FloatArray, Terms

ENERGIES = ("energy", "kinetic_energy", "interaction_energy")
#: Independent bins below which the error bars themselves are too uncertain (12 % at 32).
MIN_EFFECTIVE_BINS = 32
#: Largest difference between a Green function that was propagated and one computed anew.
MAX_PRECISION = 1e-6
#: Below this acceptance the chain hardly moves.
MIN_ACCEPTANCE = 0.05
#: An imaginary part of a weighted average beyond this is no rounding.
MAX_IMAGINARY = 1e-6
#: The formulation has sign 1 exactly; rounding alone stays far within this.
MIN_SIGN = 0.99
#: Part in the variance of the limit, in every element, below which the errors of a step need not be
#: known well: an unseen 5 sigma of that step would move the limit by half an error, and six bins
#: with tails x^-3 leave the coverage at 68 % (tests/unit/test_statistics.py).
MINOR = 0.01
#: Part of the bins that may be warm-up before the rest is not believed either.
MAX_WARMUP = 0.4
#: The second smallest step times the energy scale: beyond, what is left of the discretization was
#: up to 25 times what the steps themselves show (exact averages on two rungs, |U| = 16).
MAX_STEP = 1.6
#: Residual of a parabola in dtau^2, chi^2 per degree of freedom, averaged over elements.
MAX_TROTTER_CHI2 = 4.0
#: Size of the dtau^4 term against the dtau^2 term at the two smallest steps (0.07 at most for
#: automatic steps).
MAX_FOURTH_ORDER = 0.25
#: Standard deviations of noise that it must exceed to count.
SIGNIFICANT = 4.0


def averages_from_job(directory: Path, request: Request) -> Averages:
    """Read the job in ``directory`` and return values with errors and a verdict.

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
    observables, numerics = request.observables, request.numerics
    if numerics.pair_susceptibility:
        observables = (*observables, "pair_susceptibility")
    steps, limits = estimate_job(directory, request.terms.n_sites, observables)
    converged, reason = judge(steps, limits, numerics, request.terms)
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


def quick_error(directory: Path, n_sites: int, observable: str) -> float:
    """Return the largest standard error over the elements of one observable of a running job.

    NaN as long as there are too few independent bins to tell: a small error by accident must not
    stop a run.

    Parameters
    ----------
    directory : Path
        The job.
    n_sites : int
        Sites of the model.
    observable : str
        Its name.

    Raises
    ------
    EngineError
        As :func:`estimate_job`.
    """
    observables = () if observable in ENERGIES else (observable,)
    steps, limits = estimate_job(directory, n_sites, observables)
    if min(step.effective_bins for step in steps) < MIN_EFFECTIVE_BINS:
        return float("nan")
    return float(limits[observable].estimate.stderr.max())


def biases(limits: dict[str, Extrapolated]) -> dict[str, FloatArray]:
    """Return the biases of all observables.

    What is left of one energy may cross zero, even that of the sum; of all three it does not.
    """
    bias = {name: limit.bias for name, limit in limits.items()}
    together = at_least_common(np.stack([bias[name] for name in ENERGIES]))
    return bias | dict(zip(ENERGIES, together, strict=True))


def _diagnostics(steps: list[StepEstimates]) -> dict[str, float]:
    """Scalars that describe the run; the worst of all time steps."""
    precisions, acceptances = zip(*(step.data.health for step in steps), strict=True)
    return {
        "bins": sum(step.data.used for step in steps),
        "chains": min(len(step.data.bins) for step in steps),
        "warmup_bins": max(step.data.warmup for step in steps),
        "autocorrelation_time": max(max(step.tau.values()) for step in steps),
        "effective_bins": min(step.effective_bins for step in steps),
        "average_sign": min(step.average_sign for step in steps),
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


def judge(
    steps: list[StepEstimates], limits: dict[str, Extrapolated], numerics: ALFNumerics, terms: Terms
) -> tuple[bool, str]:
    """Return (converged, reason).

    Parameters
    ----------
    steps : list of StepEstimates
        All time steps.
    limits : dict
        Observable -> its limit.
    numerics : ALFNumerics
        Targets for the errors.
    terms : Terms
        The model.
    """
    parts = parts_of_variance(steps, limits)
    against = [
        reason if len(steps) == 1 else f"dtau = {step.data.dtau:g}: {reason}"
        for step, part in zip(steps, parts, strict=True)
        for reason in _against_step(step, minor=part < MINOR)
    ]
    against += against_steps([step.data.dtau for step in steps], terms)
    against += against_line(limits)
    met = []
    for name, target in numerics.target_stderr.items():
        if name not in limits:
            against.append(f"target_stderr names `{name}`, which was not measured")
            continue
        error = float(limits[name].estimate.stderr.max())
        text = f"error of {name} {error:.2g}"
        if error <= target:
            met.append(f"{text} within target {target:g}")
        else:
            against.append(f"{text} above target {target:g} (raise time_budget)")
    if against:
        return False, "; ".join(against)
    return True, "; ".join([_summary(steps), *met])


def parts_of_variance(steps: list[StepEstimates], limits: dict[str, Extrapolated]) -> list[float]:
    """Return, per step, the largest part over elements that it has in the variance of a limit."""
    largest = [0.0] * len(steps)
    for name, limit in limits.items():
        whole = limit.estimate.stderr**2
        moving = whole > ROUNDING**2 * max(1.0, float(whole.max(initial=0.0)))
        ends = np.cumsum([len(step.estimates[name].deviations) for step in steps])
        # the deviations of a limit are those of its steps, weighted, one after the other
        for k, rows in enumerate(np.split(limit.estimate.deviations, ends[:-1])):
            part = np.sum(rows**2, axis=0)[moving] / whole[moving]
            largest[k] = max(largest[k], float(part.max(initial=0.0)))
    return largest


def heavy_tailed(tails: Tails) -> str | None:
    """Return a description if few bins dominate the spread of an estimator, else None.

    sum d^4 / (sum d^2)^2 over bins is the squared relative uncertainty of a variance, and of 1 / it
    one may think as the number of bins that make it. It falls like 1/n when the fourth moment
    exists, like 1/ln n for tails x^-3 (which this formulation can have where its determinant
    comes close to zero: H. Shi and S. Zhang, PRE 93, 033303 (2016)), and not at all for heavier
    ones, where an error bar means nothing however long the run. Judged on the mean over elements
    and on their upper percent; exponential tails pass.
    """
    moving = tails.variance > ROUNDING**2 * max(1.0, float(tails.variance.max(initial=0.0)))
    if not moving.any():
        return None
    n = tails.count
    shares = tails.fourth[moving] / (n * tails.variance[moving] ** 2)
    for share, limit, which in (
        (float(shares.mean()), max(0.1, 12 / n), "an average element"),
        (float(np.quantile(shares, 0.99)), max(0.5, 24 / n), "an element"),
    ):
        if share > limit:
            return f"about {max(1.0, 1 / share):.0f} of {n} bins make the variance of {which}"
    return None


def _against_step(step: StepEstimates, minor: bool) -> Iterator[str]:
    """Yield what speaks against a step; ``minor``: the size of its errors does not matter."""
    data, effective, sign = step.data, step.effective_bins, step.average_sign
    if effective < MIN_EFFECTIVE_BINS and not minor:
        needed = f"{MIN_EFFECTIVE_BINS} needed"
        yield f"only {effective:.0f} independent bins ({data.used} bins), {needed}"
    slow = [name for name, time in step.times.items() if not time.resolved]
    if slow:
        yield f"chains too short for the autocorrelation time of {', '.join(slow)}"
    if data.warmup > MAX_WARMUP * min(data.bins):
        yield f"not thermalized: {data.warmup} of {min(data.bins)} bins are warm-up"
    if not sign >= MIN_SIGN:
        yield f"average sign {sign:.3g}, expected 1"
    if data.imaginary > MAX_IMAGINARY:
        yield f"weights are complex (imaginary part {data.imaginary:.1e})"
    precision, acceptance = data.health
    if precision > MAX_PRECISION:
        yield f"precision lost: the Green function jumps by {precision:.1e} at a stabilization"
    if acceptance < MIN_ACCEPTANCE:
        yield f"acceptance {acceptance:.2g} is too low"
    for name, tails in data.tails.items():
        text = None if minor else heavy_tailed(tails)
        if text:
            yield f"heavy-tailed estimator {name}: {text}; error bars cannot be trusted"
    for name, blocks in step.blocks.items():
        if chains_disagree(blocks, step.per_chain):
            yield f"chains disagree in {name} (not ergodic, or far too short)"
        elif drifts(blocks, step.per_chain, step.inflation[name]):
            yield f"{name} still drifts after the warm-up"


def against_steps(dtau: list[float], terms: Terms) -> Iterator[str]:
    """Yield what speaks against an extrapolation from the time steps ``dtau`` (in 1/energy)."""
    scale = largest_energy(terms)
    if len(dtau) > 1 and sorted(dtau)[1] * scale > MAX_STEP * (1 + 1e-9):
        yield (
            f"the steps {', '.join(f'{step:g}' for step in dtau)} are too coarse to extrapolate: "
            f"all but the largest should be below {MAX_STEP / scale:.2g} (`auto` chooses)"
        )
    for step in resonant_steps(terms, dtau):
        yield (
            f"dtau = {step:g} is a resonance of nearly isolated attractive sites: configurations "
            "that are hardly ever sampled carry a part of the averages (choose another step)"
        )


def against_line(limits: dict[str, Extrapolated]) -> Iterator[str]:
    """Yield what the extrapolated averages, by name, say against their own extrapolation."""
    chi2 = {name: float(np.mean(one.chi2)) / one.dof for name, one in limits.items() if one.dof}
    worst = max(chi2, key=lambda name: chi2[name], default="")
    if worst and chi2[worst] > MAX_TROTTER_CHI2:
        yield f"no parabola in dtau^2: chi^2/dof {chi2[worst]:.1f} in {worst} (use smaller steps)"
    # the dtau^2 term of the energy may vanish where those of its two parts cancel
    coarse = [name for name, limit in limits.items() if name != "energy" and too_coarse(limit)]
    if coarse:
        yield (
            f"the steps are too coarse to extrapolate {', '.join(coarse)}: the dtau^4 term is not "
            "small against the dtau^2 term (use smaller steps)"
        )


def too_coarse(limit: Extrapolated) -> bool:
    """Whether the measured dtau^4 term is beyond doubt not small against the dtau^2 term."""
    if limit.remainder is None or not limit.fourth_order:
        return False
    fourth = float(np.sum(limit.remainder.value**2))
    noise = float(np.sum(np.maximum(limit.remainder.stderr, limit.rounding) ** 2))
    second = float(np.sum(limit.correction**2))
    return fourth > SIGNIFICANT**2 * noise and fourth - noise > MAX_FOURTH_ORDER**2 * second


def _summary(steps: list[StepEstimates]) -> str:
    used = sum(step.data.used for step in steps)
    tau = max(max(step.tau.values()) for step in steps)
    warmup = max(step.data.warmup for step in steps)
    dtau = ", ".join(f"{step.data.dtau:g}" for step in steps)
    trotter = f"extrapolated in dtau^2{' and dtau^4' * (len(steps) > 2)} from {dtau}"
    if len(steps) == 1:
        trotter = f"Trotter error of dtau = {dtau} not estimated"
    return (
        f"{used} bins in {max(len(step.data.bins) for step in steps)} chains after {warmup} of "
        f"warm-up each, autocorrelation time at most {tau:.2g} bins; {trotter}"
    )
