"""Find mu with n(mu) = target in a ground state at fixed particle number.

H(mu) = H - mu N_M, so E(mu) is concave and N_M(mu) = -dE/dmu never decreases. It may jump, where
two levels cross. Every run gives value and slope of

    G(mu) = E(mu) + mu N_target,    G' = N_target - N_M(mu)

whose maximum is wanted. The tangents of two runs on either side of it meet above it. If a run at
the meeting lies on both tangents, the maximum is a kink: the levels cross there, no density in
between exists, and no bisection is needed to say so. Otherwise the cubic through both values and
slopes is maximized, or mu(N) interpolated once runs are near. Bisection is the safeguard.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.interpolate import CubicHermiteSpline, krogh_interpolate

#: Width in mu, relative to max(1, |mu|), of a transition that tangents call a crossing.
RESOLUTION = 1e-6
#: Width in mu, relative to max(1, |mu|), of a bracket that is not narrowed any more.
FINEST = 1e-9
#: A kink is accepted if its place is known to this part of the bracket.
NARROW = 1e-2
#: Energies are trusted to this, relative to max(1, |E|).
ENERGY_ROUNDING = 1e-10
MAX_RUNS = 60
#: Runs without gain after which the bracket is halved.
LONGEST_IDLE = 3
#: Change of a number, over what it still misses the target by, that counts as none.
FLAT = 0.05


class Point(NamedTuple):
    """One run: chemical potential, particles N_M, E(mu) with the -mu N term, and its error."""

    mu: float
    number: float
    energy: float
    energy_error: float


class JumpError(Exception):
    """The wished number lies inside a jump.

    Parameters
    ----------
    mu : float
        Where the levels cross.
    below, above : Point
        The runs on the two sides.
    """

    def __init__(self, mu: float, below: Point, above: Point) -> None:
        super().__init__(mu)
        self.mu, self.below, self.above = mu, below, above


class OutOfRangeError(Exception):
    """The wished number is not reached at the largest |mu| that makes sense."""

    def __init__(self, point: Point) -> None:
        super().__init__(point.mu)
        self.point = point


def monotone_root(
    evaluate: Callable[[float], Point],
    target: float,
    tolerance: float,
    starts: list[float],
    slope: float,
    limits: tuple[float, float],
    largest_step: float,
) -> tuple[Point, float]:
    """Return a run whose number is within ``tolerance`` of ``target``, and dN/dmu next to it.

    Parameters
    ----------
    evaluate : callable
        One run.
    target, tolerance : float
        Wished particle number of the layer and what it may miss it by.
    starts : list of float
        Chemical potentials to begin with.
    slope : float
        Estimate of dN/dmu for the steps until both sides are known.
    limits : tuple of float
        Chemical potentials beyond which nothing can change.
    largest_step : float
        Longest first step; doubled as long as the other side is not found.

    Raises
    ------
    JumpError, OutOfRangeError
        If no chemical potential gives the wished number.
    """
    runs: list[Point] = []
    below: Point | None = None
    above: Point | None = None
    waiting, step = list(starts), largest_step
    mu = waiting.pop(0)
    last_width, last_miss, idle, met = math.inf, math.inf, 0, False
    for _ in range(MAX_RUNS):
        point = evaluate(mu)
        runs.append(point)
        if abs(point.number - target) <= tolerance:
            return point, _slope(runs, slope)
        before = (below, above)
        if point.number < target and (below is None or point.mu > below.mu):
            below = point
        if point.number > target and (above is None or point.mu < above.mu):
            above = point
        if below and above and below.mu >= above.mu:
            # they contradict each other (runs that are not converged): the newest counts
            below, above = (point, None) if point.number < target else (None, point)
        if waiting:
            mu = waiting.pop(0)
            continue
        if below is None or above is None:
            if mu in limits:
                raise OutOfRangeError(point)
            slope = _slope(runs, slope)
            wished = 1.2 * (target - point.number) / slope
            # later on the estimate of the slope was no good: go on, further
            least = step / 4 if len(runs) > 2 else 0.0
            shift = math.copysign(min(max(abs(wished), least), step), wished)
            step *= 2
            mu = min(max(mu + shift, limits[0]), limits[1])
            continue
        _refuse_jump(runs, target, tolerance, below, above)
        width, miss = above.mu - below.mu, min(abs(run.number - target) for run in runs)
        advanced = width < 0.5 * last_width or miss < 0.5 * last_miss
        idle = 0 if advanced else idle % LONGEST_IDLE + 1
        last_width, last_miss = min(width, last_width), min(miss, last_miss)
        # densities that do not move on one side of the target: a step, whose place tangents tell
        flat = any(
            old is not None and abs(new.number - old.number) < FLAT * abs(new.number - target)
            for old, new in zip(before, (below, above), strict=True)
            if old is not new
        )
        met = flat and not met
        mu = _tangents(below, above, target) if met else _next(runs, below, above, target, idle)
        margin = 1e-6 * width
        mu = min(max(mu, below.mu + margin), above.mu - margin)
    raise JumpError(mu, below or point, above or point)


def _next(runs: list[Point], below: Point, above: Point, target: float, idle: int) -> float:
    """Return where to run next, more cautiously the longer nothing was gained."""
    if idle == LONGEST_IDLE:
        return 0.5 * (below.mu + above.mu)
    if idle == LONGEST_IDLE - 1:
        return _tangents(below, above, target)
    if idle == 0 and len(runs) > 2:
        mu = _local(runs, target)
        if below.mu < mu < above.mu:
            return mu
    return _cubic(below, above, target)


def _local(runs: list[Point], target: float) -> float:
    """Return the root of mu(N) through the runs nearest to the target: three, if all are near."""
    near = sorted(runs, key=lambda run: abs(run.number - target))[:3]
    if abs(near[2].number - target) > 5 * abs(near[1].number - target):
        near = near[:2]
    if len({run.number for run in near}) < len(near):
        return math.nan
    numbers, potentials = [run.number for run in near], [run.mu for run in near]
    with np.errstate(all="ignore"):  # numbers that nearly agree lead nowhere
        return float(krogh_interpolate(numbers, potentials, target))


def _slope(runs: list[Point], fallback: float) -> float:
    """dN/dmu between the newest run and its nearest neighbour, if that is positive."""
    *before, newest = runs
    others = [other for other in before if other.mu != newest.mu]
    if not others:
        return fallback
    near = min(others, key=lambda other: abs(other.mu - newest.mu))
    slope = (newest.number - near.number) / (newest.mu - near.mu)
    return slope if slope > 0.01 * fallback else fallback


def _gains(below: Point, above: Point, target: float) -> tuple[float, float, float]:
    """Return G'(below), G'(above) and the mean slope of G in between."""
    rise = (above.energy + above.mu * target) - (below.energy + below.mu * target)
    return target - below.number, target - above.number, rise / (above.mu - below.mu)


def _tangents(below: Point, above: Point, target: float) -> float:
    """Return where the tangents of G at both ends meet."""
    first, last, mean = _gains(below, above, target)
    shift = (above.mu - below.mu) * (mean - last) / (first - last)
    return min(max(below.mu + shift, below.mu), above.mu)


def _cubic(below: Point, above: Point, target: float) -> float:
    """Return the maximum of the cubic with both values and slopes of G."""
    first, last, mean = _gains(below, above, target)
    width = above.mu - below.mu
    if not last < mean < first:  # energies too inexact for their difference: use densities alone
        return below.mu + width * first / (first - last)
    curve = CubicHermiteSpline([0, width], [0, mean * width], [first, last])
    return below.mu + float(curve.derivative().roots(extrapolate=False)[0])


def _refuse_jump(
    runs: list[Point], target: float, tolerance: float, below: Point, above: Point
) -> None:
    """Raise JumpError if the bracket, with the newest run at one end, shows a crossing."""
    size = max(1.0, abs(below.mu), abs(above.mu))
    width, rise, ends = above.mu - below.mu, above.number - below.number, (below, above)
    if width <= FINEST * size:
        raise JumpError(0.5 * (below.mu + above.mu), below, above)
    meeting, resolution = _tangents(below, above, target), RESOLUTION * size
    rounding = ENERGY_ROUNDING * max(1.0, *(abs(end.energy) for end in ends))
    # of the place where the tangents meet
    blur = 4 * max(rounding, *(end.energy_error for end in ends)) / rise
    # all of a smooth rise over a width w at one end keeps the meeting w / 2 away from that end
    transition = 2 * min(meeting - below.mu, above.mu - meeting)
    if transition <= max(resolution, blur) < NARROW * width and rise > 20 * tolerance:
        # a run at the crossing itself is a mixture; the sides are the nearest runs beside it
        left = max((p for p in runs if p.mu < meeting - resolution), key=lambda p: p.mu)
        right = min((p for p in runs if p.mu > meeting + resolution), key=lambda p: p.mu)
        raise JumpError(meeting, left, right)
