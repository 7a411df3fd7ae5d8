"""What a check leaves behind: ``check.nc`` for programs, ``check.html`` for people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from bilayer_orchestra import __version__
from bilayer_orchestra.checking.elements import labelled
from bilayer_orchestra.checking.plan import CheckResult
from bilayer_orchestra.checking.verdict import LEVEL, Finding, PairVerdict
from bilayer_orchestra.dataset.schema import append_history, write_atomic
from bilayer_orchestra.files import make_directory
from bilayer_orchestra.observables import OBSERVABLES
from bilayer_orchestra.running.published import CHECK
from bilayer_orchestra.timestamps import utc_now

DATASET, PAGE = CHECK[0], "check.html"
#: What the page needs and a minimal installation lacks.
PAGE_LIBRARY = "jinja2"

_COLUMNS = {
    "p_value": "p-value, corrected by Holm's method over all observables and pairs",
    "p_single": "p-value of this observable alone",
    "chi2_per_dof": "Hotelling's T^2 per mode, in the modes that the covariance determines",
    "modes": "modes kept of the combined covariance (SVD cut)",
    "detectable": "smallest deviation that would have been noticed up to `distance`, in every "
    "class of elements, relative to the root mean square of the class",
    "distance": "sites so far apart are known well enough to notice 20 %; NaN: no correlation",
    "largest_pull": "pull of the worst element",
    "pull_width": "spread of the pulls in the modes over what the stated errors say",
}


def write_report(outcome: CheckResult, root: Path, headline: str) -> Path:
    """Write ``check.nc`` into ``root`` and return it; a page of another check does not stay."""
    make_directory(root)
    write_atomic(as_dataset(outcome, headline), root / DATASET)
    (root / PAGE).unlink(missing_ok=True)
    return root / DATASET


def as_dataset(outcome: CheckResult, headline: str) -> xr.Dataset:
    """Return everything that was compared, labelled.

    Dimensions ``pair`` and ``observable`` for verdicts; ``<observable>_difference``, ``_stderr``,
    ``_allowance`` and ``_pull`` have ``pair`` and the observable's own dimensions,
    ``<observable>_systematic`` also ``systematic``: the named errors.
    """
    verdicts = outcome.verdicts
    names = [n for n in OBSERVABLES if any(_finding(v, n) is not None for v in verdicts)]
    variables: dict[str, xr.Variable | xr.DataArray] = {
        "verdict": _text([v.word for v in verdicts], "pair", "verdict of a pair of results"),
        "reason": _text([v.reason for v in verdicts], "pair", "why"),
        "cause": _text([v.cause for v in verdicts], "pair", "likely cause of a disagreement"),
        "note": _text(["; ".join(v.notes) for v in verdicts], "pair", "notes on the stated errors"),
        "kind": _text(
            [v.pair.kind if v.pair else "" for v in verdicts],
            "pair",
            "same state, or limit: a thermal state against a ground state",
        ),
    }
    for column, definition in _COLUMNS.items():
        values = [[_number(_finding(v, name), column) for name in names] for v in verdicts]
        variables[column] = xr.Variable(
            ("pair", "observable"),
            np.array(values, dtype=float).reshape(len(verdicts), len(names)),
            {"definition": definition, "units": "1"},
        )
    for column, what in (("word", "observable_verdict"), ("worst_label", "worst_element")):
        rows = [
            [str(getattr(_finding(v, n), column, "not compared")) for n in names] for v in verdicts
        ]
        variables[what] = xr.Variable(
            ("pair", "observable"), np.array(rows, dtype=object).reshape(len(verdicts), len(names))
        )
    classes = list(dict.fromkeys(c for v in verdicts for f in v.findings for c in f.noticed))
    noticed = [
        [[_noticed(_finding(v, name), one) for one in classes] for name in names] for v in verdicts
    ]
    variables["noticed"] = xr.Variable(
        ("pair", "observable", "class"),
        np.array(noticed, dtype=float).reshape(len(verdicts), len(names), len(classes)),
        {"definition": "smallest relative deviation of a class that would have been noticed"},
    )
    terms = list(dict.fromkeys(t for v in verdicts for f in v.findings for t in f.sizes))
    for name in names:
        variables |= _elements(verdicts, name, terms)
    dataset = xr.Dataset(
        variables,
        {
            "pair": [f"{v.first} / {v.second}" for v in verdicts],
            "observable": names,
            "class": classes,
            "systematic": terms,
        },
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


def _elements(verdicts: list[PairVerdict], name: str, terms: list[str]) -> dict[str, xr.DataArray]:
    """Return the element-wise arrays of one observable."""
    like = _sorted(
        next(
            dataset[name]
            for v in verdicts
            if v.pair is not None and _finding(v, name) is not None
            for dataset in (v.pair.first, v.pair.second)
            if name in dataset
        )
    )
    empty = xr.full_like(like, np.nan, dtype=float)
    columns: dict[str, list[xr.DataArray]] = {
        "difference": [],
        "stderr": [],
        "allowance": [],
        "pull": [],
        "systematic": [],
    }
    for verdict in verdicts:
        finding = _finding(verdict, name)
        test = finding.test if finding else None
        for column, attribute in (
            ("difference", "difference"),
            ("stderr", "stderr"),
            ("allowance", "allowance"),
            ("pull", "pulls"),
        ):
            columns[column].append(
                labelled(getattr(test, attribute), like, name) if test is not None else empty
            )
        sizes = finding.sizes if finding else {}
        columns["systematic"].append(
            xr.concat(
                [labelled(sizes[t], like, name) if t in sizes else empty for t in terms],
                "systematic",
                coords="minimal",
                compat="override",
            )
            if terms
            else empty.expand_dims(systematic=0)
        )
    definitions = {
        "difference": "first minus second result",
        "stderr": "combined standard error",
        "allowance": "sum of the named systematic errors",
        "pull": "difference beyond the allowance, over the standard error",
        "systematic": "size of each named systematic error; NaN: not stated",
    }
    result = {}
    for column, arrays in columns.items():
        array = xr.concat(arrays, "pair", coords="minimal", compat="override")
        units = "1" if column == "pull" else like.attrs.get("units", "1")
        array.attrs = {
            "long_name": f"{column} of {OBSERVABLES[name].long_name}",
            "definition": definitions[column],
            "units": units,
        }
        result[f"{name}_{column}"] = array
    return result


def _sorted(array: xr.DataArray) -> xr.DataArray:
    """Return ``array`` in the order of labels, which elements come in."""
    return array.sortby([d for d in array.dims if d in array.coords])


def _finding(verdict: PairVerdict, name: str) -> Finding | None:
    return next((f for f in verdict.findings if f.name == name), None)


def _noticed(finding: Finding | None, one: str) -> float:
    return finding.noticed.get(one, np.nan) if finding is not None else np.nan


def _number(finding: Finding | None, column: str) -> float:
    if finding is None or finding.test is None:
        return np.nan
    test = finding.test
    return {
        "p_value": finding.corrected_p,
        "p_single": test.p_value,
        "chi2_per_dof": test.chi2,
        "modes": float(test.modes),
        "detectable": finding.detectable,
        "distance": np.nan if finding.distance is None else float(finding.distance),
        "largest_pull": float(test.pulls[test.worst]),
        "pull_width": test.width,
    }[column]


def _text(values: list[str], dim: str, definition: str) -> xr.Variable:
    return xr.Variable((dim,), np.array(values, dtype=object), {"definition": definition})
