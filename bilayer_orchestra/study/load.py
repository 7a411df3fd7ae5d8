"""Read a study file and expand it to validated points: every problem in one go."""

import copy
import functools
import itertools
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bilayer_orchestra.engines.registry import ENGINES
from bilayer_orchestra.errors import SpecError
from bilayer_orchestra.files import user_path
from bilayer_orchestra.model.spec import AbsentModel, Model, is_absent, is_study, kind_of, read_text
from bilayer_orchestra.running.directory import runs_directory
from bilayer_orchestra.study.axes import TUNING, Axis, AxisError, collisions, read_axes, shown
from bilayer_orchestra.study.spec import Study
from bilayer_orchestra.yaml_text import (
    KeyPath,
    YamlText,
    describe_all,
    in_file_order,
    section_of,
    set_value,
)

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
    settings: dict[str, Any]


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

    def root(self, output: str | Path | None = None) -> Path:
        """Return the directory of the runs: that of the base model, shared with single runs."""
        return runs_directory(self.points[0].model.name, output)


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
    points: list[Point] = []
    problems: defaultdict[str, list[str]] = defaultdict(list)  # -> the points that have it
    for index in itertools.product(*(range(axis.size) for axis in axes)):
        name = point_name(axes, index)
        data, base.on_axes = copy.deepcopy(base.data), {}
        for axis, k in zip(axes, index, strict=True):
            for dotted, values in axis.columns.items():
                keys = dotted.split(".")
                place = base.on_axes[tuple(keys)] = axis.place_of(dotted, k)
                clash = set_value(data, keys, values[k])
                if clash:
                    text = f"{yaml.place_of(place)}`{dotted}`: `{clash}` has no keys inside"
                    problems[text].append(name)
        kind, settings = kind_of(data), data.get("numerics") or {}
        if stored and isinstance(settings, dict):
            data["numerics"] = {key: settings[key] for key in settings if key in ENGINES.names()}
            kind = AbsentModel if is_absent(data) else kind
        try:
            points.append(Point(name, index, kind.model_validate(data), settings))
        except ValidationError as error:
            for text in describe_all(base.place_of, error.errors(), kind):
                problems[text].append(name)
    if problems:
        lines = [
            text if len(names) == count else f"{text} (in {and_others(names)})"
            for text, names in problems.items()
        ]
        raise SpecError(source, in_file_order(lines))
    if any(point.model.wished is not None for point in points):
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
        problems += describe_all(yaml.place_of, error.errors(), Study)
        raise SpecError(yaml.source, in_file_order(problems)) from error
    problems += _figure_problems(yaml, study, axes)
    if problems:
        raise SpecError(yaml.source, in_file_order(problems))
    return study, tuple(axes)


def _axis_problem(yaml: YamlText, problem: AxisError) -> str:
    dotted = ".".join(map(str, problem.place))
    return f"{yaml.place_of(problem.place)}`{dotted}` {problem.text}"


def _figure_problems(yaml: YamlText, study: Study, axes: list[Axis]) -> Iterator[str]:
    if study.figure is None:
        return
    labels = {axis.label: axis for axis in axes}
    known = {"along": [*labels], "panels": [*labels]}
    along = labels.get(study.figure.along)
    if along is not None:
        known["reference"] = [*map(shown, along.labels)]
    for key, names in known.items():
        name, place = getattr(study.figure, key), yaml.place_of(("figure", key))
        if name is not None and name not in names:
            of_axis = f"is no value of {study.figure.along}"
            wrong = of_axis if key == "reference" else "names no axis"
            yield f"{place}`figure.{key}` {wrong}; there are: {', '.join(names) or 'none'}"
    if study.figure.along == study.figure.panels:
        yield f"{yaml.place_of(('figure', 'panels'))}`figure.panels` is the axis of `along`, too"


def point_name(axes: tuple[Axis, ...], index: tuple[int, ...]) -> str:
    """Return ``label=value,label=value``; ``point`` for a study without axes."""
    parts = [f"{axis.label}={shown(axis.labels[k])}" for axis, k in zip(axes, index, strict=True)]
    return ",".join(parts) or "point"


class _Base:
    """The base model's data, and where its values and those of one point stand."""

    def __init__(self, study: Study, yaml: YamlText, path: Path) -> None:
        self.study = yaml
        self.file: YamlText | None = None
        self.data: dict[str, Any]
        #: Path of a value that an axis sets -> where it does.
        self.on_axes: dict[KeyPath, KeyPath] = {}
        if isinstance(study.model, str):
            file = path.parent / user_path(study.model)
            self.file = text = YamlText(read_text(file), str(file))
            is_one = ["is a study; `model` names the file of one model"]
            if problems := text.problems or (is_one if is_study(text.data) else []):
                raise SpecError(str(file), problems)
            self.data = text.data
        else:
            self.data = copy.deepcopy(study.model)
            # an inline model need not repeat what the study says
            self.data.setdefault("version", study.version)
            self.data.setdefault("name", study.name)
        if study.numerics:
            _merge(self.data, {"numerics": study.numerics})

    def place_of(self, path: KeyPath) -> str:
        """Return where a value stands, such as ``line 3: ``: on an axis, here, or in a file.

        A section is where an axis sets something in it.
        """
        around = [path[:length] for length in range(len(path), 0, -1)]
        inside = [one for one in self.on_axes if path and one[: len(path)] == path]
        for one in (*around, *inside):
            if one in self.on_axes:
                return self.study.place_of(self.on_axes[one])
        if path[:1] == ("numerics",) and path in self.study.lines:
            merged, ours = (
                functools.reduce(_inside, path, one) for one in (self.data, self.study.data)
            )
            no_section_in_base = isinstance(ours, dict) and not isinstance(merged, dict)
            if not no_section_in_base:
                return self.study.place_of(path)
        if self.file is None:
            return self.study.place_of(("model", *path))
        return f"{self.file.source}: {self.file.place_of(path)}"


def _inside(section: Any, key: str | int) -> Any:
    return section.get(key) if isinstance(section, dict) else None


def and_others(names: list[str]) -> str:
    """Return the first name, and how many more there are."""
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]


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
