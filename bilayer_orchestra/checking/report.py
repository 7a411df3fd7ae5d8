"""What a check leaves behind: ``check.nc`` for programs, ``check.html`` for people."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bilayer_orchestra import __version__
from bilayer_orchestra.checking.elements import labelled, ordered
from bilayer_orchestra.checking.overall import Verdict
from bilayer_orchestra.checking.verdict import LEVEL, PairVerdict
from bilayer_orchestra.dataset.schema import append_history, write_atomic
from bilayer_orchestra.files import make_directory
from bilayer_orchestra.observables import OBSERVABLES
from bilayer_orchestra.running.published import CHECK
from bilayer_orchestra.terms import FloatArray
from bilayer_orchestra.timestamps import utc_now

PAGE = "check.html"

#: Texts of every pair: variable -> its definition, and the text.
_OF_PAIRS: dict[str, tuple[str, Callable[[PairVerdict], str]]] = {
    "verdict": ("verdict of a pair of results", lambda v: v.word),
    "reason": ("why", lambda v: v.reason),
    "cause": ("likely cause of a disagreement", lambda v: v.cause),
    "note": ("notes on the stated errors", lambda v: "; ".join(v.notes)),
    "kind": (
        "same state, or limit: a thermal state against a ground state",
        lambda v: v.pair.kind,
    ),
}
#: Numbers of every observable of a pair: variable -> its definition, and the finding's attribute.
_OF_OBSERVABLES = {
    "p_value": (
        "p-value, corrected by Holm's method over all observables and pairs",
        "corrected_p",
    ),
    "p_single": ("p-value of this observable alone", "test.p_value"),
    "chi2_per_dof": (
        "Hotelling's T^2 per mode, in the modes that the covariance determines",
        "test.chi2",
    ),
    "modes": ("modes kept of the combined covariance (SVD cut)", "test.modes"),
    "detectable": (
        "smallest deviation that would have been noticed up to `distance`, in every "
        "class of elements, relative to the root mean square of the class",
        "detectable",
    ),
    "distance": (
        "sites so far apart are known well enough to notice 20 %; NaN: no correlation",
        "distance",
    ),
    "largest_pull": ("pull of the worst element", "test.largest_pull"),
    "pull_width": (
        "spread of the pulls in the modes over what the stated errors say",
        "test.width",
    ),
}
#: Numbers of every element: variable -> its definition, and the attribute of the test.
_OF_ELEMENTS = {
    "difference": ("first minus second result", "difference"),
    "stderr": ("combined standard error", "stderr"),
    "allowance": ("sum of the named systematic errors", "allowance"),
    "pull": ("difference beyond the allowance, over the standard error", "pulls"),
}


def write_report(outcome: Verdict, root: Path, headline: str) -> Path:
    """Write ``check.nc`` into ``root`` and return it; a page of another check does not stay.

    Parameters
    ----------
    outcome : Verdict
        Of the whole check.
    root : Path
        Directory; made if it is not there.
    headline : str
        The verdict in one line.
    """
    make_directory(root)
    path = root / CHECK[0]
    write_atomic(as_dataset(outcome, headline), path)
    (root / PAGE).unlink(missing_ok=True)
    return path


def as_dataset(outcome: Verdict, headline: str) -> xr.Dataset:
    """Return everything that was compared, labelled.

    Dimensions ``pair`` and ``observable`` for verdicts; ``<observable>_difference``, ``_stderr``,
    ``_allowance`` and ``_pull`` have ``pair`` and the observable's own dimensions,
    ``<observable>_systematic`` also ``systematic``: the named errors.
    """
    verdicts = outcome.verdicts
    found = [{finding.name: finding for finding in verdict.findings} for verdict in verdicts]
    names = [name for name in OBSERVABLES if any(name in one for one in found)]
    findings = [finding for one in found for finding in one.values()]
    classes = list(dict.fromkeys(part for finding in findings for part in finding.noticed))
    terms = list(dict.fromkeys(term for finding in findings for term in finding.sizes))
    coordinates: dict[str, Any] = {
        "pair": [f"{v.first} / {v.second}" for v in verdicts],
        "observable": names,
        "class": classes,
        "systematic": terms,
    }
    variables: dict[str, xr.Variable] = {
        variable: xr.Variable(
            "pair", np.array([text(v) for v in verdicts], object), {"definition": definition}
        )
        for variable, (definition, text) in _OF_PAIRS.items()
    }

    cells = [one.get(name) for one in found for name in names]

    def table(values: list[Any], kind: type, *more: str) -> xr.Variable:
        """Return the values of all cells, labelled."""
        dims = ("pair", "observable", *more)
        shape = [len(coordinates[dim]) for dim in dims]
        return xr.Variable(dims, np.array(values, kind).reshape(shape))

    for variable, (definition, attribute) in _OF_OBSERVABLES.items():
        number = attrgetter(attribute)
        variables[variable] = table([number(f) if f and f.test else None for f in cells], float)
        variables[variable].attrs = {"definition": definition, "units": "1"}
    for variable, column in (("observable_verdict", "word"), ("worst_element", "worst_label")):
        variables[variable] = table([getattr(f, column, "not compared") for f in cells], object)
    noticed = [f.noticed.get(part) if f else None for f in cells for part in classes]
    variables["noticed"] = table(noticed, float, "class")
    variables["noticed"].attrs["definition"] = (
        "smallest relative deviation of a class that would have been noticed"
    )
    for name in names:
        like, arrays = _elements(verdicts, name, terms)
        variables |= {f"{name}_{column}": array for column, array in arrays.items()}
        coordinates |= {str(dim): like[dim] for dim in like.dims if dim in like.coords}
    dataset = xr.Dataset(
        variables,
        coordinates,
        {
            "title": f"{outcome.name}: comparison of independent methods",
            "orchestra_check": 1,
            "verdict": outcome.word,
            "distance": -1 if outcome.distance is None else outcome.distance,
            "summary": headline,
            "false_alarm_level": LEVEL,
            "correction": "Holm over all classes of all observables of all pairs",
            "model": outcome.model.to_yaml() if outcome.model else "",
            "notes": "\n".join(outcome.notes),
            "ladder": "\n".join(outcome.ladder.describe()) if outcome.ladder else "",
            "software": f"bilayer_orchestra {__version__}",
            "created": utc_now(),
        },
    )
    append_history(dataset, headline)
    return dataset


def _elements(
    verdicts: list[PairVerdict], name: str, terms: list[str]
) -> tuple[xr.DataArray, dict[str, xr.Variable]]:
    """Return what the elements of one observable look like, and their numbers."""
    found = [next((f for f in v.findings if f.name == name), None) for v in verdicts]
    like = next(
        ordered(dataset[name], name)
        for verdict, finding in zip(verdicts, found, strict=True)
        for _, dataset in verdict.pair.sides()
        if finding is not None and name in dataset
    )
    observable, own = OBSERVABLES[name], like.attrs.get("units", "1")
    nothing = np.full(like.shape, np.nan)

    def full(elements: FloatArray | None) -> FloatArray:
        return nothing if elements is None else labelled(elements, like).values

    def variable(column: str, arrays: Any, definition: str, *more: str) -> xr.Variable:
        dims, units = ("pair", *more, *like.dims), "1" if column == "pull" else own
        long_name = f"{column} of {observable.long_name}"
        attributes = {"long_name": long_name, "definition": definition, "units": units}
        return xr.Variable(dims, np.array(arrays), attributes)

    tests = [finding.test if finding else None for finding in found]
    variables = {
        column: variable(column, [full(getattr(t, attribute, None)) for t in tests], definition)
        for column, (definition, attribute) in _OF_ELEMENTS.items()
    }
    sizes = [[full(f.sizes.get(term) if f else None) for term in terms] for f in found]
    shape = (len(verdicts), len(terms), *like.shape)
    variables["systematic"] = variable(
        "systematic",
        np.reshape(sizes, shape),
        "size of each named systematic error; NaN: not stated",
        "systematic",
    )
    return like, variables
