"""Density targets: the layers' densities instead of their chemical potentials."""

import math
from typing import Annotated, Any

from pydantic import Field
from pydantic_core import PydanticCustomError

from bilayer_orchestra.settings import SpecModel

#: Distance from a whole number that is rounding of decimal input.
_ROUNDING = 1e-9

Density = Annotated[
    float, Field(gt=0, lt=2, description="electrons per site of this layer, both spins: 0 to 2")
]
Tolerance = Annotated[
    float | None,
    Field(
        gt=0,
        le=0.1,
        description="what a layer's density may miss its target by; default: 1e-5, with Monte "
        "Carlo 2e-3",
    ),
]


class Filling(SpecModel):
    """Wished densities; the chemical potentials that give them are searched for.

    A geometry derives from it: a :data:`Density` for each of its layers, then ``tolerance``.
    """

    def densities(self) -> dict[str, float]:
        """Return the wished electrons per site by layer."""
        return {name: value for name, value in self if name != "tolerance"}

    def allowed(self, default: float) -> float:
        """Return what a layer's density may miss its target by."""
        return getattr(self, "tolerance", None) or default


def filling_field() -> Any:
    """Return the description of the section ``filling``, for every geometry's own layers."""
    return Field(
        description="wished densities; the chemical potentials that give them are tuned, "
        "starting from those of the layers where these are not zero"
    )


def listed(filling: Filling) -> str:
    """Return the densities as a sentence has them: ``a, b and c``."""
    *others, last = (f"{density:g}" for density in filling.densities().values())
    return " and ".join(filter(None, [", ".join(others), last]))


def particles(filling: Filling, length: int, spin_balanced: bool) -> int:
    """Return N = L (n_P + n_M + ...) of a ground state.

    Parameters
    ----------
    filling : Filling
        Electrons per site of each layer.
    length : int
        Sites L of each layer.
    spin_balanced : bool
        Whether both spins must have the same number.

    Raises
    ------
    PydanticCustomError
        If that is no whole number, or odd where both spins must have the same number.
    """
    densities = filling.densities()
    number = length * sum(densities.values())
    unit, what = (2, "an even number") if spin_balanced else (1, "a whole number")
    nearest = unit * round(number / unit)
    if abs(number - nearest) <= _ROUNDING * max(1.0, number) and nearest > 0:
        return nearest
    choices = " or ".join(_choices(densities, length, unit))
    raise PydanticCustomError(
        "filling",
        f"{listed(filling)} electrons per site make {number:g} electrons on {length} rungs, and a "
        f"ground state has {what} of them; nearest: {choices}",
        {"path": ("filling",)},
    )


def _choices(densities: dict[str, float], length: int, unit: int) -> list[str]:
    """Return fillings nearby that fit: the last layer below and above, or another length."""
    *others, last = densities
    total = sum(densities.values())
    below = unit * math.floor(length * total / unit)
    texts = []
    for number in (below, below + unit):
        density = number / length - sum(densities[name] for name in others)
        if 0 < density < 2:
            texts.append(f"{last}: {density:.6g} ({number} electrons)")
    lengths = sorted(range(1, 4 * length), key=lambda k: (abs(k - length), k))
    pairs = ((other, other * total / unit) for other in lengths)
    fitting = [other for other, units in pairs if abs(units - round(units)) < _ROUNDING * length]
    return texts + [f"length: {other}" for other in fitting[:1]]
