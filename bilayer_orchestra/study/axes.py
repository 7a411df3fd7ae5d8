"""The axes of a study: what varies, what the dimensions are called, and what is wrong with them."""

import itertools
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from bilayer_orchestra.observables import COMPANION, FITTED, OBSERVABLES
from bilayer_orchestra.yaml_text import KeyPath, odd_characters

#: What every point says about itself in the dataset of a study -> what stands for "missing".
FACTS: dict[str, int | str] = {
    "converged": -1,
    "converged_reason": "",
    "engine": "",
    "seed": -1,
    "runtime": "",
    "image_digest": "",
    "request_hash": "",
    "model": "",
}
#: Further names that mean something else in that dataset, its attributes, its fits and its limits.
_TAKEN = (
    "layer layer_ x x_ spin cut block step backend point status message run "
    "title orchestra_schema study study_name points finished software created history "
    "r window row element limit"
)
#: What a search for densities adds.
TUNING = ("chemical_potential", "chemical_potential_uncertainty", "target_density", "tuning")
_LABEL = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._=+-]{0,39}[A-Za-z0-9._=+-])?")
Scalar = int | float | str


@dataclass(frozen=True)
class Axis:
    """One dimension of a study.

    Parameters
    ----------
    label : str
        Name of the dimension.
    columns : dict
        Path of a model value, as in ``--set`` -> its value at every position; several paths of one
        axis move together. A named value may be a whole section, or None: without that section.
    labels : tuple
        What the positions are called: the values of the first path, or the names they were given.
    names : dict
        Path -> name of its coordinate: the label where its values are the labels.
    place : tuple
        Where the axis stands in the study file.
    """

    label: str
    columns: dict[str, tuple[Any, ...]]
    labels: tuple[Scalar, ...]
    names: dict[str, str]
    place: KeyPath

    @property
    def size(self) -> int:
        """Number of positions."""
        return len(self.labels)

    def place_of(self, path: str, position: int) -> KeyPath:
        """Return where the value of ``path`` at ``position`` stands in the study file."""
        if self.place[0] == "zip":
            return (*self.place, path, position)
        if self.columns[path][position] != self.labels[position]:  # it was given a name
            return (*self.place, str(self.labels[position]))
        return (*self.place, position)

    def coordinates(self) -> dict[str, tuple[tuple[Scalar, ...], str]]:
        """Return name -> (values, path of the model value; "" for names of several values)."""
        values = {name: (self.columns[path], path) for path, name in self.names.items()}
        _, path = values.get(self.label, ((), ""))
        return {self.label: (self.labels, path)} | {
            name: value for name, value in values.items() if name != self.label
        }


class AxisError(Exception):
    """What is wrong with an axis, and where it stands."""

    def __init__(self, place: KeyPath, text: str) -> None:
        self.place, self.text = place, text
        super().__init__(text)


def read_axes(
    crossed: dict[str, Any], zipped: dict[str, Any]
) -> tuple[list[Axis], list[AxisError]]:
    """Return the axes in the order of the file, ``axes`` before ``zip``, and their problems."""
    paths = [path for path, value in crossed.items() if not isinstance(value, dict)]
    paths += [path for group in zipped.values() if isinstance(group, dict) for path in group]
    axes: list[Axis] = []
    problems: list[AxisError] = []
    for read, section in ((_crossed, crossed), (_zipped, zipped)):
        for key, value in section.items():
            try:
                axes.append(read(str(key), value, paths))
            except AxisError as problem:
                problems.append(problem)
    sets = [(axis.place, path) for axis in axes for path in axis.columns]
    called = [(axis.place, name) for axis in axes for name in axis.coordinates()]
    problems += [
        AxisError(place, f"sets `{path}`, but `{other}` is an axis too")
        for (_, other), (place, path) in itertools.combinations(sets, 2)
        if f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.")
    ]
    problems += [
        AxisError(place, f"is called `{name}`, as another axis is")
        for (_, other), (place, name) in itertools.combinations(called, 2)
        if name == other
    ]
    return axes, problems + collisions(axes, _means_something_else)


def collisions(axes: Iterable[Axis], taken: Callable[[str], bool]) -> list[AxisError]:
    """Return the axes that would be called what ``taken`` says means something else."""
    text = (
        "would be called `{}`, which means something else in the dataset; give it a label, as in "
        "`my_label: {{path: ..., values: [...]}}`"
    )
    return [
        AxisError(axis.place, text.format(name))
        for axis in axes
        for name in axis.coordinates()
        if taken(name)
    ]


def _means_something_else(name: str) -> bool:
    """Whether the dataset of a study may have a variable, dimension or attribute of that name."""
    from bilayer_orchestra.dataset.schema import DIAGNOSTICS

    return (
        name.startswith(tuple(f"{kind}_" for kind in FITTED))
        or name in (*FACTS, *_TAKEN.split(), *DIAGNOSTICS)
        or COMPANION.sub("", name) in (*DIAGNOSTICS, *OBSERVABLES)
    )


def _crossed(key: str, value: Any, paths: list[str]) -> Axis:
    place: KeyPath = ("axes", key)
    path, values, label = key, value, _short_name(key, paths)
    if isinstance(value, dict):
        right = set(value) == {"path", "values"} and isinstance(value["path"], str)
        _need(right, place, "should be a list of values, or {path: ..., values: [...]}")
        _need(_LABEL.fullmatch(key), place, "is a label: letters, digits and underscores")
        path, values, label, place = value["path"], value["values"], key, (*place, "values")
    _check_path(place, path)
    if isinstance(values, dict):
        _check_names(place, values)
        return Axis(label, {path: tuple(values.values())}, tuple(values), {path: label}, place)
    checked = _values(place, values)
    return Axis(label, {path: checked}, checked, {path: label}, place)


def _zipped(label: str, group: Any, paths: list[str]) -> Axis:
    place: KeyPath = ("zip", label)
    right = isinstance(group, dict) and group
    _need(right, place, "should be a group: {model value: [..], another: [..]}")
    _need(_LABEL.fullmatch(label), place, "is a label: letters, digits and underscores")
    columns = {}
    for path, values in group.items():
        _check_path((*place, path), path)
        columns[path] = _values((*place, path), values, unique=False)
    lengths = {path: len(values) for path, values in columns.items()}
    counts = ", ".join(f"{path} has {count}" for path, count in lengths.items())
    _need(len(set(lengths.values())) == 1, place, f"needs lists of equal length: {counts}")
    first = next(iter(columns))
    labels: tuple[Scalar, ...] = columns[first]
    names = {path: _short_name(path, paths, _means_something_else) for path in columns}
    if len(set(labels)) == len(labels):  # they tell the points apart
        names[first] = label
    else:
        rows = zip(*columns.values(), strict=True)
        labels = tuple(" ".join(map(shown, row)) for row in rows)
        _need(len(set(labels)) == len(labels), place, "has the same point twice")
    other = any(name == label and columns[path] != labels for path, name in names.items())
    _need(not other, place, f"is called `{label}`, as one of its values is; take another label")
    return Axis(label, columns, labels, names, place)


def shown(value: Scalar) -> str:
    """Return a value as it stands in names: numbers in their shortest form."""
    if not isinstance(value, float):
        return str(value)
    short = f"{value:.12g}"
    return short if float(short) == value else repr(value)


def _need(right: object, place: KeyPath, text: str) -> None:
    """Raise AxisError unless something is right."""
    if not right:
        raise AxisError(place, text)


def _check_names(place: KeyPath, values: dict[Any, Any]) -> None:
    """Refuse what is no name or no value: a number, a word, a section or nothing."""
    _need(values, place, "should name at least one value")
    for name, value in values.items():
        is_name = isinstance(name, str) and _NAME.fullmatch(name)
        _need(is_name, (*place, name), "is no name: letters, digits, spaces and . _ - + =")
        text = "should be one value, or a section of the model"
        _need(not isinstance(value, list), (*place, name), text)
    twice = any(one == other for one, other in itertools.combinations(values.values(), 2))
    _need(not twice, place, "has a value twice")


def _values(place: KeyPath, values: Any, unique: bool = True) -> tuple[Scalar, ...]:
    right = isinstance(values, list) and values
    _need(right, place, "should be a list of values, as in [0.3, 0.5]")
    for k, value in enumerate(values):
        scalar = isinstance(value, (int, float, str)) and not isinstance(value, bool)
        text = "should be a number or a word; values that belong together go into `zip`"
        _need(scalar, (*place, k), text)
        finite = not isinstance(value, float) or math.isfinite(value)
        _need(finite, (*place, k), "should be finite")
    words = [value for value in values if isinstance(value, str)]
    alike = len(words) in (0, len(values))
    _need(alike, place, f"mixes numbers and words{odd_characters(''.join(words))}")
    _need(not unique or len(set(values)) == len(values), place, "has a value twice")
    return tuple(values)


def _check_path(place: KeyPath, path: str) -> None:
    first, *others = path.split(".")
    text = "should be a model value such as t_perp or layers.P.interaction"
    _need(first and all(others), place, text)
    text = "is no physics: the points of a study differ in their models"
    _need(first not in ("version", "name"), place, text)


def _short_name(
    path: str, paths: list[str], taken: Callable[[str], bool] = lambda name: False
) -> str:
    """Return the last key of ``path``, with as many before it as tell it from the others."""
    keys = path.split(".")
    others = [other.split(".") for other in paths if other != path]
    for count in range(1, len(keys)):
        name = "_".join(keys[-count:])
        if all(other[-count:] != keys[-count:] for other in others) and not taken(name):
            return name
    return "_".join(keys)
