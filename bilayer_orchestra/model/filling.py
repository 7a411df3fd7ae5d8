"""Density targets: the layers' densities instead of their chemical potentials."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import Field
from pydantic_core import PydanticCustomError

from bilayer_orchestra.settings import SpecModel

Density = Annotated[float, Field(gt=0, lt=2)]
#: Distance from a whole number that is rounding of decimal input.
_ROUNDING = 1e-9


class Filling(SpecModel):
    """Wished densities; the chemical potentials that give them are searched for."""

    P: Annotated[Density, Field(description="electrons per P site, both spins together: 0 to 2")]
    M: Annotated[Density, Field(description="electrons per M site, both spins together: 0 to 2")]
    tolerance: Annotated[
        float | None,
        Field(
            gt=0,
            le=0.1,
            description="what a layer's density may miss its target by; default: 1e-5, with Monte "
            "Carlo 2e-3",
        ),
    ] = None


def particles(filling: Filling, length: int, spin_balanced: bool) -> int:
    """Return N = L (n_P + n_M) of a ground state.

    Raises
    ------
    PydanticCustomError
        If that is no whole number, or odd where both spins must have the same number.
    """
    number = length * (filling.P + filling.M)
    unit = 2 if spin_balanced else 1
    nearest = unit * round(number / unit)
    if abs(number - nearest) <= _ROUNDING * max(1.0, number) and nearest > 0:
        return nearest
    what = "an even number" if spin_balanced else "a whole number"
    raise PydanticCustomError(
        "filling",
        "{p} and {m} electrons per site make {number} electrons on {length} rungs, and a "
        "ground state has {what} of them; nearest: {choices}",
        {
            "p": f"{filling.P:g}",
            "m": f"{filling.M:g}",
            "number": f"{number:g}",
            "length": length,
            "what": what,
            "choices": " or ".join(_choices(filling, length, number, unit)),
            "path": ("filling",),
        },
    )


def _choices(filling: Filling, length: int, number: float, unit: int) -> list[str]:
    """Return fillings nearby that fit: the other M below and above, or another length."""
    below = unit * math.floor(number / unit)
    texts = []
    for total in (below, below + unit):
        metal = total / length - filling.P
        if 0 < metal < 2:
            texts.append(f"M: {metal:.6g} ({total} electrons)")
    fitting = [
        other
        for other in sorted(range(1, 4 * length), key=lambda k: (abs(k - length), k))
        if abs(
            other * (filling.P + filling.M) / unit - round(other * (filling.P + filling.M) / unit)
        )
        < 1e-9 * length
    ]
    if fitting:
        texts.append(f"length: {fitting[0]}")
    return texts


def with_state(data: dict[str, Any]) -> dict[str, Any]:
    """Add the ground state of equal spins to a file that names a filling but no state.

    Whether its particle number is right, or the filling can be read at all, is validated later.
    """
    try:
        filling, length = Filling.model_validate(data["filling"]), int(data["length"])
    except (ValueError, TypeError, KeyError):
        return data | {"state": {"n_up": 1, "n_down": 1}}
    half = max(1, round(length * (filling.P + filling.M) / 2))
    return data | {"state": {"n_up": half, "n_down": half}}
