"""The ``numerics: alf:`` section."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from bilayer_orchestra.model.base import SpecModel

_UNITS = {"s": 1, "sec": 1, "min": 60, "h": 3600, "hour": 3600, "hours": 3600, "d": 86400}

Step = Annotated[float, Field(gt=0, le=10)]


class ALFNumerics(SpecModel):
    """Settings of auxiliary-field quantum Monte Carlo with ALF."""

    dtau: Annotated[
        Step | Literal["auto"] | tuple[Step, ...],
        Field(description="imaginary-time step; a list or `auto` extrapolates in dtau^2"),
    ] = 0.1
    target_stderr: Annotated[
        dict[str, Annotated[float, Field(gt=0)]],
        Field(description="stop once the largest error of each named observable is below this"),
    ] = {}
    time_budget: Annotated[
        float, Field(gt=0, description="seconds, or a text such as `20 min`")
    ] = 600.0
    projection_time: Annotated[
        float, Field(gt=0, le=1e4, description="theta of the projector (ground state) method")
    ] = 20.0
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 1
    chains: Annotated[
        int | None, Field(ge=1, le=4096, description="independent Markov chains; default: cores")
    ] = None

    @field_validator("dtau", mode="before")
    @classmethod
    def _steps(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("time_budget", mode="before")
    @classmethod
    def _seconds(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        match = re.fullmatch(r"\s*([0-9.]+)\s*([a-z]+)\s*", value)
        if match is None or match[2] not in _UNITS or match[1].count(".") > 1 or match[1] == ".":
            raise PydanticCustomError(
                "duration", "should be seconds or a text such as `90 s`, `20 min`, `2 h`"
            )
        return float(match[1]) * _UNITS[match[2]]
