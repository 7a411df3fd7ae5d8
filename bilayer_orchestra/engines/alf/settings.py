"""The ``numerics: alf:`` section."""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator
from pydantic_core import PydanticCustomError

from bilayer_orchestra.observables import OPTIONAL
from bilayer_orchestra.settings import SpecModel, kind_of_value

_UNITS = {"s": 1, "sec": 1, "min": 60, "h": 3600, "hour": 3600, "hours": 3600, "d": 86400}

Step = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]

#: What a target may name: energies are always measured.
TARGETS = ("energy", "kinetic_energy", "interaction_energy", *sorted(OPTIONAL))
DEFAULT_TIME_BUDGET = 600.0
#: Chains of a run with a given number of sweeps: the same numbers on every machine.
REPRODUCIBLE_CHAINS = 4


class ALFNumerics(SpecModel):
    """Settings of auxiliary-field quantum Monte Carlo with ALF.

    A run ends at whichever comes first of ``target_stderr``, ``time_budget`` and ``sweeps``. Only
    ``sweeps`` alone gives the same numbers again: the other two depend on the clock.
    """

    dtau: Annotated[
        Annotated[Step, Tag("one")]
        | Annotated[Literal["auto"], Tag("word")]
        | Annotated[tuple[Step, ...], Field(min_length=1, max_length=8), Tag("several")],
        Discriminator(kind_of_value),  # one message instead of one for each alternative
        Field(
            description="imaginary-time step; a list is extrapolated in dtau^2 (three or more: and "
            "dtau^4), `auto` chooses three"
        ),
    ] = "auto"
    target_stderr: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description="stop once the largest error of each named observable is below this",
    )
    time_budget: Annotated[
        float | None,
        Field(
            gt=0,
            description="wall time of the sampling, over all resumes: seconds, or a text such as "
            "`20 min`; default: 10 min, or no limit if `sweeps` is given",
        ),
    ] = None
    sweeps: Annotated[
        Count | None,
        Field(description="sweeps per chain and time step, for runs that can be reproduced"),
    ] = None
    sweeps_per_bin: Annotated[
        Count | None,
        Field(description="sweeps that are averaged into one stored bin; default: auto"),
    ] = None
    projection_time: Annotated[
        float, Field(gt=0, le=1e4, description="theta of the projector (ground state) method")
    ] = 20.0
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 1
    chains: Annotated[
        int | None,
        Field(
            ge=1,
            le=4096,
            description="independent Markov chains, run at the same time; default: the cores "
            f"available, or {REPRODUCIBLE_CHAINS} if `sweeps` is given",
        ),
    ] = None
    ranks: Annotated[
        int, Field(ge=1, le=4096, description="MPI processes per chain; needs an MPI build of ALF")
    ] = 1
    stabilization_interval: Annotated[
        int | None,
        Field(ge=1, le=1000, description="time slices between two stabilizations; default: auto"),
    ] = None
    pair_susceptibility: Annotated[
        bool,
        Field(description="integrate <Delta+_i(tau) Delta_j> over tau (T > 0); doubles the cost"),
    ] = False
    pair_displaced: Annotated[
        bool, Field(description="store <Delta+_i(tau) Delta_j> for every tau; large files")
    ] = False

    @field_validator("dtau", mode="before")
    @classmethod
    def _steps(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("dtau")
    @classmethod
    def _different_steps(cls, value: Any) -> Any:
        if isinstance(value, tuple) and len(set(value)) < len(value):
            raise PydanticCustomError("repeated", "lists a time step twice")
        return value

    @field_validator("target_stderr")
    @classmethod
    def _targets(cls, value: dict[str, float]) -> dict[str, float]:
        for name in value:
            if name not in TARGETS:
                close = difflib.get_close_matches(name, TARGETS, n=1)
                hint = f"did you mean `{close[0]}`?" if close else f"known: {', '.join(TARGETS)}"
                raise PydanticCustomError(
                    "target",
                    "names `{name}`, which is no observable; {hint}",
                    {"name": name, "hint": hint},
                )
        return value

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

    @property
    def effective_budget(self) -> float | None:
        """Seconds of sampling, or None for no limit."""
        if self.time_budget is None and self.sweeps is None:
            return DEFAULT_TIME_BUDGET
        return self.time_budget
