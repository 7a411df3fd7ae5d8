"""What a check leaves behind: ``check.nc`` for programs, ``check.html`` for people."""

from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bilayer_orchestra import __version__
from bilayer_orchestra.checking.comparison import LEVEL, Finding
from bilayer_orchestra.checking.elements import labelled, ordered
from bilayer_orchestra.checking.verdict import Verdict
from bilayer_orchestra.dataset.schema import append_history, write_atomic
from bilayer_orchestra.files import make_directory
from bilayer_orchestra.observables import OBSERVABLES
from bilayer_orchestra.running.published import CHECK
from bilayer_orchestra.terms import FloatArray
from bilayer_orchestra.timestamps import utc_now

PAGE = "check.html"

#: Texts of every pair: variable -> where its verdict has it, and the definition.
_OF_PAIRS = {
    "verdict": ("word", "verdict of a pair of results"),
    "reason": ("reason", "why"),
    "cause": ("cause", "likely cause of a disagreement"),
    "note": ("note", "notes on the stated errors"),
    "kind": ("pair.kind", "same state, or limit: a thermal state against a ground state"),
}
#: Numbers of every observable of a pair: variable -> where its finding has it, and the definition.
_OF_OBSERVABLES = {
    "p_value": ("corrected_p", "p-value, corrected by Holm's method over observables and pairs"),
    "p_single": ("test.p_value", "p-value of this observable alone"),
    "chi2_per_dof": ("test.chi2", "Hotelling's T^2 per mode that the covariance determines"),
    "modes": ("test.modes", "modes kept of the combined covariance (SVD cut)"),
    "detectable": (
        "detectable",
        "smallest deviation that would have been noticed up to `distance`, in every "
        "class of elements, relative to the root mean square of the class",
    ),
    "distance": (
        "distance",
        "sites so far apart are known well enough to notice 20 %; NaN: no correlation",
    ),
    "largest_pull": ("test.largest_pull", "pull of the worst element"),
    "pull_width": ("test.width", "spread of the pulls in the modes over what stated errors say"),
}
#: Numbers of every element: variable -> where the test has it, and the definition.
_OF_ELEMENTS = {
    "difference": ("difference", "first minus second result"),
    "stderr": ("stderr", "combined standard error"),
    "allowance": ("allowance", "sum of the named systematic errors"),
    "pull": ("pulls", "difference beyond the allowance, over the standard error"),
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
    errors = list(dict.fromkeys(error for finding in findings for error in finding.sizes))
    classes = list(dict.fromkeys(part for finding in findings for part in finding.noticed))
    dims, shape = ("pair", "observable"), (len(verdicts), len(names))
    cells = [one.get(name) for one in found for name in names]
    variables: dict[str, Any] = {
        variable: (
            "pair",
            np.array([attrgetter(place)(verdict) for verdict in verdicts], object),
            {"definition": definition},
        )
        for variable, (place, definition) in _OF_PAIRS.items()
    }
    for variable, (place, definition) in _OF_OBSERVABLES.items():
        numbers = [attrgetter(place)(f) if f and f.test else None for f in cells]
        attributes = {"definition": definition, "units": "1"}
        variables[variable] = (dims, np.array(numbers, float).reshape(shape), attributes)
    for variable, place in (("observable_verdict", "word"), ("worst_element", "worst_label")):
        texts = [getattr(f, place, "not compared") for f in cells]
        variables[variable] = (dims, np.array(texts, object).reshape(shape))
    noticed = pd.DataFrame([f.noticed if f else {} for f in cells], columns=classes, dtype=float)
    variables["noticed"] = (
        (*dims, "class"),
        noticed.to_numpy().reshape(*shape, len(classes)),
        {"definition": "smallest relative deviation of a class that would have been noticed"},
    )
    coordinates: dict[str, Any] = {
        "pair": [f"{v.first} / {v.second}" for v in verdicts],
        "observable": names,
        "class": classes,
        "systematic": errors,
    }
    for name in names:
        like = next(
            ordered(side[name], name)
            for verdict, one in zip(verdicts, found, strict=True)
            for _, side in verdict.pair.sides()
            if name in one and name in side
        )
        variables |= _elements([one.get(name) for one in found], name, like, errors)
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
    findings: list[Finding | None], name: str, like: xr.DataArray, errors: list[str]
) -> dict[str, Any]:
    """Return the numbers of the elements of one observable.

    Parameters
    ----------
    findings : list of Finding or None
        Of every pair of results.
    name : str
        Of the observable.
    like : DataArray
        What its elements look like.
    errors : list of str
        Names of systematic errors.
    """

    def full(elements: FloatArray | None) -> FloatArray:
        nothing = np.full(like.shape, np.nan)
        return nothing if elements is None else labelled(elements, like).values

    tests = [finding.test if finding else None for finding in findings]
    columns: dict[str, tuple[tuple[str, ...], Any, str]] = {
        column: ((), [full(getattr(test, place, None)) for test in tests], definition)
        for column, (place, definition) in _OF_ELEMENTS.items()
    }
    sizes = [full(f.sizes.get(error) if f else None) for f in findings for error in errors]
    shape = (len(findings), len(errors), *like.shape)
    stated = "size of each named systematic error; NaN: not stated"
    columns["systematic"] = (("systematic",), np.reshape(sizes, shape), stated)
    return {
        f"{name}_{column}": (
            ("pair", *more, *like.dims),
            np.array(arrays),
            {
                "long_name": f"{column} of {OBSERVABLES[name].long_name}",
                "definition": definition,
                "units": "1" if column == "pull" else like.attrs.get("units", "1"),
            },
        )
        for column, (more, arrays, definition) in columns.items()
    }
