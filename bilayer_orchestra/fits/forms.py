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
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bilayer_orchestra.terms import FloatArray

Basis = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class Form:
    """One functional form.

    Parameters
    ----------
    name : str
        Stored with the result.
    formula : str
        For people.
    shape : tuple of str
        Names of the nonlinear parameters u. Lengths enter inversely: 1/xi = 0 is nothing special.
    amplitudes : tuple of str
        Names of the linear ones.
    bind : callable
        ``bind(x, y, length)`` returns ``basis(u)``, an array (pairs, amplitudes).
    """

    name: str
    formula: str
    shape: tuple[str, ...]
    amplitudes: tuple[str, ...]
    bind: Callable[[FloatArray, FloatArray, int], Basis]


def chord(z: FloatArray, length: float) -> FloatArray:
    """Return d(z|l) = (l/pi) |sin(pi z/l)|."""
    return np.asarray(length / np.pi * np.abs(np.sin(np.pi * z / length)))


def log_thermal(z: FloatArray, xi: float) -> FloatArray:
    """Return log s(z|xi); no overflow at z >> xi."""
    reduced = np.pi * np.abs(z) / xi
    return np.asarray(np.log(xi / (2 * np.pi)) + reduced + np.log(-np.expm1(-2 * reduced)))


def _log_open(x: FloatArray, y: FloatArray, length: int) -> FloatArray:
    """Return -log of the open-boundary ratio at eta = 1."""
    ring = 2 * (length + 1)
    return np.asarray(
        np.log(chord(x - y, ring) * chord(x + y, ring))
        - 0.5 * np.log(chord(2 * x, ring) * chord(2 * y, ring))
    )


class _Thermal:
    """log s of all pairs as a function of xi, computed once per whole number, not per pair."""

    def __init__(self, x: FloatArray, y: FloatArray, length: int, periodic: bool) -> None:
        self.i, self.j = x.astype(int), y.astype(int)
        self.r = np.abs(self.i - self.j)
        self.length, self.periodic = length, periodic
        self.numbers = np.arange(1.0, 2 * length + 1)

    def table(self, inverse_xi: float) -> FloatArray:
        """Return log s(z) for z = 0 .. 2L; z = 0 is never asked for."""
        xi = 1 / max(abs(inverse_xi), 1e-12)
        return np.concatenate([[0.0], log_thermal(self.numbers, xi)])

    def ends(self, table: FloatArray) -> FloatArray:
        """Return what the ends of an open chain add to log s(x - y)."""
        half = 0.5 * table[2 : 2 * self.length + 1 : 2]
        site = np.concatenate([[0.0], half + half[::-1]])
        around = 2 * (self.length + 1) - self.i - self.j
        return np.asarray(table[self.i + self.j] + table[around] - site[self.i] - site[self.j])

    def both_ways(self, per_distance: FloatArray) -> FloatArray:
        """Return f(r), on a ring f(r) + f(L - r), from f(0 .. L) (L + 1, ...)."""
        result = per_distance[self.r]
        around = self.length - self.r
        return np.asarray(result + per_distance[around]) if self.periodic else result


def _pair_at_zero_temperature(periodic: bool) -> Form:
    def bind(x: FloatArray, y: FloatArray, length: int) -> Basis:
        log_distance = np.log(chord(x - y, length)) if periodic else _log_open(x, y, length)
        return lambda u: np.asarray(np.exp(-u[0] * log_distance)[:, None])

    name, formula = "open", "A [sqrt(d(2x|l) d(2y|l)) / (d(x-y|l) d(x+y|l))]^eta, l = 2(L+1)"
    if periodic:
        name, formula = "periodic", "A d(r|L)^-eta"
    return Form(name, formula, ("eta",), ("amplitude",), bind)


def pair(periodic: bool, thermal: bool) -> Form:
    """Return the form of pairs; at T > 0 it is valid for a chain much longer than xi."""
    if not thermal:
        return _pair_at_zero_temperature(periodic)

    def bind(x: FloatArray, y: FloatArray, length: int) -> Basis:
        at = _Thermal(x, y, length, periodic)

        def basis(u: FloatArray) -> FloatArray:
            table = at.table(u[1])
            plain = at.both_ways(np.exp(-u[0] * table[: length + 1]))
            if not periodic:
                plain = plain * np.exp(-u[0] * at.ends(table))
            return np.asarray(plain)[:, None]

        return basis

    around = "plus the way around" if periodic else "times the factors of both ends"
    return Form(
        "thermal",
        f"A [(xi/pi) sinh(pi r/xi)]^-eta {around}",
        ("eta", "inverse_thermal_xi"),
        ("amplitude",),
        bind,
    )


def pair_wave(periodic: bool, thermal: bool) -> Form:
    """Return the pair form with its leading correction, which oscillates at the density's 2 k_F.

    The field that creates a pair is e^(i theta) [1 + b cos(2 phi + q x)] (F. D. M. Haldane, PRL 47,
    1840 (1981)): the correction decays faster by r^(-1/eta), the exponent of the density wave. For
    a ring at T = 0, or T > 0.
    """

    def bind(x: FloatArray, y: FloatArray, length: int) -> Basis:
        at = _Thermal(x, y, length, periodic)
        distances = np.arange(length + 1.0)
        log_chord = np.concatenate([[0.0], np.log(chord(distances[1:length], length)), [0.0]])

        def basis(u: FloatArray) -> FloatArray:
            log_all = at.table(u[2]) if thermal else log_chord
            log_s = log_all[: length + 1]
            plain = np.exp(-u[0] * log_s)
            wave = plain * np.cos(u[1] * distances) * np.exp(-log_s / max(u[0], 0.05))
            two = np.stack([plain, wave], axis=1)
            if not thermal:
                return np.asarray(two[at.r])
            if periodic:
                return at.both_ways(two)
            return np.asarray(two[at.r] * np.exp(-u[0] * at.ends(log_all))[:, None])

        return basis

    distance = "s(r|xi)" if thermal else "d(r|L)"
    return Form(
        f"{'thermal' if thermal else 'periodic'} with wave",
        f"A {distance}^-eta [1 + b cos(q r) {distance}^(-1/eta)]",
        ("eta", "wave_vector", *(("inverse_thermal_xi",) if thermal else ())),
        ("amplitude", "wave"),
        bind,
    )


def pair_corrected(plain: Form, periodic: bool) -> Form:
    """Return a pair form times 1 + b r^-2, r the chord or its thermal counterpart.

    The first descendant of every field brings this correction, whatever the lattice. On an open
    chain the distance is that of the bulk.
    """
    thermal = "inverse_thermal_xi" in plain.shape

    def bind(x: FloatArray, y: FloatArray, length: int) -> Basis:
        at = _Thermal(x, y, length, periodic)
        inner = plain.bind(x, y, length)
        ring = length if periodic else 2 * (length + 1)
        chord_squared = chord(x - y, ring) ** 2

        def basis(u: FloatArray) -> FloatArray:
            values = inner(u)
            if not thermal:
                return np.concatenate([values, values / chord_squared[:, None]], axis=1)
            squared = np.exp(-2 * at.table(u[1])[: length + 1])
            return np.concatenate([values, values * squared[at.r][:, None]], axis=1)

        return basis

    return Form(
        f"{plain.name} with r^-2",
        f"{plain.formula} [1 + b r^-2]",
        plain.shape,
        ("amplitude", "correction"),
        bind,
    )


def density_ring() -> Form:
    """Return uniform and oscillating part of the connected density correlation on a ring."""

    def bind(x: FloatArray, y: FloatArray, length: int) -> Basis:
        r = np.abs(x - y)
        distance = chord(r, length)
        return lambda u: np.stack([distance**-2.0, np.cos(u[1] * r) * distance ** -u[0]], axis=1)

    return Form(
        "density, periodic",
        "B d(r|L)^-2 + A cos(q r) d(r|L)^-eta",
        ("eta", "wave_vector"),
        ("uniform", "amplitude"),
        bind,
    )


def density_open(parity: int) -> Form:
    """Return the connected density correlation on an open chain at T = 0.

    ``n(x) - <n> = -(1/pi) d phi + c cos(2 phi + q x + delta)`` with phi fixed at both ends: the
    uniform part, the oscillating part and their product, each with its mirror images. Reflection
    symmetry fixes q (L + 1) + 2 delta = parity pi.
    """

    def bind(x: FloatArray, y: FloatArray, length: int) -> Basis:
        ring = 2 * (length + 1)
        minus, plus = chord(x - y, ring), chord(x + y, ring)
        log_ratio, log_ends = np.log(plus / minus), 0.5 * np.log(chord(2 * x, ring))
        log_ends_y = 0.5 * np.log(chord(2 * y, ring))
        cot_minus = 1 / np.tan(np.pi * (x - y) / ring)
        cot_plus = 1 / np.tan(np.pi * (x + y) / ring)

        def basis(u: FloatArray) -> FloatArray:
            eta, q = u
            delta = 0.5 * (parity * np.pi - q * (length + 1))
            ends_x, ends_y = np.exp(-eta * log_ends), np.exp(-eta * log_ends_y)
            oscillating = (
                ends_x
                * ends_y
                * (
                    np.cos(q * (x - y)) * np.expm1(eta * log_ratio)
                    + np.cos(q * (x + y) + 2 * delta) * np.expm1(-eta * log_ratio)
                )
            )
            mixed = (
                np.pi
                / ring
                * (
                    np.sin(q * y + delta) * ends_y * (cot_minus - cot_plus)
                    - np.sin(q * x + delta) * ends_x * (cot_minus + cot_plus)
                )
            )
            return np.stack([minus**-2 + plus**-2, oscillating, mixed], axis=1)

        return basis

    return Form(
        f"density, open, parity {parity}",
        "B [d(x-y)^-2 + d(x+y)^-2] + A [oscillating at q with images] + D [their product]",
        ("eta", "wave_vector"),
        ("uniform", "amplitude", "mixed"),
        bind,
    )


def density_thermal(periodic: bool) -> Form:
    """Return the connected density correlation at T > 0, away from the ends of an open chain."""

    def bind(x: FloatArray, y: FloatArray, length: int) -> Basis:
        at = _Thermal(x, y, length, periodic)
        distances = np.arange(length + 1.0)

        def basis(u: FloatArray) -> FloatArray:
            log_s = at.table(u[2])[: length + 1]
            wave = np.cos(u[1] * distances) * np.exp(-u[0] * log_s)
            return at.both_ways(np.stack([np.exp(-2 * log_s), wave], axis=1))

        return basis

    return Form(
        "density, thermal",
        "B s(r)^-2 + A cos(q r) s(r)^-eta, s(r) = (xi/pi) sinh(pi r/xi)",
        ("eta", "wave_vector", "inverse_thermal_xi"),
        ("uniform", "amplitude"),
        bind,
    )


def metal(periodic: bool, power: float | None, oscillating: bool) -> Form:
    """Return B exp(-r/xi) r^-a cos(k r + phi), plus the way around on a ring.

    Fitted with its sign: |G| = |...| has the same parameters, and noise does not become positive.

    Parameters
    ----------
    power : float or None
        a; None: fitted.
    oscillating : bool
        Whether there is the cosine.
    """
    shape = ("inverse_xi", *(("power",) if power is None else ()))
    shape = (*shape, *(("wave_vector",) if oscillating else ()))

    def bind(x: FloatArray, y: FloatArray, length: int) -> Basis:
        r = np.abs(x - y)

        def one_way(u: FloatArray, z: FloatArray) -> FloatArray:
            a = u[1] if power is None else power
            envelope = np.exp(-u[0] * z) * z**-a
            if not oscillating:
                return np.asarray(envelope)[:, None]
            k = u[-1]
            return np.stack([envelope * np.cos(k * z), envelope * np.sin(k * z)], axis=1)

        if not periodic:
            return lambda u: one_way(u, r)
        return lambda u: one_way(u, r) + one_way(u, length - r)

    cosine = " cos(k r + phi)" if oscillating else ""
    exponent = "a" if power is None else f"{power:g}"
    return Form(
        f"metal, a = {'free' if power is None else exponent}",
        f"B exp(-r/xi) r^-{exponent}{cosine}",
        shape,
        ("cosine", "sine") if oscillating else ("amplitude",),
        bind,
    )
