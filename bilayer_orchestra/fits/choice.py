"""Which forms are tried for which correlation, and where their search starts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bilayer_orchestra.fits import forms
from bilayer_orchestra.fits.forms import Form
from bilayer_orchestra.fits.pairs import Pairs, Series
from bilayer_orchestra.fits.solve import Problem
from bilayer_orchestra.terms import FloatArray


def forms_for(what: str, pairs: Pairs, power: float | None) -> list[Form]:
    """Return the forms that compete in the model average.

    Parameters
    ----------
    what : {"pair", "density", "green"}
    pairs : Pairs
        The data.
    power : float or None
        Of a Green function; None: zero and free compete.
    """
    thermal, periodic = pairs.beta is not None, pairs.periodic
    if what == "green":
        powers = [0.0, None] if power is None else [power]
        return [forms.metal(periodic, one, changes_sign(pairs)) for one in powers]
    if what == "density" and thermal:
        return [forms.density_thermal(periodic)]
    if what == "density":
        return [forms.density_ring()] if periodic else [forms.density_open(k) for k in (0, 1)]
    plain = forms.pair(periodic, thermal)
    if pairs.statistical:
        # noise hides a wave, but not always what r^-2 does to eta: see docs/fits.md
        return [plain, forms.pair_corrected(plain, periodic)]
    return [plain, forms.pair_wave(periodic, thermal)] if thermal or periodic else [plain]


def grouped(what: str, pairs: Pairs) -> bool:
    """Whether pairs of equal distance are averaged before the fit.

    Ground-state forms of open chains depend on both positions and see every pair when there is no
    noise. With noise the covariance of all pairs would exceed its rank, and their averages hold
    nearly all information; thermal correlations depend on the distance alone but near the ends.
    """
    return pairs.statistical or pairs.beta is not None or what == "green"


def edges_for(pairs: Pairs, edge: int | None) -> list[int]:
    """Return the distances from the ends of an open chain that are tried."""
    if pairs.periodic:
        return [1]
    if edge is not None:
        return [edge]
    length = pairs.length
    if pairs.statistical or pairs.beta is not None:
        return [max(2, round(length / 8))]
    return sorted({max(2, round(length / part)) for part in (16, 12, 8, 6)})


def changes_sign(pairs: Pairs) -> bool:
    """Whether averages at equal distance are negative somewhere, beyond their errors."""
    distances = np.unique(pairs.distance)
    for r in distances:
        chosen = pairs.distance == r
        error = 0.0 if pairs.stderr is None else float(np.mean(pairs.stderr[chosen]))
        mean = float(np.mean(pairs.values[chosen]))
        if mean < -3 * error and abs(mean) > 1e-9 * np.abs(pairs.values).max():
            return True
    return False


def starts(beta: float | None, wave_vector: float | None) -> Callable[[Problem], list[FloatArray]]:
    """Return the function that lists starting values of the shape of a problem."""

    def start(problem: Problem) -> list[FloatArray]:
        names = problem.form.shape
        density = problem.form.name.startswith("density")
        rate = _decay_rate(problem.series)
        lengths = [0.5 * beta, 2.0 * beta] if beta else [1.0]
        if rate > 0:
            # far out s(r)^-eta falls with pi eta / xi; the slower part of a density wave is seen
            lengths.append(np.pi * (1.5 if density else 0.7) / rate)
        choices: dict[str, list[float]] = {
            "eta": [0.5, 1.5, 2.5] if density else [0.7],
            "inverse_thermal_xi": [float(1 / one) for one in lengths],
            "inverse_xi": [0.05, 0.5],
            "power": [0.8],
            "wave_vector": [wave_vector or 0.0],
        }
        grid = np.meshgrid(*(choices[name] for name in names), indexing="ij")
        guesses = list(np.stack([one.ravel() for one in grid], axis=1))
        if "wave_vector" not in names or wave_vector is not None:
            return guesses
        return _with_wave_vectors(problem, guesses, names.index("wave_vector"))

    return start


def _decay_rate(series: Series) -> float:
    """Return how fast the correlation falls in the outer half of what is above the noise."""
    noise = 1e-9 * series.scale.max() if series.stderr is None else 3 * series.stderr
    seen = np.flatnonzero(series.scale > noise)
    outer = seen[len(seen) // 2 :]
    if len(np.unique(series.r[outer])) < 3:
        return 0.0
    return float(-np.polyfit(series.r[outer], np.log(series.scale[outer]), 1)[0])


def _with_wave_vectors(
    problem: Problem, guesses: list[FloatArray], row: int, count: int = 4
) -> list[FloatArray]:
    """Return the guesses with the wave vectors that fit best, local minima on a fine grid.

    The misfit has a minimum every pi / r_max or so; a search that starts in a wrong one stays.
    """
    distances = np.unique(problem.series.r)
    grid = np.linspace(0.0, np.pi, min(4 * len(distances), 256) + 1)[1:]
    data = problem.weights.apply(problem.series.values)
    found: list[tuple[float, FloatArray]] = []
    for guess in guesses:
        trials = np.tile(guess, (len(grid), 1))
        trials[:, row] = grid
        misfit = np.array([np.sum(problem.amplitudes(one, data)[1] ** 2) for one in trials])
        padded = np.concatenate([[np.inf], misfit, [np.inf]])
        minima = np.flatnonzero((misfit <= padded[:-2]) & (misfit <= padded[2:]))
        found += [(float(misfit[k]), trials[k]) for k in minima]
    found.sort(key=lambda one: one[0])
    return [guess for _, guess in found[:count]]
