"""``job.toml``: the model as numbers, for the Julia half in ``backends/itensor``.

Nothing that a user named is in it: no label, no path. Julia reads it as data and never as code.
TOML because Julia's standard library reads it; a writer is a dozen lines for numbers and the fixed
names of observables.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from bilayer_orchestra.terms import Canonical, Terms

JOB = "job.toml"


def render_job(terms: Terms, observables: tuple[str, ...], settings: dict[str, Any]) -> str:
    """Return the text of ``job.toml``.

    ``terms`` are in the engine's own units of energy. Sites are counted from 1. Floats are written
    with as many digits as make them exact.
    """
    assert isinstance(terms.state, Canonical)
    upper = np.triu(terms.one_body)
    elements = [
        f"  [{i + 1}, {j + 1}, {_value(float(upper[i, j]))}],"
        for i, j in zip(*(k.tolist() for k in np.nonzero(upper)), strict=True)
    ]
    lines = [
        "# One ground state: H = sum_ijs h_ij c+_is c_js + sum_i U_i n_iu n_id - sum_i mu_i n_i",
        _line("n_up", terms.state.n_up),
        _line("n_down", terms.state.n_down),
        "# site order[k] stands at place k of the matrix-product state",
        _line("order", list(range(1, terms.n_sites + 1))),
        "# [i, j, h_ij] for i <= j",
        "one_body = [",
        *elements,
        "]",
        _line("interaction", terms.interaction.tolist()),
        _line("chemical_potential", terms.chemical_potential.tolist()),
        _line("observables", list(observables)),
        "",
        "[settings]",
        *(_line(key, value) for key, value in settings.items()),
    ]
    return "\n".join(lines) + "\n"


def _line(key: str, value: Any) -> str:
    return f"{key} = {_value(value)}"


def _value(value: Any) -> str:
    """Return one TOML value: numbers, our own identifiers, and lists of them look as in JSON."""
    for one in value if isinstance(value, list) else [value]:
        number = isinstance(one, int | float) and math.isfinite(one)
        if not number and not (isinstance(one, str) and one.isidentifier() and one.isascii()):
            raise TypeError(f"{one!r} has no place in {JOB}")
    return json.dumps(value)
