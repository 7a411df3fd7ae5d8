"""The functions that correlations are compared with.

A form is linear in its amplitudes and nonlinear in few shape parameters u:

    C(x, y) = sum_m a_m B_m(x, y; u)

so that a fit searches u alone and solves for a. Positions count from 1. With

    d(z|l) = (l/pi) |sin(pi z/l)|                       the chord on a ring of l
    s(z|xi) = (xi/pi) sinh(pi z/xi)                     its thermal counterpart, xi = v beta

a primary field with decay exponent eta has, by conformal invariance (J. Cardy, Nucl. Phys. B 240,
514 (1984); M. Fabrizio and A. O. Gogolin, PRB 51, 17827 (1995); M. A. Cazalilla, EPL 59, 793
(2002) and J. Phys. B 37, S1 (2004)):

    ring, T = 0     d(r|L)^-eta
    open, T = 0     [ sqrt(d(2x|l) d(2y|l)) / (d(x-y|l) d(x+y|l)) ]^eta,    l = 2 (L + 1)
    T > 0, L >> xi  s(r|xi)^-eta, plus the way around on a ring, times the factor of both ends of
                    an open chain, [ sqrt(s(2x) s(2y)) / s(x+y) ]^eta and its mirror image

The thermal forms hold for a linear spectrum; :func:`curvature` says what a band changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bilayer_orchestra.fits.pairs import IntArray, Pairs
from bilayer_orchestra.terms import FloatArray

#: The shape parameter 1/xi of thermal forms, their last; eta is the first.
THERMAL = "inverse_thermal_xi"
#: The amplitude of the correction r^-2.
CORRECTION = "r^-2"

Basis = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class Form:
    """One functional form.

    Parameters
    ----------
    name : str
        Stored with the result.
    shape : tuple of str
        Names of the nonlinear parameters u. Lengths enter inversely: 1/xi = 0 is nothing special.
    amplitudes : tuple of str
        Names of the linear ones.
    bind : callable
        ``bind(x, y, length)`` returns ``basis(u)``, an array (pairs, amplitudes).
    """

    name: str
    shape: tuple[str, ...]
    amplitudes: tuple[str, ...]
    bind: Callable[[IntArray, IntArray, int], Basis]

    @property
    def k(self) -> int:
        """Number of parameters."""
        return len(self.shape) + len(self.amplitudes)


def chord(z: FloatArray | IntArray, length: float) -> FloatArray:
    """Return d(z|l) = (l/pi) |sin(pi z/l)|."""
    return np.asarray(length / np.pi * np.abs(np.sin(np.pi * z / length)))


def log_thermal(z: FloatArray, xi: float) -> FloatArray:
    """Return log s(z|xi); no overflow at z >> xi."""
    reduced = np.pi * np.abs(z) / xi
    return np.asarray(np.log(xi / (2 * np.pi)) + reduced + np.log(-np.expm1(-2 * reduced)))


class _Chain:
    """log s (at T = 0 log d) of all pairs, computed once per whole number, not per pair."""

    def __init__(
        self, x: IntArray, y: IntArray, length: int, periodic: bool, thermal: bool
    ) -> None:
        self.x, self.y, self.length, self.r = x, y, length, np.abs(x - y)
        self.periodic, self.thermal = periodic, thermal
        self.ring = length if periodic else 2 * (length + 1)  # with its mirror image
        self.distances, self.numbers = np.arange(length + 1.0), np.arange(1.0, 2 * length + 1)

    def logs(self, u: FloatArray) -> FloatArray:
        """Return log s(z) for z = 0 .. 2L; z = 0 is never asked for."""
        if self.thermal:
            logs = log_thermal(self.numbers, 1 / max(abs(u[-1]), 1e-12))
        else:
            logs = np.log(chord(self.numbers, self.ring))
        return np.concatenate([[0.0], logs])

    def ends(self, logs: FloatArray) -> FloatArray:
        """Return what the ends of an open chain add to log s(x - y)."""

        def one_end(x: IntArray, y: IntArray) -> FloatArray:
            return np.asarray(logs[x + y] - 0.5 * (logs[2 * x] + logs[2 * y]))

        first = one_end(self.x, self.y)
        if not self.thermal:  # the chord knows both ends
            return first
        return np.asarray(first + one_end(self.length + 1 - self.x, self.length + 1 - self.y))

    def spread(self, per_distance: FloatArray) -> FloatArray:
        """Return f(r) of all pairs from f(0 .. L) (L + 1, ...); on a ring with the way around."""
        one_way = np.asarray(per_distance[self.r])
        if not (self.periodic and self.thermal):  # the chord knows both ways
            return one_way
        return np.asarray(one_way + per_distance[self.length - self.r])


def _present(**names: bool) -> tuple[str, ...]:
    """Return the names of what is there."""
    return tuple(name for name, there in names.items() if there)


def pair(periodic: bool, thermal: bool, correction: str = "") -> Form:
    """Return the form of pairs; at T > 0 it is valid for a chain much longer than xi.

    Parameters
    ----------
    periodic, thermal : bool
        A ring instead of an open chain, T > 0 instead of the ground state.
    correction : {"", "wave", "r^-2"}
        ``wave``: 1 + b cos(q r) r^(-1/eta), not for an open chain at T = 0. The field that creates
        a pair is e^(i theta) [1 + b cos(2 phi + q x)] (F. D. M. Haldane, PRL 47, 1840 (1981)): the
        leading correction oscillates at the density's 2 k_F and decays with its exponent.
        ``r^-2``: 1 + b r^-2, r the chord or its thermal counterpart, in the bulk. The first
        descendant of every field brings this correction, whatever the lattice.
    """

    def bind(x: IntArray, y: IntArray, length: int) -> Basis:
        chain = _Chain(x, y, length, periodic, thermal)

        def basis(u: FloatArray) -> FloatArray:
            logs = chain.logs(u)
            log_s = logs[: length + 1]
            columns = [np.exp(-u[0] * log_s)]
            if correction == "wave":
                wave = np.cos(u[1] * chain.distances) * np.exp(-log_s / max(u[0], 0.05))
                columns.append(columns[0] * wave)
            values = chain.spread(np.stack(columns, axis=1))
            if not periodic:
                values = values * np.exp(-u[0] * chain.ends(logs))[:, None]
            if correction == CORRECTION:
                values = np.hstack([values, values * np.exp(-2 * log_s[chain.r])[:, None]])
            return values

        return basis

    name = "thermal" if thermal else "periodic" if periodic else "open"
    return Form(
        f"{name} with {correction}" if correction else name,
        _present(eta=True, wave_vector=correction == "wave", inverse_thermal_xi=thermal),
        ("amplitude", correction) if correction else ("amplitude",),
        bind,
    )


def density(periodic: bool, thermal: bool) -> Form:
    """Return the connected density correlation on a ring, or at T > 0 away from the ends.

    Its uniform and its oscillating part, B s(r)^-2 + A cos(q r) s(r)^-eta.
    """

    def bind(x: IntArray, y: IntArray, length: int) -> Basis:
        chain = _Chain(x, y, length, periodic, thermal)

        def basis(u: FloatArray) -> FloatArray:
            log_s = chain.logs(u)[: length + 1]
            wave = np.cos(u[1] * chain.distances) * np.exp(-u[0] * log_s)
            return chain.spread(np.stack([np.exp(-2 * log_s), wave], axis=1))

        return basis

    name = f"density, {'thermal' if thermal else 'periodic'}"
    shape = _present(eta=True, wave_vector=True, inverse_thermal_xi=thermal)
    return Form(name, shape, ("uniform", "amplitude"), bind)


def density_open(parity: int) -> Form:
    """Return the connected density correlation on an open chain at T = 0.

    ``n(x) - <n> = -(1/pi) d phi + c cos(2 phi + q x + delta)`` with phi fixed at both ends: the
    uniform part, the oscillating part and their product, each with its mirror images. Reflection
    symmetry fixes q (L + 1) + 2 delta = parity pi.
    """

    def bind(x: IntArray, y: IntArray, length: int) -> Basis:
        ring = 2 * (length + 1)
        minus, plus = chord(x - y, ring), chord(x + y, ring)
        log_ratio = np.log(plus / minus)
        half_log_x, half_log_y = (0.5 * np.log(chord(2 * one, ring)) for one in (x, y))
        cot_minus, cot_plus = (1 / np.tan(np.pi * one / ring) for one in (x - y, x + y))

        def basis(u: FloatArray) -> FloatArray:
            eta, q = u
            delta = 0.5 * (parity * np.pi - q * (length + 1))
            at_x, at_y = np.exp(-eta * half_log_x), np.exp(-eta * half_log_y)
            wave = np.cos(q * (x - y)) * np.expm1(eta * log_ratio)
            wave += np.cos(q * (x + y) + 2 * delta) * np.expm1(-eta * log_ratio)
            mixed = np.sin(q * y + delta) * at_y * (cot_minus - cot_plus)
            mixed -= np.sin(q * x + delta) * at_x * (cot_minus + cot_plus)
            uniform = minus**-2 + plus**-2
            return np.stack([uniform, at_x * at_y * wave, np.pi / ring * mixed], axis=1)

        return basis

    name = f"density, open, parity {parity}"
    return Form(name, ("eta", "wave_vector"), ("uniform", "amplitude", "mixed"), bind)


def metal(periodic: bool, power: float | None, oscillating: bool) -> Form:
    """Return B exp(-r/xi) r^-a cos(k r + phi), plus the way around on a ring.

    Fitted with its sign: |G| = |...| has the same parameters, and noise does not become positive.

    Parameters
    ----------
    periodic : bool
        Whether the chain is a ring.
    power : float or None
        a; None: fitted.
    oscillating : bool
        Whether there is the cosine.
    """

    def bind(x: IntArray, y: IntArray, length: int) -> Basis:
        r = np.abs(x - y)

        def one_way(u: FloatArray, z: IntArray) -> FloatArray:
            a = float(u[1]) if power is None else power
            envelope = np.exp(-u[0] * z) * z**-a
            if not oscillating:
                return np.asarray(envelope)[:, None]
            return np.stack([envelope * np.cos(u[-1] * z), envelope * np.sin(u[-1] * z)], axis=1)

        if not periodic:
            return lambda u: one_way(u, r)
        return lambda u: one_way(u, r) + one_way(u, length - r)

    return Form(
        f"metal, a = {'free' if power is None else f'{power:g}'}",
        _present(inverse_xi=True, power=power is None, wave_vector=oscillating),
        ("cosine", "sine") if oscillating else ("amplitude",),
        bind,
    )


def forms_for(what: str, pairs: Pairs, power: float | None) -> list[Form]:
    """Return the forms that compete in the model average.

    Parameters
    ----------
    what : {"pair", "density", "green"}
        The correlation.
    pairs : Pairs
        The data.
    power : float or None
        Of a Green function; None: zero and free compete.
    """
    thermal, periodic = pairs.beta is not None, pairs.periodic
    if what == "green":
        powers = [0.0, None] if power is None else [power]
        return [metal(periodic, one, pairs.changes_sign) for one in powers]
    if what == "density":
        if thermal or periodic:
            return [density(periodic, thermal)]
        return [density_open(parity) for parity in (0, 1)]
    plain = pair(periodic, thermal)
    if pairs.statistical:
        # noise hides a wave, but not always what r^-2 does to eta: see docs/fits.md
        return [plain, pair(periodic, thermal, CORRECTION)]
    return [plain, pair(periodic, thermal, "wave")] if thermal or periodic else [plain]


def curvature(filling: float, xi: float) -> float:
    """Return the relative size of the first correction to a thermal form.

    A lattice band, -2 t cos k, has

        e(k_F + q) = v (q + cot(k_F) q^2 / 2 - q^3 / 6 + ...)

    and a temperature samples q of order pi T / v = pi / xi. The cubic term changes what is read off
    a correlation by (pi/xi)^2 / 6 relative to it, the quadratic one, which cancels in first order
    between both Fermi points, by (cot(k_F) / 2)^2 (pi/xi)^2. No window of the same data can show
    this: the correlation at one temperature looks like the form with another exponent. For
    hard-core bosons (beta t = 4 to 12, filling 1/10 to 1/2) the true shift of eta is below this
    estimate.

    Parameters
    ----------
    filling : float
        Particles of one kind per site, k_F = pi filling; NaN: unknown, taken as 1/2.
    xi : float
        Thermal length v beta in sites.
    """
    return float((1 / 6 + _cotangent(filling) ** 2 / 4) * (np.pi / xi) ** 2)


def wave_vector_shift(filling: float, xi: float) -> float:
    """Return how far the temperature moves 2 k_F of a density correlation, 1 / site.

    The quadratic term turns the oscillation: the pole of the Fermi function that carries the
    correlation lies at k_F + i kappa + cot(k_F) kappa^2 / 2 with kappa = pi / xi. Parameters are
    those of :func:`curvature`.
    """
    return float(abs(_cotangent(filling)) * (np.pi / xi) ** 2)


def _cotangent(filling: float) -> float:
    k_f = np.pi * np.clip(np.nan_to_num(filling, nan=0.5), 1e-3, 1 - 1e-3)
    return float(1 / np.tan(k_f))
