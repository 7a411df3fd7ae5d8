"""What every model file has, whatever its geometry, and what the rest of the program asks of it.

A geometry is a subclass of :class:`Model` (see :mod:`bilayer_orchestra.model.kinds`): it yields
Terms, and says how what was measured on them is reported.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, create_model, field_validator, model_validator
from pydantic_core import PydanticCustomError

from bilayer_orchestra.engines.registry import engines
from bilayer_orchestra.model.filling import Filling
from bilayer_orchestra.model.state import CanonicalState, State
from bilayer_orchestra.settings import NAME, SpecModel
from bilayer_orchestra.terms import FloatArray, Site, Terms

if TYPE_CHECKING:
    from typing import Self

    from bilayer_orchestra.averages import Averages


#: The section ``numerics``: one part per installed engine, read by that engine only.
Numerics: type[SpecModel] = create_model(  # type: ignore[call-overload]
    "Numerics",
    __base__=SpecModel,
    __doc__="Settings per engine.",
    **{name: (engine.settings, engine.settings()) for name, engine in engines().items()},
)


def observables_field() -> Any:
    """Return the description of the list of observables, for every geometry's own names."""
    return Field(min_length=1, description="what to measure; energies are always reported")


class Model(SpecModel):
    """One model file.

    Files carry ``version``; a reader of this program understands every version up to its own.
    """

    #: Keys of the geometry, which stand before ``state``, in the order of the documentation.
    ORDER: ClassVar[tuple[str, ...]] = ()

    #: Raised when :meth:`reported` changes its numbers; 0 if it changes nothing.
    TRANSLATION: ClassVar[int] = 0

    version: Annotated[Literal[1], Field(description="version of this file format")]
    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=64,
            pattern=NAME,
            description="letters, digits, dot, dash, underscore; names the run directory",
        ),
    ]
    model: str
    state: State
    observables: tuple[str, ...]
    numerics: Annotated[
        Numerics, Field(description="settings per backend, read by that backend only")
    ] = Numerics()

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """Validate plain data; on this class itself, as the geometry that its `model` key names."""
        from bilayer_orchestra.model.kinds import kind_of

        chosen = kind_of(obj) if cls is Model else cls
        return super(Model, chosen).model_validate(obj, **options)  # type: ignore[return-value]

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
                        "{key} = {number} does not fit: there are {n_sites} sites, one electron "
                        "of each spin per site",
                        {
                            "key": key,
                            "number": number,
                            "n_sites": n_sites,
                            "path": ("state", key),
                        },
                    )
        return self

    @property
    def sites(self) -> tuple[Site, ...]:
        """Site labels, in the order in which matrices are indexed."""
        raise NotImplementedError

    def terms(self) -> Terms:
        """Return the model without physics words, from which every backend starts."""
        raise NotImplementedError

    def measured(self) -> tuple[str, ...]:
        """Return what a backend has to measure on :meth:`terms` for the wished observables."""
        return tuple(self.observables)

    def settings(self, backend: str) -> SpecModel:
        """Return a backend's settings, in terms of what it measures."""
        settings: SpecModel = getattr(self.numerics, backend)
        return settings

    @property
    def periodic(self) -> bool:
        """Whether the ends of its chains meet."""
        return False

    @property
    def wished(self) -> Filling | None:
        """Densities that are asked for in place of chemical potentials: the section ``filling``."""
        return getattr(self, "filling", None)

    def potentials(self) -> dict[str, str]:
        """Return layer -> path of its chemical potential, such as ``layers.P.chemical_potential``.

        Layers in the order of the sites; none where the geometry has no such potentials: then
        densities are not searched for, and no thermal state is followed to a ground state.
        """
        return {}

    def chemical_potentials(self) -> FloatArray:
        """Return the values at :meth:`potentials`, one for each layer."""
        paths = self.potentials().values()
        return np.array([functools.reduce(getattr, path.split("."), self) for path in paths])

    def at(self, *mu: float) -> Self:
        """Return the model with these chemical potentials and no densities to tune."""
        values = dict(zip(self.potentials().values(), map(float, mu), strict=True))
        return self.replace(values, filling=None)

    def raised(self, mu: float) -> Self | None:
        """Return the model with all chemical potentials raised by ``mu``; None if it has none."""
        return self.at(*(self.chemical_potentials() + mu)) if self.potentials() else None

    def replace(self, values: Mapping[str, Any] | None = None, /, **more: Any) -> Self:
        """Return the model with other values, validated again.

        Parameters
        ----------
        values : mapping, optional
            Path of a value, such as ``"layers.P.interaction"`` -> its new value; None removes it.
        **more
            The same for paths of one word: ``t_perp=0.3``.

        Raises
        ------
        OrchestraError
            With one line for every problem.
        """
        from bilayer_orchestra.model.load import replaced

        return replaced(self, {**(values or {}), **more})

    def with_settings(self, engine: str, settings: SpecModel) -> Self:
        """Return the model with other settings of one engine."""
        numerics = self.numerics.model_copy(update={engine: settings})
        return self.model_copy(update={"numerics": numerics})

    def reported(self, averages: Averages) -> Averages:
        """Return what a backend measured on :meth:`terms` as averages of this model."""
        return averages

    def remark(self) -> str | None:
        """Return what a reader of a backend's message must know if it solves a mapped model."""
        return None

    def to_data(self) -> dict[str, Any]:
        """Return plain data in the order of the documentation, defaults of numerics left out."""
        order = ["version", "name", "model", *self.ORDER, "state"]
        data = self.model_dump(mode="json", exclude={"numerics"}, exclude_none=True)
        numerics = self.numerics.model_dump(mode="json", exclude_defaults=True)
        ordered = {key: data[key] for key in order if key in data}
        ordered |= {"observables": data["observables"]}
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
