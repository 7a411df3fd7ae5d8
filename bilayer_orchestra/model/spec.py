"""The model file as validated data, and its translation to Terms."""

from __future__ import annotations

import io
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from bilayer_orchestra.model.bilayer import Bilayer
from bilayer_orchestra.model.numerics import Numerics
from bilayer_orchestra.model.state import CanonicalState, State
from bilayer_orchestra.observables import SELECTABLE
from bilayer_orchestra.terms import Canonical, GrandCanonical, Terms

ObservableName = Literal[
    "density", "double_occupancy", "pair", "green", "density_density", "spin_spin"
]


class Model(Bilayer):
    """One model file.

    Files carry ``version``; a reader of this program understands every version up to its own.
    """

    version: Annotated[Literal[1], Field(description="version of this file format")]
    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=64,
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
            description="letters, digits, dot, dash, underscore; names the run directory",
        ),
    ]
    state: State
    observables: Annotated[
        tuple[ObservableName, ...],
        Field(min_length=1, description="what to measure; energies are always reported"),
    ] = SELECTABLE  # type: ignore[assignment]
    numerics: Annotated[
        Numerics, Field(description="settings per backend, read by that backend only")
    ] = Numerics()

    @field_validator("observables", mode="before")
    @classmethod
    def _list_of_names(cls, value: Any) -> Any:
        # strict mode wants a tuple; YAML has lists
        return tuple(value) if isinstance(value, list) else value

    @field_validator("observables")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        repeated = sorted({name for name in value if value.count(name) > 1})
        if repeated:
            raise PydanticCustomError(
                "repeated", "{names} listed twice", {"names": ", ".join(repeated)}
            )
        return value

    @model_validator(mode="after")
    def _filling_fits(self) -> Model:
        if isinstance(self.state, CanonicalState):
            n_sites = len(self.sites)
            for key in ("n_up", "n_down"):
                number = getattr(self.state, key)
                if number > n_sites:
                    raise PydanticCustomError(
                        "filling",
                        "{key} = {number} does not fit: {length} rungs have {n_sites} sites, "
                        "one electron of each spin per site",
                        {
                            "key": key,
                            "number": number,
                            "length": self.length,
                            "n_sites": n_sites,
                            "path": ("state", key),
                        },
                    )
        return self

    def terms(self) -> Terms:
        """Return the model without physics words, from which every backend starts."""
        interaction, potential = self.on_site()
        state = (
            Canonical(self.state.n_up, self.state.n_down)
            if isinstance(self.state, CanonicalState)
            else GrandCanonical(self.state.beta)
        )
        return Terms(self.sites, self.one_body(), interaction, potential, state)

    def to_data(self) -> dict[str, Any]:
        """Return plain data in the order of the documentation, defaults of numerics left out."""
        order = ["version", "name", "model", "length", "boundary", "layers", "t_perp", "state"]
        data = self.model_dump(mode="json", exclude={"numerics"})
        numerics = self.numerics.model_dump(mode="json", exclude_defaults=True)
        ordered = {key: data[key] for key in order} | {"observables": data["observables"]}
        return ordered | ({"numerics": numerics} if numerics else {})

    def to_yaml(self) -> str:
        """Return the model as a model file."""
        from ruamel.yaml import YAML

        yaml = YAML(typ="safe", pure=True)
        yaml.default_flow_style = None  # innermost mappings on one line
        yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
        stream = io.StringIO()
        yaml.dump(self.to_data(), stream)
        return stream.getvalue()
