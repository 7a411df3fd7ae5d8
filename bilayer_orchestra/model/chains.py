"""What all geometries of two coupled chains share: labels, bonds, the order of the sites."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from bilayer_orchestra.settings import SpecModel
from bilayer_orchestra.terms import FloatArray, Site

#: Larger couplings are typing errors; the bound also keeps every product finite.
Coupling = Annotated[float, Field(ge=-1e4, le=1e4)]
#: Longer chains are out of reach of every engine; the bound turns a typing error into a message.
MAX_LENGTH = 1000


class TwoChains(SpecModel):
    """Two chains of equal length, coupled rung by rung; site order A0 B0 A1 B1 ..."""

    length: Annotated[int, Field(ge=1, le=MAX_LENGTH, description="number of rungs L")]
    boundary: Annotated[
        Literal["open", "periodic"], Field(description="boundary condition along the chains")
    ] = "open"


def ladder_sites(length: int, layers: tuple[str, str]) -> tuple[Site, ...]:
    """Return the labels rung by rung: nearest neighbours stay close, which DMRG needs."""
    return tuple(Site(layer, x) for x in range(length) for layer in layers)


def ladder_one_body(
    length: int, periodic: bool, hoppings: tuple[float, float], rung: float
) -> FloatArray:
    """Return h, shape (2 L, 2 L), of two chains with ``hoppings`` and the amplitude ``rung``.

    A periodic chain of two sites has its bond twice (once around each way), hence 2 t; one of
    a single site has no bond.
    """
    matrix = np.zeros((2 * length, 2 * length))

    def bond(a: int, b: int, hopping: float) -> None:
        matrix[a, b] -= hopping
        matrix[b, a] -= hopping

    for x in range(length):
        bond(2 * x, 2 * x + 1, rung)
        following = (x + 1) % length
        if following == x or (following == 0 and not periodic):
            continue
        for offset, hopping in enumerate(hoppings):
            bond(2 * x + offset, 2 * following + offset, hopping)
    return matrix
