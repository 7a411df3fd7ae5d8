"""Find mu with n(mu) = target in a ground state at fixed particle number.

H(mu) = H - mu N_M, so E(mu) is concave and N_M(mu) = -dE/dmu never decreases. It may jump, where
two levels cross. Every run gives value and slope of

    G(mu) = E(mu) + mu N_target,    G' = N_target - N_M(mu)

whose maximum is wanted. The tangents of two runs on either side of it meet above it. If a run at
the meeting lies on both tangents, the maximum is a kink: the levels cross there, no density in
between exists, and no bisection is needed to say so. Otherwise the cubic through both values and
slopes is maximized, or mu(N) interpolated once runs are near. Bisection is the safeguard.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

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

    Attributes
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


@dataclass
class Solution:
    """The root, all runs in their order, and the slope dN/dmu next to it."""

    point: Point
    runs: list[Point]
    slope: float


@dataclass
class _Bracket:
    runs: list[Point] = field(default_factory=list)
    below: Point | None = None
    above: Point | None = None


def monotone_root(
    evaluate: Callable[[float], Point],
    target: float,
    tolerance: float,
    starts: list[float],
    slope: float,
    limits: tuple[float, float],
    largest_step: float,
) -> Solution:
    """Return a run whose number is within ``tolerance`` of ``target``.

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
    state = _Bracket()
    waiting = list(starts)
    mu, step = waiting.pop(0), largest_step
    last_width, last_miss, idle, met = math.inf, math.inf, 0, False
    for _ in range(MAX_RUNS):
        point = evaluate(mu)
        state.runs.append(point)
        if abs(point.number - target) <= tolerance:
            return Solution(point, state.runs, _slope(state, point, slope))
        before = (state.below, state.above)
        _update(state, point, target)
        below, above = state.below, state.above
        if waiting:
            mu = waiting.pop(0)
            continue
        if below is None or above is None:
            if mu in limits:
                raise OutOfRangeError(point)
            slope = _slope(state, point, slope)
            wished = 1.2 * (target - point.number) / slope
            shift = math.copysign(min(abs(wished), step), wished)
            if len(state.runs) > 2:  # the estimate of the slope was no good: go on, further
                shift = math.copysign(max(abs(shift), step / 4), wished)
            step *= 2
            mu = min(max(mu + shift, limits[0]), limits[1])
            continue
        _refuse_jump(state.runs, target, tolerance, below, above)
        width = above.mu - below.mu
        miss = min(abs(run.number - target) for run in state.runs)
        advanced = width < 0.5 * last_width or miss < 0.5 * last_miss
        idle = 0 if advanced else idle + 1
        last_width, last_miss = min(width, last_width), min(miss, last_miss)
        # densities that do not move on one side of the target: a step, whose place tangents tell
        flat = any(
            old is not None and abs(new.number - old.number) < FLAT * abs(new.number - target)
            for old, new in ((before[0], below), (before[1], above))
            if old is not new
        )
        met = flat and not met
        if met:
            mu = _inside(_tangents(below, above, target), below.mu, above.mu)
            continue
        mu = _inside(_next(state.runs, below, above, target, idle), below.mu, above.mu)
        if idle == LONGEST_IDLE:
            idle = 0
    raise JumpError(mu, state.below or point, state.above or point)


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
    total = 0.0
    for one in near:  # Lagrange's formula
        weight = one.mu
        for other in near:
            if other is not one:
                weight *= (target - other.number) / (one.number - other.number)
        total += weight
    return total


def _update(state: _Bracket, point: Point, target: float) -> None:
    """Take the run into the bracket; noise of non-monotonic runs must not empty it."""
    if point.number < target and (state.below is None or point.mu > state.below.mu):
        state.below = point
    if point.number > target and (state.above is None or point.mu < state.above.mu):
        state.above = point
    if state.below and state.above and state.below.mu >= state.above.mu:
        # they contradict each other (runs that are not converged): keep the newest, forget the rest
        if point.number < target:
            state.above = None
        else:
            state.below = None


def _slope(state: _Bracket, point: Point, fallback: float) -> float:
    """dN/dmu between the run and its nearest neighbour, if that is positive."""
    others = [other for other in state.runs if other.mu != point.mu]
    if not others:
        return fallback
    near = min(others, key=lambda other: abs(other.mu - point.mu))
    slope = (point.number - near.number) / (point.mu - near.mu)
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
    if not last < mean < first:  # energies too inexact for their difference: use densities alone
        return below.mu + (above.mu - below.mu) * first / (first - last)
    a, b = 3 * first + 3 * last - 6 * mean, -4 * first - 2 * last + 6 * mean
    root = math.sqrt(max(b * b - 4 * a * first, 0.0))
    # of both solutions of a s^2 + b s + first = 0 the one in (0, 1), without cancellation
    q = -0.5 * (b + math.copysign(root, b))
    candidates = [first / q if q else math.nan, q / a if a else math.nan]
    inside = [s for s in candidates if 0 < s < 1]
    s = inside[0] if inside else first / (first - last)
    return below.mu + s * (above.mu - below.mu)


def _inside(mu: float, low: float, high: float) -> float:
    margin = 1e-6 * (high - low)
    return min(max(mu, low + margin), high - margin)


def _refuse_jump(
    runs: list[Point], target: float, tolerance: float, below: Point, above: Point
) -> None:
    """Raise JumpError if the bracket, with the newest run at one end, shows a crossing."""
    size = max(1.0, abs(below.mu), abs(above.mu))
    resolution = RESOLUTION * size
    width = above.mu - below.mu
    if width <= FINEST * size:
        raise JumpError(0.5 * (below.mu + above.mu), below, above)
    rise = above.number - below.number
    meeting = _tangents(below, above, target)
    ends = (below, above)
    noise = max(
        *(end.energy_error for end in ends),
        *(ENERGY_ROUNDING * max(1.0, abs(end.energy)) for end in ends),
    )
    blur = 4 * noise / rise  # of the place where the tangents meet
    # all of a smooth rise over a width w at one end keeps the meeting w / 2 away from that end
    transition = 2 * min(meeting - below.mu, above.mu - meeting)
    narrow = transition <= max(resolution, blur) < NARROW * width
    if narrow and rise > 20 * tolerance:
        # a run at the crossing itself is a mixture; the sides are the nearest runs beside it
        left = max((p for p in runs if p.mu < meeting - resolution), key=lambda p: p.mu)
        right = min((p for p in runs if p.mu > meeting + resolution), key=lambda p: p.mu)
        raise JumpError(meeting, left, right)
