"""How the effort is cut into bins and segments, and shared among time steps.

Everything here follows from the request alone, so that the same request gives the same bins; the
cost of a sweep is an estimate, and run.sh adapts the segments to the true one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bilayer_orchestra.engines.alf.input.steps import extrapolation_weights
from bilayer_orchestra.engines.alf.settings import ALFNumerics

#: Seconds that a segment takes in the long run, at least, and the first one.
SEGMENT, SHORT_SEGMENT, FIRST_SEGMENT = 10, 2, 1.0
#: Part of a short run's time that one segment may take: the loss of a kill.
SEGMENT_SHARE = 0.05
#: A segment starts with up to one sweep's worth of work that is not sampling.
SWEEPS_PER_SEGMENT = 100
#: Bins of a segment at least: every step starts with one, whatever the budget.
LEAST_BINS = 4
#: Part of the time that every step gets, however little its value matters for the limit.
LEAST_SHARE = 0.08
#: Bytes per second that ALF formats into text, and the share of the time that it may cost.
TEXT_RATE, TEXT_SHARE = 2e7, 0.02
#: Bytes of output per chain and time step that a run should stay below.
DISK = 2e9
#: Bins that a run should have: enough for autocorrelations, few enough to read quickly. Short time
#: steps of short runs get the fewer, whatever their output costs; a machine that others use makes a
#: fraction of them. Where the disk is the limit it is half as many.
BINS, FEWEST_BINS, FEWEST_ON_DISK = 500, 400, 200
#: Bins of all chains that every time step gets before its share of the time counts: five times what
#: a verdict asks for, since autocorrelations are seen in them and a busy machine makes fewer.
ENOUGH_BINS = 160
#: Sweeps of a bin, if there is time for them: about twice the autocorrelation time or more.
LEAST_SWEEPS = 5
#: Seconds; shorter bins cost reading time and gain nothing for the autocorrelation.
SHORTEST_BIN = 0.002


@dataclass(frozen=True)
class StepPlan:
    """One time step's part of the run.

    Parameters
    ----------
    slices : int
        Time slices of a sweep.
    sweeps_per_bin : int
        Sweeps averaged into one bin.
    bins : int
        Bins per chain that are wanted; 0 if the clock or the error decides.
    first : int
        Bins of the first segment.
    share : int
        Part of the time, per mille.
    """

    slices: int
    sweeps_per_bin: int
    bins: int
    first: int
    share: int


def sweep_seconds(sites: int, slices: int, displaced: bool) -> float:
    """Estimated seconds of a sweep on one core.

    Fitted to 4 ... 64 sites on a 2020s x86-64 core: linear, quadratic and cubic parts are fields,
    updates and matrix products.
    """
    per_slice = 1e-6 * sites + 9e-8 * sites**2 + 1.3e-9 * sites**3
    return slices * per_slice * (2.0 if displaced else 1.0)


def plan_effort(
    sites: int,
    steps: tuple[float, ...],
    slices: list[int],
    numerics: ALFNumerics,
    matrices: int,
) -> tuple[list[StepPlan], int]:
    """Return the plan of every time step, and the seconds that a segment should take."""
    displaced = numerics.pair_susceptibility or numerics.pair_displaced
    cost = [sweep_seconds(sites, count, displaced) for count in slices]
    weights = extrapolation_weights(steps)
    # least variance of the extrapolated value at given time: time ~ |weight| sqrt(cost)
    wish = [abs(weight) * math.sqrt(seconds) for weight, seconds in zip(weights, cost, strict=True)]
    shares = [max(LEAST_SHARE, part / sum(wish)) for part in wish]
    shares = [share / sum(shares) for share in shares]
    plans = []
    for seconds, share, count in zip(cost, shares, slices, strict=True):
        bin_bytes = 54 * sites**2 * (matrices + (2 * count if numerics.pair_displaced else 0))
        per_bin = numerics.sweeps_per_bin or _sweeps_per_bin(numerics, seconds, share, bin_bytes)
        plans.append(
            StepPlan(
                slices=count,
                sweeps_per_bin=per_bin,
                bins=math.ceil(numerics.sweeps / per_bin) if numerics.sweeps else 0,
                first=max(LEAST_BINS, round(_first_segment(numerics, share) / (seconds * per_bin))),
                share=max(1, round(1000 * share)),
            )
        )
    segment = float(SEGMENT)
    if numerics.effective_budget:
        segment = min(segment, max(SHORT_SEGMENT, SEGMENT_SHARE * numerics.effective_budget))
    return plans, math.ceil(max(segment, SWEEPS_PER_SEGMENT * max(cost)))


def _first_segment(numerics: ALFNumerics, share: float) -> float:
    """Seconds of the first segment: a step with a small share of a short run must not eat it up."""
    budget = numerics.effective_budget
    return FIRST_SEGMENT if budget is None else min(FIRST_SEGMENT, 0.1 * share * budget)


def _sweeps_per_bin(numerics: ALFNumerics, seconds: float, share: float, bin_bytes: float) -> int:
    text = bin_bytes / TEXT_RATE / TEXT_SHARE  # a bin this long spends TEXT_SHARE on its output
    budget = numerics.effective_budget
    if numerics.sweeps is not None:
        total = numerics.sweeps * seconds
    else:
        assert budget is not None
        total = budget * share
    length = min(max(total / BINS, SHORTEST_BIN), 5.0)
    length = min(max(length, text), total / FEWEST_BINS)
    disk = min(bin_bytes * total / DISK, total / FEWEST_ON_DISK)
    length = max(length, disk, min(LEAST_SWEEPS * seconds, total / FEWEST_BINS))
    return max(1, round(length / seconds))
