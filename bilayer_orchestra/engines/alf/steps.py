"""Imaginary-time steps: which ones, and whether they divide beta exactly.

ALF rounds beta/dtau silently and then simulates another temperature, so a step that does not
divide is refused here with the nearest ones that do.
"""

import math

import numpy as np

from bilayer_orchestra.engines.alf.settings import ALFNumerics
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.terms import GrandCanonical, Terms

#: Relative deviation of beta/dtau from a whole number that is rounding of decimal input.
TOLERANCE = 1e-9
#: The smallest automatic step times the energy scale: docs/decisions/0009.
AUTO_PRODUCT = 0.4
#: The smallest automatic step in 1/energy where all energies are small.
FINEST = 0.1
#: Automatic steps may take this many times the slices to avoid a :func:`resonance` ...
MORE_SLICES = 1.5
#: ... but at least so many more slices, where there are hardly any,
FEW = 4
#: and at most so many: they cost time.
MANY = 40
#: The first choice whose resonance is at most so many times the smallest is taken.
GOOD_ENOUGH = 1.5
#: A step with a larger :func:`resonance` is not believed: docs/decisions/0016.
RESONANT = 100.0
#: It is believed where attractive sites are less isolated than this: :func:`resonant_steps`.
ISOLATED = 2.0


def time_steps(terms: Terms, numerics: ALFNumerics) -> tuple[float, ...]:
    """Return the time steps of this run.

    Raises
    ------
    OrchestraError
        If one does not divide beta (or the projection time), with the nearest that do.
    """
    name, total = duration(terms, numerics)
    if numerics.dtau == "auto":
        return _automatic(terms, total)
    steps = numerics.dtau if isinstance(numerics.dtau, tuple) else (numerics.dtau,)
    for step in steps:
        if not divides(step, total):
            raise OrchestraError(
                f"alf: numerics.alf.dtau = {step:g} does not divide {name} = {total:g} "
                f"({total / step:.4g} steps), and ALF would silently simulate another {name}; "
                f"the nearest that do: {' and '.join(nearest(step, total))}"
            )
    return steps


def divides(step: float, total: float) -> bool:
    """Whether ``total`` is a whole number of steps."""
    count = total / step
    return round(count) >= 1 and abs(count - round(count)) <= TOLERANCE * count


def round_time(numerics: ALFNumerics, needed: float) -> float:
    """Return a round time of at least ``needed`` whose half and quarter all given steps divide."""
    assert not isinstance(numerics.dtau, str)
    steps = numerics.dtau if isinstance(numerics.dtau, tuple) else (numerics.dtau,)
    unit = max(steps)
    count = math.ceil(needed / (4 * unit) * (1 - 1e-9))
    for candidate in range(count, 2 * count + 50):
        quarter = round(candidate * unit, 9)
        if all(divides(step, quarter) for step in steps):
            return round(4 * quarter, 9)
    raise OrchestraError(
        f"numerics.alf.dtau = {list(steps)}: no inverse temperature near {needed:.3g} is a "
        "multiple of all of them; use `dtau: auto`"
    )


def nearest(step: float, total: float) -> list[str]:
    """Return the nearest smaller and larger dividing steps, as texts to copy.

    Short decimals are preferred if one is within 25 % of the wish.
    """
    count = total / step
    below = range(math.ceil(count), math.ceil(1.25 * count) + 1)  # more slices: smaller steps
    above = range(math.floor(count), max(1, math.floor(count / 1.25)) - 1, -1)
    texts = []
    for counts in (below, above):
        usable = [n for n in counts if n >= 1 and total / n <= 1]
        if usable:
            short = [n for n in usable if float(f"{total / n:.3g}") * n == total]
            chosen = (short or usable)[0]
            texts.append(f"{total / chosen!r} ({chosen} steps)")
    return texts


def duration(terms: Terms, numerics: ALFNumerics) -> tuple[str, float]:
    """Return the imaginary time of a run, in 1/energy, and what it is called."""
    if isinstance(terms.state, GrandCanonical):
        return "beta", terms.state.beta
    return "projection_time", numerics.projection_time


def _automatic(terms: Terms, total: float) -> tuple[float, ...]:
    """Three steps h, h/2, h/4: 0.4, 0.2, 0.1 at |U| = 4, half of that at |U| = 8.

    At a temperature up to half as many slices again are taken, if that avoids a resonance.
    """
    scale = max(largest_energy(terms), AUTO_PRODUCT / FINEST)
    count = max(1, math.ceil(total * scale / (4 * AUTO_PRODUCT) * (1 - TOLERANCE)))
    if isinstance(terms.state, GrandCanonical):
        more = min(max(FEW, math.ceil((MORE_SLICES - 1) * count)), MANY)
        scores = {
            n: max(resonance(terms, total, k * n) for k in (1, 2, 4))
            for n in range(count, count + more + 1)
        }
        count = next(n for n, s in scores.items() if s <= GOOD_ENOUGH * min(scores.values()))
    return total / count, total / (2 * count), total / (4 * count)


def resonance(terms: Terms, beta: float, slices: int) -> float:
    """Return the second moment of the estimators of an isolated attractive site, none: 0.

    The fields of a site add up to a phase a M with cos a = exp(-dtau |U| / 2) and M = -n, 2 - n,
    ..., n. Where that comes close to pi the weight |1 + exp(i a M)|^2 of a half filled site
    vanishes and its Green function 1 / (1 + exp(i a M)) diverges: configurations that are never
    sampled carry a part of the average. The mean of 4 / |1 + exp(i a M)|^2 over all fields is a few
    where no M is close, and 100 and more at a resonance. See docs/decisions/0016.

    Parameters
    ----------
    terms : Terms
        The model.
    beta : float
        Inverse temperature in 1/energy.
    slices : int
        Time slices in it.
    """
    from scipy.special import gammaln

    signs = np.arange(-slices, slices + 1, 2)
    up = (signs + slices) / 2
    log_count = gammaln(slices + 1) - gammaln(up + 1) - gammaln(slices - up + 1)
    share = np.exp(log_count - slices * math.log(2))
    worst = 0.0
    for attraction in {float(u) for u in terms.interaction if u < 0}:
        angle = math.acos(math.exp(beta / slices * attraction / 2))
        weight = np.maximum(np.cos(angle * signs / 2) ** 2, 1e-12)
        worst = max(worst, float(np.sum(share / weight)))
    return worst


def resonant_steps(terms: Terms, dtau: list[float]) -> list[float]:
    """Return the steps at which nearly isolated sites hide a part of their averages.

    Isolation is the smallest beta sqrt(sum_j h_ij^2) of an attractive site: small if it is alone.
    """
    attractive = terms.interaction < 0
    if not isinstance(terms.state, GrandCanonical) or not attractive.any():
        return []
    beta = terms.state.beta
    isolation = beta * np.sqrt(np.sum(terms.hopping[attractive] ** 2, axis=1)).min()
    return [
        step
        for step in dtau
        if isolation <= ISOLATED and resonance(terms, beta, round(beta / step)) > RESONANT
    ]


def largest_energy(terms: Terms) -> float:
    """Return the energy that a time step has to be small against."""
    bandwidth = float(np.abs(np.linalg.eigvalsh(terms.one_body)).max())
    return max(float(np.abs(terms.interaction).max()), 1.5 * bandwidth)
