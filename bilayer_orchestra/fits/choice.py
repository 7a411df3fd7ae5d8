"""Which forms are tried for which correlation, and where their search starts."""

from __future__ import annotations

import numpy as np

from bilayer_orchestra.fits import forms
from bilayer_orchestra.fits.forms import Form
from bilayer_orchestra.fits.pairs import Pairs, Series
from bilayer_orchestra.terms import FloatArray

#: What can be fitted -> the variable it is read from.
VARIABLES = {"pair": "pair", "density": "density_density", "green": "green"}


def forms_for(  # noqa: PLR0911
    what: str, pairs: Pairs, power: float | None
) -> list[Form]:
    """Return the forms that compete in the model average."""
    thermal = pairs.beta is not None
    if what == "pair":
        if thermal:
            plain = forms.pair_thermal(pairs.periodic)
        else:
            plain = forms.pair_ring() if pairs.periodic else forms.pair_open()
        if pairs.statistical:
            # noise hides a wave, but not always what r^-2 does to eta: see docs/fits.md
            return [plain, forms.pair_corrected(plain, pairs.periodic)]
        if not thermal and not pairs.periodic:
            return [plain]
        return [plain, forms.pair_wave(pairs.periodic, thermal)]
    if what == "density":
        if thermal:
            return [forms.density_thermal(pairs.periodic)]
        if pairs.periodic:
            return [forms.density_ring()]
        return [forms.density_open(0), forms.density_open(1)]
    oscillating = changes_sign(pairs)
    if power is not None:
        return [forms.metal(pairs.periodic, power, oscillating)]
    return [
        forms.metal(pairs.periodic, 0.0, oscillating),
        forms.metal(pairs.periodic, None, oscillating),
    ]


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


def wave_vectors(series: Series, count: int = 3) -> FloatArray:
    """Return where the cosine transform over distances has its largest peaks (0 < q < pi)."""
    distances = np.unique(series.r)
    mean = np.array([series.values[series.r == r].mean() for r in distances])
    # large distances count as much as small ones, and nothing jumps at the end
    taper = np.cos(0.5 * np.pi * distances / (distances[-1] + 1)) ** 2
    grid = np.linspace(0.0, np.pi, 16 * len(distances) + 65)
    phases = np.exp(1j * np.outer(grid, distances))
    power = np.abs(phases @ (mean * distances * taper))
    inner = np.flatnonzero((power[1:-1] >= power[:-2]) & (power[1:-1] >= power[2:])) + 1
    inner = np.append(inner, [len(grid) - 1])  # pi itself: staggered
    return np.asarray(grid[inner[np.argsort(-power[inner])[:count]]])


def starts(beta: float | None, wave_vector: float | None) -> object:
    """Return the function that lists starting values of the shape for a form and a series."""

    def start(form: Form, series: Series) -> list[FloatArray]:
        choices: dict[str, list[float]] = {
            "eta": [0.5, 1.5] if form.name.startswith("density") else [0.7],
            "log_xi": [float(np.log(one)) for one in ((0.5 * (beta or 1), 2.0 * (beta or 1)))],
            "inverse_xi": [0.05, 0.5],
            "power": [0.8],
        }
        if "wave_vector" in form.shape:
            known = [wave_vector] if wave_vector is not None else list(wave_vectors(series))
            if form.name.endswith("with wave"):
                # a small ripple on a decay has no peak of its own in the transform
                known = list(np.pi * np.arange(1, 13) / 12)
            choices["wave_vector"] = known
        grid = np.meshgrid(*(choices[name] for name in form.shape), indexing="ij")
        return list(np.stack([one.ravel() for one in grid], axis=1))

    return start
