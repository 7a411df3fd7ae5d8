"""Whether an ALF result can be trusted: every reason against it is said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bilayer_orchestra.analysis.estimates import ROUNDING
from bilayer_orchestra.analysis.series import chains_disagree, drifts
from bilayer_orchestra.analysis.trotter import Extrapolated
from bilayer_orchestra.engines.alf.input.steps import largest_energy, resonant_steps
from bilayer_orchestra.engines.alf.output import convert
from bilayer_orchestra.engines.alf.output.health import MAX_PRECISION, MIN_ACCEPTANCE
from bilayer_orchestra.engines.alf.output.reduce import MAX_IMAGINARY, Tails
from bilayer_orchestra.engines.alf.settings import ALFNumerics
from bilayer_orchestra.terms import Terms

if TYPE_CHECKING:
    from bilayer_orchestra.engines.alf.estimate.results import StepEstimates

#: Independent bins below which the error bars themselves are too uncertain (12 % at 32).
MIN_EFFECTIVE_BINS = 32
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
#: automatic steps), and how many standard deviations of noise it must exceed.
MAX_FOURTH_ORDER, SIGNIFICANT = 0.25, 4.0


def judge(
    steps: list[StepEstimates], limits: dict[str, Extrapolated], numerics: ALFNumerics, terms: Terms
) -> tuple[bool, str]:
    """Return (converged, reason)."""
    parts = parts_of_variance(steps, limits)
    against = [
        reason if len(steps) == 1 else f"dtau = {step.data.dtau:g}: {reason}"
        for step, part in zip(steps, parts, strict=True)
        for reason in _against_step(step, minor=part < MINOR)
    ]
    dtau = [step.data.dtau for step in steps]
    against += against_steps(dtau, largest_energy(terms))
    against += [
        f"dtau = {step:g} is a resonance of nearly isolated attractive sites: configurations that "
        "are hardly ever sampled carry a part of the averages (choose another step)"
        for step in resonant_steps(terms, dtau)
    ]
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


def effective_bins(step: StepEstimates) -> float:
    """Independent bins: the number used over twice the longest autocorrelation time."""
    return step.data.used / (2 * max(0.5, *step.tau.values()))


def average_sign(step: StepEstimates) -> float:
    """Smallest average sign of any chain."""
    return min(float(chain[convert.SIGN].mean()) for chain in step.data.chains)


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


def _against_step(step: StepEstimates, minor: bool = False) -> list[str]:
    """Return what speaks against a step; ``minor``: the size of its errors does not matter."""
    data = step.data
    against = []
    effective = effective_bins(step)
    if effective < MIN_EFFECTIVE_BINS and not minor:
        against.append(
            f"only {effective:.0f} independent bins ({data.used} bins), {MIN_EFFECTIVE_BINS} needed"
        )
    slow = [name for name, time in step.times.items() if not time.resolved]
    if slow:
        against.append(f"chains too short for the autocorrelation time of {', '.join(slow)}")
    if data.warmup > MAX_WARMUP * min(data.bins):
        against.append(f"not thermalized: {data.warmup} of {min(data.bins)} bins are warm-up")
    sign = average_sign(step)
    if not sign >= MIN_SIGN:
        against.append(f"average sign {sign:.3g}, expected 1")
    if data.imaginary > MAX_IMAGINARY:
        against.append(f"weights are complex (imaginary part {data.imaginary:.1e})")
    precision, acceptance = data.health
    if precision > MAX_PRECISION:
        against.append(
            f"precision lost: the Green function jumps by {precision:.1e} at a stabilization"
        )
    if acceptance < MIN_ACCEPTANCE:
        against.append(f"acceptance {acceptance:.2g} is too low")
    for name, tails in data.tails.items():
        text = None if minor else heavy_tailed(tails)
        if text:
            against.append(f"heavy-tailed estimator {name}: {text}; error bars cannot be trusted")
    for name, blocks in step.blocks.items():
        if chains_disagree(blocks, step.per_chain):
            against.append(f"chains disagree in {name} (not ergodic, or far too short)")
        elif drifts(blocks, step.per_chain, step.inflation[name]):
            against.append(f"{name} still drifts after the warm-up")
    return against


def against_steps(dtau: list[float], scale: float) -> list[str]:
    """Return what speaks against an extrapolation from the time steps ``dtau``.

    Parameters
    ----------
    dtau : list of float
        Time steps in 1/energy.
    scale : float
        Largest energy of the model, see :func:`largest_energy`.
    """
    if len(dtau) < 2 or sorted(dtau)[1] * scale <= MAX_STEP * (1 + 1e-9):
        return []
    return [
        f"the steps {', '.join(f'{step:g}' for step in dtau)} are too coarse to extrapolate: all "
        f"but the largest should be below {MAX_STEP / scale:.2g} (`auto` chooses)"
    ]


def against_line(limits: dict[str, Extrapolated]) -> list[str]:
    """Return what the extrapolated averages, by name, say against their own extrapolation."""
    against = []
    bad = {
        name: float(np.mean(limit.chi2)) / limit.dof for name, limit in limits.items() if limit.dof
    }
    bad = {name: value for name, value in bad.items() if value > MAX_TROTTER_CHI2}
    if bad:
        name = max(bad, key=lambda key: bad[key])
        against.append(
            f"no parabola in dtau^2: chi^2/dof {bad[name]:.1f} in {name} (use smaller steps)"
        )
    # the dtau^2 term of the energy may vanish where those of its two parts cancel
    coarse = [name for name, limit in limits.items() if name != "energy" and too_coarse(limit)]
    if coarse:
        against.append(
            f"the steps are too coarse to extrapolate {', '.join(coarse)}: the dtau^4 term is not "
            "small against the dtau^2 term (use smaller steps)"
        )
    return against


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
    trotter = (
        f"Trotter error of dtau = {steps[0].data.dtau:g} not estimated"
        if len(steps) == 1
        else f"extrapolated in dtau^2{' and dtau^4' * (len(steps) > 2)} from "
        + ", ".join(f"{step.data.dtau:g}" for step in steps)
    )
    return (
        f"{used} bins in {max(len(step.data.bins) for step in steps)} chains after {warmup} of "
        f"warm-up each, autocorrelation time at most {tau:.2g} bins; {trotter}"
    )
