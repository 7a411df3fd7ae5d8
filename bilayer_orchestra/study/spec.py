"""The study file: a base model, named axes, backends, where the points run, and a figure."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from bilayer_orchestra.runtimes.base import RuntimeName
from bilayer_orchestra.settings import AS_TUPLE, Name, SpecModel

Kind = Literal["decay", "comparison", "exponents", "temperature"]


class Figure(SpecModel):
    """One figure of a study.

    ``decay``: pair and density correlations of both layers against distance, a curve for each value
    of ``along``. ``comparison``: pair and density correlations in one panel for each layer.
    ``exponents``: what decides how the correlations decay (K of pairs, the metal's length xi) along
    an axis. ``temperature``: correlators at several temperatures, on top of the ground state's.
    """

    kind: Annotated[Kind, Field(description="decay, comparison, exponents or temperature")]
    along: Annotated[
        str, Field(min_length=1, description="the axis of the curves, or of the abscissa")
    ]
    panels: Annotated[
        str | None, Field(description="the axis whose values get panels of their own, or colours")
    ] = None
    reference: Annotated[
        str | None,
        Field(description="temperature: the value of `along` that is the ground state [the first]"),
    ] = None
    title: Annotated[str, Field(max_length=200)] = ""


class Study(SpecModel):
    """One study file.

    ``axes`` are crossed with each other. Each is a model value, named as in ``--set``, with its
    list of values; or a label of your choice with ``path`` and ``values``. Values may be given
    names, and may then be whole sections of the model (or ``null``: without that section). ``zip``
    holds groups of model values that move together along one dimension.
    """

    version: Annotated[Literal[1], Field(description="version of this file format")]
    name: Annotated[
        Name, Field(description="letters, digits, dot, dash, underscore; names the dataset")
    ]
    model: Annotated[
        Any, Field(description="the base model: inline, or a path relative to this file")
    ]
    axes: Annotated[dict[str, Any], Field(description="model value -> list of values; crossed")] = (
        Field(default_factory=dict)
    )
    zip: Annotated[
        dict[str, Any],
        Field(description="label -> {model value -> list of values}; these move together"),
    ] = Field(default_factory=dict)
    backends: Annotated[
        tuple[str, ...], AS_TUPLE, Field(min_length=1, description="auto, or names of engines")
    ] = ("auto",)
    numerics: Annotated[
        dict[str, Any], Field(description="as in the model file; goes before the base model's")
    ] = Field(default_factory=dict)
    figure: Annotated[
        Figure | None, Field(description="how `orchestra plot` draws the collected dataset")
    ] = None
    runtime: Annotated[
        RuntimeName, Field(description="where the points run: local, apptainer or slurm")
    ] = "local"
    site: Annotated[
        str | None, Field(description="site profile for slurm: a TOML file, or a name")
    ] = None

    @field_validator("name")
    @classmethod
    def _no_other_name(cls, value: str) -> str:
        from bilayer_orchestra.running.published import is_taken

        if is_taken(value):
            raise PydanticCustomError(
                "taken", "is what this program calls a file of its own beside it; take another"
            )
        return value

    @field_validator("backends")
    @classmethod
    def _known_backends(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        from bilayer_orchestra.engines.registry import ENGINES

        stored = bool((info.context or {}).get("stored"))  # what is there may be of any engine
        for k, name in enumerate(value):
            if not stored and name != "auto" and name not in ENGINES.names():
                raise PydanticCustomError(
                    "backend",
                    "names `{name}`; known: auto, {known}",
                    {"name": name, "known": ", ".join(ENGINES.names()), "path": ("backends", k)},
                )
        if len(set(value)) < len(value):
            raise PydanticCustomError("repeated", "names a backend twice")
        return value

    @field_validator("model")
    @classmethod
    def _path_or_mapping(cls, value: Any) -> Any:
        if not isinstance(value, (str, dict)) or not value:
            raise PydanticCustomError(
                "base", "should be a model (keys and values) or the path of a model file"
            )
        return value
