"""The model file: what it has, whatever its geometry, and how it is read.

A geometry is a subclass of :class:`Model`: it yields Terms, and says how what was measured on them
is reported. Geometries come in through entry points; the `model` key of a file names one. Every
problem of a file is said in one go, each with its line and what would be right.
"""

import copy
import difflib
import functools
import io
from collections.abc import Mapping, Sequence
from errno import EISDIR, ENOENT
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidatorFunctionWrapHandler,
    create_model,
    field_validator,
    model_validator,
)
from pydantic.json_schema import models_json_schema
from pydantic_core import PydanticCustomError
from ruamel.yaml import YAML

from bilayer_orchestra.averages import Averages
from bilayer_orchestra.engines.registry import engines
from bilayer_orchestra.errors import OrchestraError, SpecError
from bilayer_orchestra.files import read_bounded
from bilayer_orchestra.model.filling import Filling
from bilayer_orchestra.plugins import Plugins
from bilayer_orchestra.settings import NAME, SpecModel
from bilayer_orchestra.terms import Canonical, FloatArray, GrandCanonical, Site, Terms
from bilayer_orchestra.yaml_text import PlaceOf, YamlText, describe_all, in_file_order, set_value


class CanonicalState(SpecModel):
    """Ground state (T = 0) with fixed particle numbers."""

    n_up: Annotated[int, Field(ge=0, description="number of spin-up electrons")]
    n_down: Annotated[int, Field(ge=0, description="number of spin-down electrons")]

    def as_terms(self) -> Canonical:
        """Return the state as engines get it."""
        return Canonical(self.n_up, self.n_down)


class ThermalState(SpecModel):
    """Grand-canonical state at inverse temperature beta, with the layers' chemical potentials."""

    beta: Annotated[float, Field(gt=0, le=1e6, description="inverse temperature 1/T")]

    def as_terms(self) -> GrandCanonical:
        """Return the state as engines get it."""
        return GrandCanonical(self.beta)


def _which(value: Any) -> str:
    thermal = isinstance(value, ThermalState) or (isinstance(value, dict) and "beta" in value)
    return "thermal" if thermal else "canonical"


def _one_of_both(value: Any) -> Any:
    """Refuse a mixture and a missing choice with one message each."""
    keys = value.keys() & {"beta", "n_up", "n_down"} if isinstance(value, dict) else {"beta"}
    choice = "{n_up, n_down} (ground state) or {beta} (thermal)"
    if value == {}:
        raise PydanticCustomError("state", f"is missing its content: {choice}")
    if {"beta"} < keys:
        raise PydanticCustomError("state", f"should be either {choice}, not both")
    return value


State = Annotated[
    Annotated[CanonicalState, Tag("canonical")] | Annotated[ThermalState, Tag("thermal")],
    Discriminator(_which),
    BeforeValidator(_one_of_both),
]

Name = Annotated[str, Field(min_length=1, max_length=64, pattern=NAME)]
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
        Name, Field(description="letters, digits, dot, dash, underscore; names the run directory")
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
        chosen = kind_of(obj) if cls is Model and isinstance(obj, Mapping) else cls
        return super(Model, chosen).model_validate(obj, **options)  # type: ignore[return-value]

    @field_validator("model", mode="before")
    @classmethod
    def _installed(cls, value: Any) -> Any:
        if value in kinds() or cls is AbsentModel:
            return value
        names = " or ".join(f"'{name}'" for name in kinds())
        if close := difflib.get_close_matches(str(value), kinds(), n=1):
            raise PydanticCustomError("nearly", f"should be {names}; did you mean `{close[0]}`?")
        raise PydanticCustomError(
            "absent",
            f"should be {names}; others come with distributions that are not installed here",
        )

    @field_validator("observables", mode="wrap")
    @classmethod
    def _each_once(cls, value: Any, read: ValidatorFunctionWrapHandler) -> Any:
        names = read(tuple(value) if isinstance(value, list) else value)  # YAML has lists
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise PydanticCustomError("repeated", f"{', '.join(repeated)} listed twice")
        return names

    @model_validator(mode="after")
    def _filling_fits(self) -> Self:
        for key, number in self.state if isinstance(self.state, CanonicalState) else ():
            if number > len(self.sites):
                raise PydanticCustomError(
                    "filling",
                    f"{key} = {number} does not fit: there are {len(self.sites)} sites, one "
                    "electron of each spin per site",
                    {"path": ("state", key)},
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
        data = self.model_dump(mode="python", exclude_unset=True)
        for path, value in {**(values or {}), **more}.items():
            if (clash := set_value(data, path.split("."), value)) is not None:
                raise SpecError(self.name, [f"{path}: `{clash}` has no keys inside"])
        changed = validated(data, self.name)
        assert isinstance(changed, type(self))
        return changed

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
        order = ["version", "name", "model", *self.ORDER, "state", "observables"]
        data = self.model_dump(mode="json", exclude={"numerics"}, exclude_none=True)
        numerics = self.numerics.model_dump(mode="json", exclude_defaults=True)
        ordered = {key: data[key] for key in order if key in data}
        return ordered | ({"numerics": numerics} if numerics else {})

    def to_yaml(self) -> str:
        """Return the model as a model file."""
        yaml = YAML(typ="safe", pure=True)
        yaml.default_flow_style = None  # innermost mappings on one line
        yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
        stream = io.StringIO()
        yaml.dump(self.to_data(), stream)
        return stream.getvalue()


class AbsentModel(Model):
    """What a file says, whatever it means."""

    model_config = ConfigDict(extra="allow")

    state: Any = None
    observables: Any = ()
    numerics: Any = None

    def terms(self) -> Terms:
        """Raise OrchestraError: only the geometry knows."""
        raise OrchestraError(
            f"the geometry `{self.model}` is not installed here; there are: {', '.join(kinds())}"
        )

    def to_data(self) -> dict[str, Any]:
        """Return what was said."""
        return self.model_dump(mode="json", exclude={"numerics"}, exclude_unset=True)


#: What a file without `model` is.
DEFAULT = "bilayer"


def _accept(name: str, loaded: object) -> type[Model]:
    if not (isinstance(loaded, type) and issubclass(loaded, Model)):
        raise OrchestraError(f"{loaded!r} is not a class that derives from Model")
    return loaded


GEOMETRIES: Plugins[type[Model]] = Plugins("bilayer_orchestra.geometries", "geometry", _accept)


@functools.cache
def kinds() -> dict[str, type[Model]]:
    """Return the installed geometries by name, the default first."""
    found = GEOMETRIES.all()
    if DEFAULT not in found:  # a checkout that went on without its installation
        raise OrchestraError(
            "the geometries of this program are not registered; install it again (`pip install .`)"
        )
    return {DEFAULT: found[DEFAULT]} | found


def kind_of(data: Mapping[str, Any]) -> type[Model]:
    """Return the class that reads ``data``; its validation complains about an unknown name.

    A misspelt name is read as the nearest one, and without that the keys decide, so that the rest
    of the file is judged as meant.
    """
    close = difflib.get_close_matches(str(data.get("model")), kinds(), n=1)
    if close:
        return kinds()[close[0]]
    return max(kinds().values(), key=lambda kind: len(kind.model_fields.keys() & data.keys()))


def is_absent(data: dict[str, Any]) -> bool:
    """Return whether the geometry of a model file is not installed here."""
    return str(data.get("model", DEFAULT)) not in kinds()


def validated(data: dict[str, Any], source: str, yaml: YamlText | None = None) -> Model:
    """Return the model that plain data describe.

    Parameters
    ----------
    data : dict
        The content of a model file.
    source : str
        What messages call it.
    yaml : YamlText, optional
        Knows the lines of the values, and what is wrong with the file already.

    Raises
    ------
    SpecError
        With one line for each problem.
    """
    place_of: PlaceOf = yaml.place_of if yaml else lambda path: ""
    kind, problems = kind_of(data), yaml.problems if yaml else []
    try:
        model = kind.model_validate(data)
    except ValidationError as error:
        problems = [*problems, *describe_all(place_of, error.errors(), kind)]
        raise SpecError(source, in_file_order(problems)) from error
    if problems:
        raise SpecError(source, problems)
    return model


#: Keys of a study that no model has.
STUDY_KEYS = frozenset({"axes", "zip", "backends", "figure", "runtime", "site"})
_SHARED_KEYS = frozenset({"version", "name", "model", "numerics"})


def is_study(data: dict[str, Any]) -> bool | None:
    """Return whether a file is a study (True) or a model (False), by its keys; None: it is unsure.

    Who takes one for the other is told so, not that every key is unknown.
    """
    of_model = {key for kind in kinds().values() for key in kind.model_fields} - _SHARED_KEYS
    base = data.get("model")
    study = bool(STUDY_KEYS & data.keys()) or isinstance(base, dict) or Path(str(base)).suffix != ""
    return None if study == bool(of_model & data.keys()) else study


def load_model(
    source: str | Path | Mapping[str, Any], overrides: Sequence[str] | None = None
) -> Model:
    """Return the model of a file, or of the same content as plain data.

    Parameters
    ----------
    source : path or mapping
        The YAML file, or what could be in one.
    overrides : sequence of str, optional
        ``key.key=value`` texts that replace single values of a file, as ``--set`` does.

    Raises
    ------
    OrchestraError
        With one line for every problem.
    """
    if isinstance(source, Mapping):
        return validated(copy.deepcopy(dict(source)), "model")
    return parse_model(read_text(Path(source)), str(source), overrides)


def read_text(path: Path) -> str:
    """Return the text of a file that a user named, or raise SpecError."""
    try:
        return read_bounded(path).decode("utf-8-sig")  # editors on Windows mark UTF-8 by a BOM
    except UnicodeDecodeError as error:
        dataset = "is a dataset; a file of keys and values is needed here"
        what = dataset if path.suffix == ".nc" else "is not UTF-8 text"
        raise SpecError(str(path), [what]) from error
    except OSError as error:
        known = {ENOENT: "there is no such file", EISDIR: "is a directory; name a file in it"}
        what = known.get(error.errno or 0, f"cannot be read: {error.strerror}")
        raise SpecError(str(path), [what]) from error


def stored_model(text: str) -> Model:
    """Return the model that a result was computed for, without its settings.

    Whoever reads a result needs none, and its engine need not be installed here.

    Raises
    ------
    SpecError
        If it cannot be read, such as where its geometry is not installed.
    """
    yaml = YamlText(text, "the model of the result")
    yaml.data.pop("numerics", None)
    return validated(yaml.data, yaml.source, yaml)


def parse_model(text: str, source: str = "model", overrides: Sequence[str] | None = None) -> Model:
    """Validate the text of a model file; see :func:`load_model`.

    Parameters
    ----------
    text : str
        YAML.
    source : str
        What messages call it.
    overrides : sequence of str, optional
        ``key.key=value`` texts that replace single values.
    """
    yaml = YamlText(text, source)
    if is_study(yaml.data) is True:
        raise SpecError(source, ["is a study, not a model; `orchestra sweep` runs all its points"])
    for override in overrides or ():
        _apply(yaml, override)
    return validated(yaml.data, source, yaml)


def _apply(yaml: YamlText, override: str) -> None:
    """Set one value from ``a.b.c=value``; unknown keys are left to validation."""
    dotted, equals, value = override.partition("=")
    keys = dotted.strip().split(".")
    try:
        if not equals or not all(keys):
            raise SpecError("", ["expected KEY=VALUE, as in t_perp=0.3 or state.n_up=4"])
        given = YamlText(value, "", mapping=False)
        if given.problems:
            raise SpecError("", given.problems)
        if (clash := set_value(yaml.data, keys, given.data)) is not None:
            raise SpecError("", [f"`{clash}` has no keys inside"])
    except SpecError as error:
        problem = error.problems[0].removeprefix("line 1: ")
        raise SpecError(yaml.source, [f"--set {override}: {problem}"]) from error
    for length in range(1, len(keys) + 1):
        yaml.lines.pop(tuple(keys[:length]), None)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the model file: one branch per geometry."""
    pairs: list[tuple[type[Model], Literal["validation"]]]
    pairs = [(kind, "validation") for kind in kinds().values()]
    references, definitions = models_json_schema(pairs)  # sections of one name stay apart
    branches = {name: references[kind, "validation"] for name, kind in kinds().items()}
    # if/then/else, unlike oneOf, lets an editor complete and complain for the branch that is meant
    document = branches.pop(DEFAULT)
    for name, branch in branches.items():
        document = {
            "if": {"properties": {"model": {"const": name}}, "required": ["model"]},
            "then": branch,
            "else": document,
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Model file of bilayer_orchestra",
        "type": "object",
        **definitions,
    } | document
