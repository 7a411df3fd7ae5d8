"""Read a model file: every problem in one go, each with its line and what would be right."""

from __future__ import annotations

import copy
import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bilayer_orchestra.errors import SpecError
from bilayer_orchestra.model.kinds import kind_of, kinds
from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.settings import PATTERNS, UNION_TAGS, sections_in
from bilayer_orchestra.user_files import read_bounded
from bilayer_orchestra.yaml_text import KeyPath, YamlText, odd_characters, parse_scalar

M = TypeVar("M", bound=Model)

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


def load_model(path: Path, overrides: Sequence[str] | None = None) -> Model:
    """Read and validate a model file.

    Parameters
    ----------
    path : Path
        The YAML file.
    overrides : sequence of str, optional
        ``key.key=value`` texts that replace single values, as ``--set`` on the command line.

    Raises
    ------
    SpecError
        With one line for each problem of the file.
    """
    return parse_model(read_text(path), str(path), overrides)


def read_text(path: Path) -> str:
    """Return the text of a file that a user named, or raise SpecError."""
    try:
        return read_bounded(path).decode("utf-8-sig")  # editors on Windows mark UTF-8 by a BOM
    except FileNotFoundError as error:
        raise SpecError(str(path), ["there is no such file"]) from error
    except IsADirectoryError as error:
        raise SpecError(str(path), ["is a directory; name a file in it"]) from error
    except UnicodeDecodeError as error:
        dataset = "is a dataset; a file of keys and values is needed here"
        what = dataset if path.suffix == ".nc" else "is not UTF-8 text"
        raise SpecError(str(path), [what]) from error
    except OSError as error:
        raise SpecError(str(path), [f"cannot be read: {error.strerror}"]) from error


def stored_model(text: str) -> Model:
    """Return the model that a result was computed for, without its settings.

    Whoever reads a result needs none, and its engine need not be installed here.

    Raises
    ------
    SpecError
        If it cannot be read, such as where its geometry is not installed.
    """
    return parse_model(text, "the model of the result", settings=False)


def parse_model(
    text: str,
    source: str = "model",
    overrides: Sequence[str] | None = None,
    settings: bool = True,
) -> Model:
    """Validate the text of a model file; see :func:`load_model`.

    Parameters
    ----------
    text : str
        YAML.
    source : str
        What messages call it.
    overrides : sequence of str, optional
        ``key.key=value`` texts that replace single values.
    settings : bool
        Whether the engines' settings are part of it, and have to be known.
    """
    yaml = YamlText(text, source)
    if not settings:
        yaml.data.pop("numerics", None)
    if is_study(yaml.data) is True:
        raise SpecError(source, ["is a study, not a model; `orchestra sweep` runs all its points"])
    for override in overrides or ():
        _apply(yaml, override)
    return _validated(yaml.data, yaml, source, yaml.problems)


def model_from(data: Mapping[str, Any], source: str = "model") -> Model:
    """Validate a model that is given as plain data; see :func:`load_model`."""
    return _validated(copy.deepcopy(dict(data)), _NoLines(), source)


def _validated(
    data: dict[str, Any], lines: Lines, source: str, problems: Sequence[str] = ()
) -> Model:
    kind = kind_of(data)
    try:
        model = kind.model_validate(data)
    except ValidationError as error:
        found = describe_all(lines, error.errors(), kind)
        raise SpecError(source, in_file_order([*problems, *found])) from error
    if problems:
        raise SpecError(source, list(problems))
    return model


def replaced(model: M, values: Mapping[str, Any]) -> M:
    """Return the model with other values at dotted paths; see :meth:`Model.replace`."""
    data = model.model_dump(mode="python", exclude_unset=True)
    for path, value in values.items():
        if (clash := set_value(data, path.split("."), value)) is not None:
            raise SpecError(model.name, [f"{path}: `{clash}` has no keys inside"])
    changed = model_from(data, model.name)
    assert isinstance(changed, type(model))
    return changed


class _NoLines:
    def place_of(self, path: KeyPath) -> str:
        return ""


def _apply(yaml: YamlText, override: str) -> None:
    """Set one value from ``a.b.c=value``; unknown keys are left to validation."""
    dotted, equals, value = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise SpecError(
            yaml.source, [f"--set {override}: expected KEY=VALUE, as in t_perp=0.3 or state.n_up=4"]
        )
    try:
        parsed = parse_scalar(value)
    except SpecError as error:
        problem = error.problems[0].removeprefix("line 1: ")
        raise SpecError(yaml.source, [f"--set {override}: not a YAML value: {problem}"]) from error
    if (clash := set_value(yaml.data, keys, parsed)) is not None:
        raise SpecError(yaml.source, [f"--set {override}: `{clash}` has no keys inside"])
    for length in range(1, len(keys) + 1):
        yaml.lines.pop(tuple(keys[:length]), None)


def section_of(data: dict[str, Any], key: str) -> dict[str, Any] | None:
    """Return the section ``key`` of ``data``, made where it is missing or empty; None: a value."""
    if data.get(key) is None:
        data[key] = {}
    inner = data[key]
    return inner if isinstance(inner, dict) else None


def set_value(data: dict[str, Any], keys: list[str], value: Any) -> str | None:
    """Set one value, or remove it (None); return the key that stands in the way, if any.

    Parameters
    ----------
    data : dict
        The content of a file; is changed.
    keys : list of str
        The way to the value; sections that are missing are made.
    value
        The value, of which a copy is set.
    """
    for key in keys[:-1]:
        inner = section_of(data, key)
        if inner is None:
            return key
        data = inner
    if value is None:
        data.pop(keys[-1], None)
    else:
        data[keys[-1]] = copy.deepcopy(value)
    return None


class Lines(Protocol):
    """Knows the line of every value of a file."""

    def place_of(self, path: KeyPath) -> str:
        """Return where ``path``, or the nearest enclosing key, is: ``line 3: ``, or nothing."""
        ...


#: Where the words of pydantic are those of a programmer.
_WORDS = {
    "bool_type": "should be true or false",
    "dict_type": "should be a section, as in {{key: value}}",
    "int_from_float": "should be a valid integer",
    "model_type": "should be a section, as in {{key: value}}",
    "string_too_long": "should have at most {max_length} characters",
    "string_too_short": "should have at least {min_length} character",
    "too_long": "should have at most {max_length} entries",
    "too_short": "should have at least {min_length} entry",
    "tuple_type": "should be a list, as in [a, b]",
}


def describe_all(
    yaml: Lines, errors: list[ErrorDetails], root: type[BaseModel] = Model
) -> list[str]:
    """Return one line per problem; a misspelt key is not also reported as missing.

    Of a geometry that is not there nobody knows the keys: that alone is said.

    Parameters
    ----------
    yaml : Lines
        The file that holds the values.
    errors : list
        What pydantic found.
    root : type
        What the file describes, for the keys that are known in it.
    """
    for details in errors:
        if file_path(details) == ("model",) and details["type"] == "literal_error":
            problem = _describe(yaml, details)
            if not difflib.get_close_matches(str(details["input"]), kinds(), n=1):
                return [f"{problem}; others come with distributions that are not installed here"]
    missing = {file_path(details) for details in errors if details["type"] == "missing"}
    misspelt: set[KeyPath] = set()
    problems = []
    for details in errors:
        if details["type"] == "extra_forbidden":
            problem, meant = _unknown_key(yaml, file_path(details), missing - misspelt, root)
            problems.append(problem)
            if meant is not None:
                misspelt.add(meant)
    # a list is called too short as well where its entries are wrong
    inside = {file_path(details)[:-1] for details in errors}
    for details in errors:
        path, kind = file_path(details), details["type"]
        known = kind == "extra_forbidden" or (kind == "too_short" and path in inside)
        if not known and path not in misspelt:
            problems.append(_describe(yaml, details))
    return problems


def _unknown_key(
    yaml: Lines, path: KeyPath, missing: set[KeyPath], root: type[BaseModel]
) -> tuple[str, KeyPath | None]:
    """Return the problem, and the missing key that this one was probably meant to be."""
    parent, key = path[:-1], str(path[-1])
    known = _known_keys(parent, root)
    close = difflib.get_close_matches(key, known, n=1)
    absent = [str(other[-1]) for other in missing if other[:-1] == parent]
    if not close and len(absent) == 1:
        close = absent
    hint = f"did you mean `{close[0]}`?" if close else f"known here: {', '.join(known)}"
    if parent == ("numerics",):
        engines = f"no such engine is installed; there are: {', '.join(known)}"
        hint = f"{engines}; {hint}" if close else engines
    meant = (*parent, close[0]) if close else None
    place = yaml.place_of(path)
    dotted = ".".join(map(str, path))
    problem = f"{place}unknown key `{dotted}`{odd_characters(key)}; {hint}"
    return problem, meant if meant in missing else None


def _describe(yaml: Lines, details: ErrorDetails) -> str:
    path, kind, value = file_path(details), details["type"], details["input"]
    place = yaml.place_of(path)
    dotted = ".".join(str(part) for part in path)
    if kind == "missing":
        return f"{place}`{dotted}` is missing"
    message = details["msg"].replace("Input should", "should")
    if kind in _WORDS:
        message = _WORDS[kind].format(**details.get("ctx", {}))
    if kind == "string_pattern_mismatch":
        message = f"should be {PATTERNS[details['ctx']['pattern']]}"
    if kind == "literal_error":
        if path == ("model",):  # each geometry's class knows only its own name
            message = "should be " + " or ".join(f"'{name}'" for name in kinds())
        close = difflib.get_close_matches(str(value), message.split("'")[1::2], n=1)
        message += " or a number" if "word" in details["loc"] else ""
        message += f"; did you mean `{close[0]}`?" if close else ""
    shown = "" if isinstance(value, dict) else f" (got {_shown(value)})"
    return f"{place}`{dotted}` {message}{shown}" if dotted else f"{place}{message}"


def file_path(details: ErrorDetails) -> KeyPath:
    """Path of the error in the file: pydantic's, without the names of union branches."""
    path: KeyPath = details.get("ctx", {}).get("path", details["loc"])
    return tuple(part for part in path if part not in UNION_TAGS)


def _known_keys(path: KeyPath, root: type[BaseModel]) -> list[str]:
    """Return the keys of the section at ``path``; of all its alternatives, if it has several."""
    sections: list[type[BaseModel]] = [root]
    for part in path:
        sections = [
            section
            for model in sections
            if part in model.model_fields
            for section in sections_in(model.model_fields[str(part)].annotation)
            if issubclass(section, BaseModel)
        ]
    return [key for section in sections for key in section.model_fields]


def _shown(value: object) -> str:
    """Return a value as a file has it, shortened."""
    match value:
        case None:
            text = "nothing"
        case bool():
            text = str(value).lower()
        case float() if not math.isfinite(value):
            text = f".{value}".replace(".-", "-.")
        case tuple() | list():
            text = f"[{', '.join(map(_shown, value))}]"
        case str():
            text = repr(value)
        case _:
            text = str(value)
    odd = odd_characters(value) if isinstance(value, str) else ""
    return (text if len(text) <= 40 else text[:37] + "...") + odd


def in_file_order(problems: list[str]) -> list[str]:
    """Return the problems ordered by their lines; those without one come first."""

    def line(problem: str) -> int:
        first = problem.partition(":")[0]
        return int(first[5:]) if first.startswith("line ") and first[5:].isdigit() else 0

    return sorted(problems, key=line)
