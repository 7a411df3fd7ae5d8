"""``job.toml``: the model as numbers, for the Julia half in ``backends/itensor``.

Nothing that a user named is in it: no label, no path. Julia reads it as data and never as code.
TOML because Julia's standard library reads it; a writer is a dozen lines for numbers and the fixed
names of observables.
"""

import json
import math
from typing import Any

import numpy as np

from bilayer_orchestra.terms import Canonical, Terms

JOB = "job.toml"


def render_job(terms: Terms, observables: tuple[str, ...], settings: dict[str, Any]) -> str:
    """Return the text of ``job.toml``.

    Sites are counted from 1. Floats are written with as many digits as make them exact.

    Parameters
    ----------
    terms : Terms
        The model, in the engine's own units of energy.
    observables : tuple of str
        What is wished for.
    settings : dict
        What else Julia has to know: numbers, identifiers, and lists of them.
    """
    assert isinstance(terms.state, Canonical)
    upper = np.triu(terms.one_body)
    model = {
        "n_up": terms.state.n_up,
        "n_down": terms.state.n_down,
        "order": list(range(1, terms.n_sites + 1)),
        "one_body": [[i + 1, j + 1, float(upper[i, j])] for i, j in np.argwhere(upper).tolist()],
        "interaction": terms.interaction.tolist(),
        "chemical_potential": terms.chemical_potential.tolist(),
        "observables": list(observables),
    }
    lines = [
        "# One ground state: H = sum_ijs h_ij c+_is c_js + sum_i U_i n_iu n_id - sum_i mu_i n_i",
        "# site order[k] stands at place k of the matrix-product state",
        "# one_body has [i, j, h_ij] for i <= j",
        *(f"{key} = {_value(value)}" for key, value in model.items()),
        "",
        "[settings]",
        *(f"{key} = {_value(value)}" for key, value in settings.items()),
    ]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    """Return one TOML value; numbers and our own identifiers look as in JSON."""
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    number = isinstance(value, int | float) and math.isfinite(value)
    if not number and not (isinstance(value, str) and value.isidentifier() and value.isascii()):
        raise TypeError(f"{value!r} has no place in {JOB}")
    return json.dumps(value)
