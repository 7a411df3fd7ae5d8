"""The fit of one correlation of one layer, and when its numbers are no answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.fits.average import Number, averages
from bilayer_orchestra.fits.forms import THERMAL, curvature
from bilayer_orchestra.fits.options import Options
from bilayer_orchestra.fits.pairs import Pairs
from bilayer_orchestra.fits.scan import Scan, edges_for, scan

#: Fewer windows are steady by chance.
DRIFT_WINDOWS = 4
#: Above this relative size of what the band's curvature does a temperature is not low.
NOT_LOW = 0.1
#: A factor of a form that grows over the window by more than this part of itself, with its exponent
#: this many errors below zero, belongs to data that do not decay.
GROWTH, CONTRADICTION = 0.1, 2.0
#: A correlation that changes by less than this part of itself over the whole window does not decay.
FLAT = 0.01
#: A correlation is seen at a distance if it exceeds this many of its statistical errors ...
SEEN = 3.0
#: ... and what is left of exact zeros (correlations of electrons are of order one or less).
ZERO = 1e-12
#: What is larger is no correlation of electrons, in whatever normalization.
LARGEST = 1e12


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
        Its kind.
    pairs : Pairs
        The data of one layer.
    options : Options
        What the user fixes.

    Raises
    ------
    OrchestraError
        If the data do not determine the parameters.
    """
    if what == "pair" and pairs.changes_sign:
        raise OrchestraError(
            "the pair correlation is negative at some distance beyond its error: no power law of "
            "one sign fits it (is the filling polarized, or the run not converged?)"
        )
    if pairs.periodic and options.edge is not None:
        raise OrchestraError(f"edge = {options.edge}: a ring has no ends")
    _refuse_nothing_seen(pairs.inside(edges_for(pairs, options.edge)[0]).by_distance())
    found = scan(what, pairs, options)
    numbers = averages(what, pairs, found, options)
    _refuse_what_is_no_decay(found, numbers)
    warnings = _warnings(pairs, found, numbers)
    for name in (THERMAL, "inverse_xi"):
        if name in numbers:
            numbers["xi"] = numbers[name].inverse()
    numbers.pop(THERMAL, None)
    if "power" in numbers and numbers["power"].value <= 0:
        del numbers["power"]  # compatible with zero, see below
    return PointFit(numbers, found, warnings)


def _refuse_nothing_seen(series: Pairs) -> None:
    """Raise OrchestraError if hardly any distance has a correlation beyond its error."""
    size = np.abs(series.values)
    if not (size < LARGEST).all():
        raise OrchestraError("the data are infinite, or beyond any correlation of electrons")
    noise = np.abs(np.nan_to_num(series.bias)) + ZERO + SEEN * series.stderr
    seen = int(np.sum(size > noise))
    if seen < min(2, len(size)):
        raise OrchestraError(
            f"there is no correlation to fit: it exceeds its error at {seen} of {len(size)} "
            f"distances (the largest is {size.max():.2g})"
        )


def _refuse_what_is_no_decay(found: Scan, numbers: dict[str, Number]) -> None:
    """Raise OrchestraError if the best fit is none, or its numbers are no exponents or lengths."""
    best, window, series = found.best, found.best.problem.window, found.best.problem.series
    if not series.statistical and found.no_window_fits:
        # without noise the error of form makes the best window fit, if its search has ended well
        raise OrchestraError(
            f"no window could be fitted (chi^2/dof = {best.chi2_per_dof:.3g} in the best): the "
            "data do not look like this form"
        )
    ratio = np.log(window.r_max / window.r_min)
    spans = {"eta": ratio, "inverse_xi": window.r_max - window.r_min, "power": ratio}
    for name in [one for one in spans if one in numbers]:
        value, error = numbers[name].value, numbers[name].total
        if -value * spans[name] > GROWTH and -value > CONTRADICTION * error:
            raise OrchestraError(
                f"the correlation does not decay like this form: {name} = {value:.3g} +- "
                f"{error:.2g} is below zero"
            )
    near, far = (series.scale[series.r == r].mean() for r in (series.r.min(), series.r.max()))
    if not far < (1 - FLAT) * near:
        raise OrchestraError(
            f"the correlation does not decay: {near:.4g} at r = {window.r_min}, "
            f"{far:.4g} at r = {window.r_max}"
        )
    # of a length, a bound is an answer as well
    eta = numbers.get("eta")
    if eta is not None and not eta.value > eta.total:
        raise OrchestraError(
            f"the data do not determine eta: {eta.value:.3g} +- {eta.total:.2g}; "
            "longer chains or smaller errors are needed"
        )


def _warnings(pairs: Pairs, found: Scan, numbers: dict[str, Number]) -> list[str]:
    result = []
    if pairs.statistical and found.no_window_fits:
        result.append(
            "no window fits: chi^2/dof is too large even in the best one, "
            "the error is scaled with its root"
        )
    if pairs.statistical and np.isinf(pairs.degrees):
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
    main = found.best.form.shape[0]
    moved = _drift(found, numbers[main])
    if moved is not None:
        result.append(
            f"{main} moves steadily with r_min ({moved[0]:.4g} to {moved[1]:.4g}), by more than "
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
    windows, best = [fit.problem.window for fit in found.fits], found.best.problem.window
    alike = [one.form == best.form and one.edge == best.edge for one in windows]
    values, errors = number.per_window[alike], number.per_window_error[alike]
    first = int(np.argmax(found.weights[alike] > 1e-2))
    first = max(min(first, len(values) - DRIFT_WINDOWS), 0)
    values = values[first:][errors[first:] < 2 * number.total]
    if len(values) < DRIFT_WINDOWS or np.ptp(values) <= number.total:
        return None
    steps = np.sign(np.diff(values))
    return (float(values[0]), float(values[-1])) if abs(steps.sum()) == len(steps) else None
