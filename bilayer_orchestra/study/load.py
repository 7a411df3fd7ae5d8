"""Read a study file and expand it to validated points: every problem in one go."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from bilayer_orchestra.engines.registry import ENGINES
from bilayer_orchestra.errors import SpecError
from bilayer_orchestra.model.absent import AbsentModel, is_absent
from bilayer_orchestra.model.kinds import kind_of
from bilayer_orchestra.model.load import (
    Lines,
    describe_all,
    file_path,
    in_file_order,
    is_study,
    read_text,
    section_of,
    set_value,
)
from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.study.axes import TUNING, Axis, AxisError, collisions, read_axes, shown
from bilayer_orchestra.study.spec import Study
from bilayer_orchestra.user_files import user_path
from bilayer_orchestra.yaml_text import KeyPath, YamlText

#: More points than this are a typing error, not a study.
MAX_POINTS = 20_000


@dataclass(frozen=True)
class Point:
    """One model of a study.

    Parameters
    ----------
    name : str
        ``t_perp=0.3,U=-4``: the values on all axes; stable when axes grow.
    index : tuple of int
        Position on every axis.
    model : Model
        The validated model.
    settings : dict
        What the study and its base model say of engines' settings.
    """

    name: str
    index: tuple[int, ...]
    model: Model
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadedStudy:
    """A study with everything that follows from its file.

    Parameters
    ----------
    path : Path
        The study file.
    text : str
        The file as it was read; whatever becomes of it meanwhile, this is what was computed.
    spec : Study
        Its content.
    axes : tuple of Axis
        The dimensions.
    points : tuple of Point
        In the order of the file, the last axis fastest.
    """

    path: Path
    text: str
    spec: Study
    axes: tuple[Axis, ...]
    points: tuple[Point, ...]

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.spec.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of positions on every axis."""
        return tuple(axis.size for axis in self.axes)


def load_study(path: Path, stored: bool = False) -> LoadedStudy:
    """Read a study file, and its base model.

    Parameters
    ----------
    path : Path
        The study file.
    stored : bool
        Whether nothing is to be computed: engines and geometries need not be installed then.

    Raises
    ------
    SpecError
        With one line for each problem of the study, its base model and any of its points.
    """
    source = str(path)
    text = read_text(path)
    yaml = YamlText(text, source)
    if is_study(yaml.data) is False:
        remedy = "`orchestra run` solves it, and a study names it: `model: FILE`"
        raise SpecError(source, [f"is a model, not a study; {remedy}"])
    study, axes = _read(yaml, stored)
    count = math.prod(axis.size for axis in axes)
    if count > MAX_POINTS:
        raise SpecError(source, [f"has {count} points; {MAX_POINTS} are the most"])
    base = _Base(study, yaml, path)
    points, problems = [], _Problems()
    for index in itertools.product(*(range(axis.size) for axis in axes)):
        name = point_name(axes, index)
        data = copy.deepcopy(base.data)
        for axis, k in zip(axes, index, strict=True):
            for dotted, values in axis.columns.items():
                clash = set_value(data, dotted.split("."), values[k])
                if clash:
                    line = _line(yaml, axis.place_of(dotted, k))
                    problems.add(f"{line}`{dotted}`: `{clash}` has no keys inside", name)
        kind, settings = kind_of(data), data.get("numerics") or {}
        if stored and isinstance(settings, dict):
            data["numerics"] = {key: settings[key] for key in settings if key in ENGINES.names()}
            kind = AbsentModel if is_absent(data) else kind
        try:
            points.append(Point(name, index, kind.model_validate(data), settings))
        except ValidationError as error:
            for text in base.describe(error.errors(), axes, index, kind):
                problems.add(text, name)
    if problems:
        raise SpecError(source, in_file_order(problems.lines(count)))
    if any(getattr(point.model, "filling", None) is not None for point in points):
        wrong = collisions(axes, lambda name: name.startswith(TUNING))
        if wrong:
            raise SpecError(source, [_axis_problem(yaml, problem) for problem in wrong])
    return LoadedStudy(path, text, study, axes, tuple(points))


def _read(yaml: YamlText, stored: bool) -> tuple[Study, tuple[Axis, ...]]:
    problems = list(yaml.problems)
    sections = [yaml.data.get(key) or {} for key in ("axes", "zip")]
    axes: list[Axis] = []
    if all(isinstance(section, dict) for section in sections):
        axes, wrong = read_axes(*sections)
        problems += [_axis_problem(yaml, problem) for problem in wrong]
    try:
        study = Study.model_validate(yaml.data, context={"stored": stored})
    except ValidationError as error:
        problems += describe_all(yaml, error.errors(), Study)
        raise SpecError(yaml.source, in_file_order(problems)) from error
    problems += _figure_problems(yaml, study, axes)
    if problems:
        raise SpecError(yaml.source, in_file_order(problems))
    return study, tuple(axes)


def _axis_problem(yaml: YamlText, problem: AxisError) -> str:
    dotted = ".".join(map(str, problem.place))
    return f"{_line(yaml, problem.place)}`{dotted}` {problem.text}"


def _figure_problems(yaml: YamlText, study: Study, axes: list[Axis]) -> Iterator[str]:
    if study.figure is None:
        return
    labels = {axis.label: axis for axis in axes}
    for key in ("along", "panels"):
        name = getattr(study.figure, key)
        if name is not None and name not in labels:
            known = ", ".join(labels) or "none"
            yield f"{_line(yaml, ('figure', key))}`figure.{key}` names no axis; there are: {known}"
    if study.figure.along == study.figure.panels:
        yield f"{_line(yaml, ('figure', 'panels'))}`figure.panels` is the axis of `along`, too"
    reference, along = study.figure.reference, labels.get(study.figure.along)
    if reference is not None and along is not None and reference not in map(shown, along.labels):
        known = ", ".join(map(shown, along.labels))
        place = _line(yaml, ("figure", "reference"))
        yield f"{place}`figure.reference` is no value of {along.label}; there are: {known}"


def point_name(axes: tuple[Axis, ...], index: tuple[int, ...]) -> str:
    """Return ``label=value,label=value``; ``point`` for a study without axes."""
    parts = [f"{axis.label}={shown(axis.labels[k])}" for axis, k in zip(axes, index, strict=True)]
    return ",".join(parts) or "point"


class _Base:
    """The base model's data, and in which file each of its values stands."""

    def __init__(self, study: Study, yaml: YamlText, path: Path) -> None:
        self.study_lines = yaml
        if isinstance(study.model, str):
            file = path.parent / user_path(study.model)
            self.prefix = f"{file}: "
            text = YamlText(read_text(file), str(file))
            if text.problems:
                raise SpecError(str(file), text.problems)
            if is_study(text.data) is True:
                raise SpecError(str(file), ["is a study; `model` names the file of one model"])
            self.lines: Lines = text
            self.data: dict[str, Any] = text.data
        else:
            self.prefix = ""
            self.lines = _Shifted(yaml, ("model",))
            self.data = copy.deepcopy(study.model)
            # an inline model need not repeat what the study says
            self.data.setdefault("version", study.version)
            self.data.setdefault("name", study.name)
        self.overlaid = {(name, *inner) for name, inner in _leaves(study.numerics)}
        if study.numerics:
            _merge(self.data, {"numerics": study.numerics})

    def describe(
        self,
        errors: list[ErrorDetails],
        axes: tuple[Axis, ...],
        index: tuple[int, ...],
        kind: type[Model],
    ) -> Iterator[str]:
        """Return one line per problem of a point, with the file and line of the value."""
        on_axis = _AxisLines(self.study_lines, axes, index)
        groups: dict[str, list[ErrorDetails]] = {"axis": [], "study": [], "base": []}
        for details in errors:
            path = file_path(details)
            if on_axis.line_of(path) is not None:
                groups["axis"].append(details)
            elif path[:1] == ("numerics",) and path[1:] in self.overlaid:
                groups["study"].append(details)
            else:
                groups["base"].append(details)
        yield from describe_all(on_axis, groups["axis"], kind)
        yield from describe_all(self.study_lines, groups["study"], kind)
        for text in describe_all(self.lines, groups["base"], kind):
            yield self.prefix + text


class _Shifted:
    """Lines of a section that stands inside another file."""

    def __init__(self, yaml: YamlText, place: KeyPath) -> None:
        self.yaml, self.place = yaml, place

    def line_of(self, path: KeyPath) -> int | None:
        return self.yaml.line_of((*self.place, *path))


class _AxisLines:
    """Lines of the values that the axes set in one point; None for all others."""

    def __init__(self, yaml: YamlText, axes: tuple[Axis, ...], index: tuple[int, ...]) -> None:
        self.found: dict[KeyPath, int | None] = {}
        for axis, k in zip(axes, index, strict=True):
            for dotted in axis.columns:
                place = axis.place_of(dotted, k)
                self.found[tuple(dotted.split("."))] = yaml.line_of(place)

    def line_of(self, path: KeyPath) -> int | None:
        for length in range(len(path), 0, -1):
            if path[:length] in self.found:
                return self.found[path[:length]]
        # an axis inside the section that is wrong as a whole, e.g. `state`
        for place, line in self.found.items():
            if path and place[: len(path)] == path:
                return line
        return None


class _Problems:
    """Problems of all points, each once."""

    def __init__(self) -> None:
        self.points: dict[str, list[str]] = {}

    def __bool__(self) -> bool:
        return bool(self.points)

    def add(self, text: str, point: str) -> None:
        self.points.setdefault(text, []).append(point)

    def lines(self, count: int) -> list[str]:
        return [
            text if len(names) == count else f"{text} (in {_several(names)})"
            for text, names in self.points.items()
        ]


def _several(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} points, first {names[0]}"


def _merge(target: dict[str, Any], source: dict[str, Any]) -> None:
    """Put the values of ``source`` into ``target``, section by section.

    What stands there and is no section is left to validation; an emptied section adds nothing.
    """
    for key, value in source.items():
        if isinstance(value, dict):
            inner = section_of(target, key)
            if inner is not None:
                _merge(inner, value)
        elif value is not None or not isinstance(target.get(key), dict):
            target[key] = value


def _leaves(data: dict[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (key, path below it) of every value and section."""
    for key, value in data.items():
        yield key, ()
        if isinstance(value, dict):
            for inner, below in _leaves(value):
                yield key, (inner, *below)


def _line(yaml: YamlText, place: KeyPath) -> str:
    line = yaml.line_of(place)
    return f"line {line}: " if line else ""
