"""When the numbers of a fit are no answer: nothing is seen, or decays, or is determined."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.fits.pairs import Pairs, series_of
from bilayer_orchestra.fits.scan import Scan

if TYPE_CHECKING:
    from bilayer_orchestra.fits.point import Number

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


def no_window_fits(found: Scan) -> bool:
    """Whether chi^2 of data with noise is beyond chance in the best window."""
    best = found.best.fit
    return best.dof > 0 and best.chi2 > best.dof + 4 * np.sqrt(2 * best.dof)


def refuse_nothing_seen(pairs: Pairs, edge: int) -> None:
    """Raise OrchestraError if hardly any distance has a correlation beyond its error."""
    series = series_of(pairs, edge, True, False)
    if not (np.abs(series.values) < LARGEST).all():
        raise OrchestraError("the data are infinite, or beyond any correlation of electrons")
    size, noise = np.abs(series.values), np.abs(np.nan_to_num(series.bias)) + ZERO
    if series.stderr is not None:
        noise = noise + SEEN * series.stderr
    seen = int(np.sum(size > noise))
    if seen < min(2, len(size)):
        raise OrchestraError(
            f"there is no correlation to fit: it exceeds its error at {seen} of {len(size)} "
            f"distances (the largest is {size.max():.2g})"
        )


def refuse_what_is_no_decay(found: Scan, numbers: dict[str, Number]) -> None:
    """Raise OrchestraError if the best fit is none, or its numbers are no exponents or lengths."""
    window, problem, fit = found.best
    if problem.series.stderr is None and no_window_fits(found):
        # without noise the error of form makes the best window fit, if its search has ended well
        raise OrchestraError(
            f"no window could be fitted (chi^2/dof = {fit.chi2 / fit.dof:.3g} in the best): the "
            "data do not look like this form"
        )
    ratio = np.log(window.r_max / window.r_min)
    spans = {"eta": ratio, "inverse_xi": window.r_max - window.r_min, "power": ratio}
    totals = {name: numbers[name].total for name in spans if name in numbers}
    for name, error in totals.items():
        value = numbers[name].value
        if -value * spans[name] > GROWTH and -value > CONTRADICTION * error:
            raise OrchestraError(
                f"the correlation does not decay like this form: {name} = {value:.3g} +- "
                f"{error:.2g} is below zero"
            )
    series = problem.series
    near, far = (series.scale[series.r == r].mean() for r in (series.r.min(), series.r.max()))
    if not far < (1 - FLAT) * near:
        raise OrchestraError(
            f"the correlation does not decay: {near:.4g} at r = {window.r_min}, "
            f"{far:.4g} at r = {window.r_max}"
        )
    # of a length, a bound is an answer as well
    if "eta" in totals and not numbers["eta"].value > totals["eta"]:
        raise OrchestraError(
            f"the data do not determine eta: {numbers['eta'].value:.3g} +- {totals['eta']:.2g}; "
            "longer chains or smaller errors are needed"
        )
