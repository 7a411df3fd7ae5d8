"""The fit of one correlation of one layer: numbers, their errors, and how they came about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.fits.bootstrap import bootstrap
from bilayer_orchestra.fits.choice import changes_sign, edges_for, forms_for, grouped, starts
from bilayer_orchestra.fits.curvature import NOT_LOW, curvature, wave_vector_shift
from bilayer_orchestra.fits.options import Options
from bilayer_orchestra.fits.pairs import Pairs
from bilayer_orchestra.fits.refusals import (
    no_window_fits,
    refuse_nothing_seen,
    refuse_what_is_no_decay,
)
from bilayer_orchestra.fits.scan import Scan, scan
from bilayer_orchestra.fits.solve import THERMAL, Fit
from bilayer_orchestra.terms import FloatArray

#: How much of the Trotter correction of statistical data may be left (the next order, dtau^4, for
#: the usual two steps); see :mod:`bilayer_orchestra.checking.systematics`.
REMAINDER = 0.25
#: Fewer windows are steady by chance.
DRIFT_WINDOWS = 4


@dataclass
class Number:
    """Value with statistical (NaN: none, the engine is deterministic) and systematic error.

    ``per_window`` and ``per_window_error`` tell how it moves with the window.
    """

    value: float
    stderr: float
    systematic: float
    per_window: FloatArray
    per_window_error: FloatArray

    @property
    def total(self) -> float:
        """Both errors in quadrature."""
        return float(np.hypot(np.nan_to_num(self.stderr), self.systematic))

    def add(self, error: float) -> None:
        """Add a systematic error in quadrature."""
        self.systematic = float(np.hypot(self.systematic, error))


@dataclass(frozen=True)
class PointFit:
    """Everything that is reported of one fit."""

    numbers: dict[str, Number]
    scan: Scan
    warnings: list[str]


def fit_pairs(what: str, pairs: Pairs, options: Options) -> PointFit:
    """Fit one correlation.

    Parameters
    ----------
    what : {"pair", "density", "green"}
    pairs : Pairs
        The data of one layer.
    options : Options
        What the user fixes.

    Raises
    ------
    OrchestraError
        If the data do not determine the parameters.
    """
    if what == "pair" and changes_sign(pairs):
        raise OrchestraError(
            "the pair correlation is negative at some distance beyond its error: no power law of "
            "one sign fits it (is the filling polarized, or the run not converged?)"
        )
    if pairs.periodic and options.edge is not None:
        raise OrchestraError(f"edge = {options.edge}: a ring has no ends")
    refuse_nothing_seen(pairs, edges_for(pairs, options.edge)[0])
    found = scan(
        pairs,
        forms_for(what, pairs, options.power),
        starts(pairs.beta, options.wave_vector),
        edges=edges_for(pairs, options.edge),
        r_mins=None if options.r_min is None else [options.r_min],
        r_max=options.r_max,
        grouped=grouped(what, pairs),
        envelope=what != "pair",
        least_form_error=None if pairs.beta is None else lambda fit: _curvature(pairs, fit),
    )
    numbers = {}
    for name in found.best.fit.form.shape:
        if what == "pair" and name == "wave_vector":
            continue  # of a correction: no result
        replicas = None
        if pairs.statistical:
            replicas = bootstrap(found, name, options.replicas, options.resampling)
        numbers[name] = _number(name, found, replicas)
    if "wave_vector" in numbers:
        # at q = pi the data depend on q in second order only; another q beats within r_max
        q = numbers["wave_vector"]
        q.systematic = min(q.systematic, np.pi / found.best.window.r_max)
    _add_curvature(pairs, numbers)
    refuse_what_is_no_decay(found, numbers)
    warnings = _warnings(pairs, found, numbers)
    for name in (THERMAL, "inverse_xi"):
        if name in numbers:
            numbers["xi"] = _length(numbers[name])
    numbers.pop(THERMAL, None)
    if "power" in numbers and numbers["power"].value <= 0:
        del numbers["power"]  # compatible with zero, see above
    return PointFit(numbers, found, warnings)


def _number(name: str, found: Scan, replicas: FloatArray | None) -> Number:
    """Average one shape parameter over models.

    With noise the result is the centre of the central 68 % of the replicas, and half its width the
    whole error. Its statistical part is what noise does to the average at fixed weights; the rest
    comes from the choice of windows and forms.
    """
    values, errors = np.array(
        [
            (fit.value(name), fit.error(name)) if name in fit.form.shape else (np.nan, np.nan)
            for _, _, fit in found.fitted
        ]
    ).T
    weights = np.where(np.isnan(values), 0.0, found.weights)
    weights /= weights.sum()
    counted = [
        (weight, problem, fit, fit.form.shape.index(name))
        for weight, (_, problem, fit) in zip(weights, found.fitted, strict=True)
        if weight > 0
    ]
    # sizes of the systematic errors of the data are known, signs are not: the worst are taken
    shift = sum(
        weight * float(np.abs(fit.response[k]) @ np.nan_to_num(problem.series.bias))
        for weight, problem, fit, k in counted
    )
    if replicas is None:
        mean = float(np.nansum(weights * values))
        spread = float(np.sqrt(np.nansum(weights * (values - mean) ** 2)))
        within = float(np.sqrt(np.nansum(weights * errors**2)))
        systematic = float(np.hypot(np.hypot(spread, within), shift))
        return Number(mean, np.nan, systematic, values, errors)
    low, high = np.percentile(replicas, [15.87, 84.13])
    total = float(high - low) / 2
    noise = np.sum([weight * fit.deviations[:, k] for weight, _, fit, k in counted], axis=0)
    stderr = min(float(np.linalg.norm(noise)), total)
    chosen = float(np.sqrt(total**2 - stderr**2))
    if no_window_fits(found):
        best = found.best.fit
        chosen = float(np.hypot(chosen, total * np.sqrt(best.chi2 / best.dof - 1)))
    systematic = float(np.hypot(chosen, REMAINDER * shift))
    return Number(float(high + low) / 2, stderr, systematic, values, errors)


def _curvature(pairs: Pairs, fit: Fit) -> float:
    """Return the relative error of a thermal form that a first fit lets expect."""
    if THERMAL not in fit.form.shape:
        return 0.0
    return abs(fit.value("eta")) * curvature(pairs.filling, 1 / fit.value(THERMAL))


def _add_curvature(pairs: Pairs, numbers: dict[str, Number]) -> None:
    """Add what the curvature of the band may do to the systematic errors at T > 0."""
    if THERMAL not in numbers:
        return
    inverse, eta = numbers[THERMAL], numbers["eta"]
    xi = 1 / max(inverse.value, 1e-12)
    relative = curvature(pairs.filling, xi)
    inverse.add(relative * inverse.value)
    eta.add(relative * eta.value)
    if "wave_vector" in numbers:
        numbers["wave_vector"].add(wave_vector_shift(pairs.filling, xi))


def _length(number: Number) -> Number:
    """Return xi from its inverse, errors propagated; NaN if 1/xi is compatible with zero."""
    with np.errstate(all="ignore"):
        value = 1 / number.value if number.value > number.total else np.nan
        per_window = np.where(number.per_window > 0, 1 / number.per_window, np.inf)
        slope, slopes = value**2, per_window**2
        return Number(
            value,
            slope * number.stderr,
            slope * number.systematic,
            per_window,
            slopes * number.per_window_error,
        )


def _warnings(pairs: Pairs, found: Scan, numbers: dict[str, Number]) -> list[str]:
    result = []
    if pairs.statistical and no_window_fits(found):
        result.append(
            "no window fits: chi^2/dof is too large even in the best one, "
            "the error is scaled with its root"
        )
    if pairs.statistical and not len(pairs.deviations):
        result.append("no covariance stored: errors were taken as independent between distances")
    if THERMAL in numbers:
        xi = 1 / max(numbers[THERMAL].value, 1e-12)
        relative = curvature(pairs.filling, xi)
        if relative > NOT_LOW:
            result.append(
                f"the temperature is not low: curvature of the band alone may change eta and xi by "
                f"{100 * relative:.0f} % (xi = {xi:.3g}, filling {pairs.filling:.2g})"
            )
        if 2 * xi > pairs.length:
            result.append(
                f"xi = {xi:.3g} is not small against L = {pairs.length}: neither the thermal nor "
                "the ground-state form holds: take a longer chain or a higher temperature"
            )
    if "inverse_xi" in numbers:
        inverse = numbers["inverse_xi"]
        if inverse.value < 2 * inverse.total or inverse.value * pairs.length < 2:
            least = 1 / max(inverse.value + 2 * inverse.total, 1e-12)
            result.append(
                f"1/xi is compatible with zero or xi with the length: xi > {least:.3g} is all that "
                "is known"
            )
    main = found.best.fit.form.shape[0]
    drift = _drift(found, numbers[main]) if main in numbers else None
    if drift is not None:
        result.append(
            f"{main} moves steadily with r_min ({drift[0]:.4g} to {drift[1]:.4g}), by more than "
            "its error: it may not be asymptotic yet"
        )
    if not pairs.statistical and np.isnan(pairs.bias).all():
        result.append("the data carry no error: only the form's misfit enters the error")
    return result


def _drift(found: Scan, number: Number) -> tuple[float, float] | None:
    """Return the first and last value if a parameter moves one way through all windows that count.

    Windows of the best form and edge, from the first with 1 % of the weight (at least the last
    few: a plateau that begins with the last window is none), as far as they determine the number.
    """
    best = found.best.window
    alike = [one.window.form == best.form and one.window.edge == best.edge for one in found.fitted]
    values, errors = number.per_window[alike], number.per_window_error[alike]
    first = int(np.argmax(found.weights[alike] > 1e-2))
    first = max(min(first, len(values) - DRIFT_WINDOWS), 0)
    values = values[first:][errors[first:] < 2 * number.total]
    if len(values) < DRIFT_WINDOWS:
        return None
    steps = np.diff(values)
    one_way = bool(np.all(steps > 0) or np.all(steps < 0))
    return (
        (float(values[0]), float(values[-1])) if one_way and np.ptp(values) > number.total else None
    )
