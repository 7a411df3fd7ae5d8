"""The ``numerics: alf:`` section."""

import re
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator
from pydantic_core import PydanticCustomError

from bilayer_orchestra.observables import OPTIONAL
from bilayer_orchestra.settings import SpecModel, kind_of_value

_UNITS = {"s": 1, "sec": 1, "min": 60, "h": 3600, "hour": 3600, "hours": 3600, "d": 86400}

Step = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Processes = Annotated[int, Field(ge=1, le=4096)]

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
        | Annotated[
            tuple[Step, ...], Field(min_length=1, max_length=8, strict=False), Tag("several")
        ],
        Discriminator(kind_of_value),  # one message instead of one for each alternative
        Field(
            description="imaginary-time step; a list is extrapolated in dtau^2 (three or more: and "
            "dtau^4), `auto` chooses three"
        ),
    ] = "auto"
    target_stderr: dict[Literal[TARGETS], Positive] = Field(  # type: ignore[valid-type]
        {}, description="stop once the largest error of each named observable is below this"
    )
    time_budget: Positive | None = Field(
        None,
        description="wall time of the sampling, over all resumes: seconds, or a text such as "
        "`20 min`; default: 10 min, or no limit if `sweeps` is given",
    )
    sweeps: Count | None = Field(
        None, description="sweeps per chain and time step, for runs that can be reproduced"
    )
    sweeps_per_bin: Count | None = Field(
        None, description="sweeps that are averaged into one stored bin; default: auto"
    )
    projection_time: float = Field(
        20.0, gt=0, le=1e6, description="theta of the projector (ground state) method"
    )
    seed: int = Field(1, ge=0, le=2**31 - 1)
    chains: Processes | None = Field(
        None,
        description="independent Markov chains, run at the same time; default: the cores "
        f"available, or {REPRODUCIBLE_CHAINS} if `sweeps` is given",
    )
    ranks: Processes = Field(1, description="MPI processes per chain; needs an MPI build of ALF")
    stabilization_interval: int | None = Field(
        None, ge=1, le=1000, description="time slices between two stabilizations; default: auto"
    )
    pair_susceptibility: bool = Field(
        False, description="integrate <Delta+_i(tau) Delta_j> over tau (T > 0); doubles the cost"
    )
    pair_displaced: bool = Field(
        False, description="store <Delta+_i(tau) Delta_j> for every tau; large files"
    )

    @field_validator("dtau")
    @classmethod
    def _different_steps(cls, value: Any) -> Any:
        if isinstance(value, tuple) and len(set(value)) < len(value):
            raise PydanticCustomError("repeated", "lists a time step twice")
        return value

    @field_validator("time_budget", mode="before")
    @classmethod
    def _seconds(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        match = re.fullmatch(rf"\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*({'|'.join(_UNITS)})\s*", value)
        if match is None:
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
