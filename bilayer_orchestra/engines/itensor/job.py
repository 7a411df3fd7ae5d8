"""``job.toml``: the model as numbers, for the Julia half in ``backends/itensor``.

Nothing that a user named is in it: no label, no path. Julia reads it as data and never as code.
TOML because Julia's standard library reads it; a writer is a dozen lines for numbers and the fixed
names of observables.
"""

from __future__ import annotations

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
    """Return one TOML value: numbers, our own identifiers, and lists of them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return repr(value)
    if isinstance(value, str) and value.isidentifier() and value.isascii():
        return f'"{value}"'
    if isinstance(value, list):
        return f"[{', '.join(_value(item) for item in value)}]"
    raise TypeError(f"{value!r} has no place in {JOB}")
