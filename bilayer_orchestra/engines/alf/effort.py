"""How the effort is cut into bins and segments, and shared among time steps.

Everything here follows from the request alone, so that the same request gives the same bins; the
cost of a sweep is an estimate, and run.sh adapts the segments to the true one.
"""

import math
from dataclasses import dataclass

import numpy as np

from bilayer_orchestra.analysis.trotter import limit_weights
from bilayer_orchestra.engines.alf.settings import ALFNumerics

#: Seconds that a segment takes in the long run: its start costs a fraction of one.
SEGMENT = 10.0
#: Seconds that it takes at least.
SHORT_SEGMENT = 2.0
#: Seconds of the first one, so that progress shows early.
FIRST_SEGMENT = 1.0
#: Part of its share of a short run that the first one may take: it must not eat that up.
FIRST_SHARE = 0.1
#: Part of a short run's time that one segment may take: the loss of a kill.
SEGMENT_SHARE = 0.05
#: A segment starts with up to one sweep's worth of work that is not sampling.
SWEEPS_PER_SEGMENT = 100
#: Bins of a segment at least: every step starts with one, whatever the budget.
LEAST_BINS = 4
#: Part of the time that every step gets, however little its value matters for the limit.
LEAST_SHARE = 0.08
#: Bytes per second that ALF formats into text.
TEXT_RATE = 2e7
#: Share of the time that this may cost.
TEXT_SHARE = 0.02
#: Bytes of output per chain and time step that a run should stay below.
DISK = 2e9
#: Bins that a run should have: enough for autocorrelations, few enough to read quickly.
BINS = 500
#: Bins of short time steps of short runs, whatever their output costs; a machine that others use
#: makes a fraction of them.
FEWEST_BINS = 400
#: Bins where the disk is the limit.
FEWEST_ON_DISK = 200
#: Bins of all chains that every time step gets before its share of the time counts: five times what
#: a verdict asks for, since autocorrelations are seen in them and a busy machine makes fewer.
ENOUGH_BINS = 160
#: Sweeps of a bin, if there is time for them: about twice the autocorrelation time or more.
LEAST_SWEEPS = 5
#: Seconds; shorter bins cost reading time and gain nothing for the autocorrelation.
SHORTEST_BIN = 0.002
#: Seconds; with longer bins progress and errors would show late.
LONGEST_BIN = 5.0


@dataclass(frozen=True)
class StepPlan:
    """One time step's part of the run.

    Parameters
    ----------
    dtau : float
        In 1/energy.
    sweeps_per_bin : int
        Sweeps averaged into one bin.
    bins : int
        Bins per chain that are wanted; 0 if the clock or the error decides.
    first : int
        Bins of the first segment.
    share : int
        Part of the time, per mille.
    """

    dtau: float
    sweeps_per_bin: int
    bins: int
    first: int
    share: int


def sweep_seconds(sites: int, slices: float, displaced: bool) -> float:
    """Estimated seconds of a sweep on one core.

    Fitted to 4 ... 64 sites on a 2020s x86-64 core: linear, quadratic and cubic parts are fields,
    updates and matrix products.

    Parameters
    ----------
    sites, slices : int
        Sites of the model, and time slices of a sweep.
    displaced : bool
        Whether time-displaced Green functions are measured.
    """
    per_slice = 1e-6 * sites + 9e-8 * sites**2 + 1.3e-9 * sites**3
    return slices * per_slice * (2.0 if displaced else 1.0)


def plan_effort(
    sites: int, steps: tuple[float, ...], slices: list[int], numerics: ALFNumerics, matrices: int
) -> tuple[list[StepPlan], int]:
    """Return the plan of every time step, and the seconds that a segment should take.

    Parameters
    ----------
    sites : int
        Sites of the model.
    steps : tuple of float
        Time steps in 1/energy.
    slices : list of int
        Time slices of a sweep, for each of them.
    numerics : ALFNumerics
        Settings of the run.
    matrices : int
        Matrices that are written for every bin.
    """
    displaced = numerics.pair_susceptibility or numerics.pair_displaced
    budget = numerics.effective_budget or math.inf
    cost = [sweep_seconds(sites, count, displaced) for count in slices]
    weights = limit_weights(np.array(steps), np.ones(len(steps)))
    # least variance of the extrapolated value at given time: time ~ |weight| sqrt(cost)
    wish = np.abs(weights) * np.sqrt(cost)
    shares = np.maximum(LEAST_SHARE, wish / wish.sum())
    plans = []
    for step, seconds, share, count in zip(
        steps, cost, (shares / shares.sum()).tolist(), slices, strict=True
    ):
        bin_bytes = 54 * sites**2 * (matrices + (2 * count if numerics.pair_displaced else 0))
        total = numerics.sweeps * seconds if numerics.sweeps else budget * share
        per_bin = numerics.sweeps_per_bin or _sweeps_per_bin(total, seconds, bin_bytes)
        first = min(FIRST_SEGMENT, FIRST_SHARE * share * budget)
        plans.append(
            StepPlan(
                dtau=step,
                sweeps_per_bin=per_bin,
                bins=math.ceil(numerics.sweeps / per_bin) if numerics.sweeps else 0,
                first=max(LEAST_BINS, round(first / (seconds * per_bin))),
                share=max(1, round(1000 * share)),
            )
        )
    segment = min(SEGMENT, max(SHORT_SEGMENT, SEGMENT_SHARE * budget))
    return plans, math.ceil(max(segment, SWEEPS_PER_SEGMENT * max(cost)))


def _sweeps_per_bin(total: float, seconds: float, bin_bytes: float) -> int:
    """Return how many sweeps of ``seconds`` make a bin, in a time step of ``total`` seconds."""
    text = bin_bytes / TEXT_RATE / TEXT_SHARE  # a bin this long spends TEXT_SHARE on its output
    length = min(max(total / BINS, SHORTEST_BIN), LONGEST_BIN)
    length = min(max(length, text), total / FEWEST_BINS)
    disk = min(bin_bytes * total / DISK, total / FEWEST_ON_DISK)
    length = max(length, disk, min(LEAST_SWEEPS * seconds, total / FEWEST_BINS))
    return max(1, round(length / seconds))
