"""Read a model file: every problem in one go, each with its line and what would be right."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Protocol, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bilayer_orchestra.errors import SpecError
from bilayer_orchestra.model.base import UNION_TAGS
from bilayer_orchestra.model.kinds import KINDS, kind_of
from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.model.yaml_text import KeyPath, YamlText, parse_scalar
from bilayer_orchestra.user_files import read_bounded


def load_model(path: Path, overrides: tuple[str, ...] = ()) -> Model:
    """Read and validate a model file.

    Parameters
    ----------
    path : Path
        The YAML file.
    overrides : tuple of str
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
        return read_bounded(path).decode("utf-8")
    except FileNotFoundError as error:
        raise SpecError(str(path), ["there is no such file"]) from error
    except UnicodeDecodeError as error:
        raise SpecError(str(path), ["is not UTF-8 text"]) from error
    except OSError as error:
        raise SpecError(str(path), [f"cannot be read: {error.strerror}"]) from error


def parse_model(text: str, source: str = "model", overrides: tuple[str, ...] = ()) -> Model:
    """Validate the text of a model file; see :func:`load_model`."""
    yaml = YamlText(text, source)
    for override in overrides:
        _apply(yaml, override)
    kind = kind_of(yaml.data)
    try:
        model = kind.model_validate(yaml.data)
    except ValidationError as error:
        problems = describe_all(yaml, error.errors(), kind)
        raise SpecError(source, in_file_order([*yaml.problems, *problems])) from error
    if yaml.problems:
        raise SpecError(source, yaml.problems)
    return model


def _apply(yaml: YamlText, override: str) -> None:
    """Set one value from ``a.b.c=value``; unknown keys are left to validation."""
    dotted, equals, value = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise SpecError(
            yaml.source, [f"--set {override}: expected KEY=VALUE, as in t_perp=0.3 or state.n_up=4"]
        )
    target = yaml.data
    for key in keys[:-1]:
        inner = target.setdefault(key, {})
        if not isinstance(inner, dict):
            raise SpecError(yaml.source, [f"--set {override}: `{key}` has no keys inside"])
        target = inner
    try:
        target[keys[-1]] = parse_scalar(value)
    except Exception as error:
        raise SpecError(yaml.source, [f"--set {override}: not a YAML value"]) from error
    for length in range(1, len(keys) + 1):
        yaml.lines.pop(tuple(keys[:length]), None)


class Lines(Protocol):
    """Knows the line of every value of a file."""

    def line_of(self, path: KeyPath) -> int | None:
        """Return the line of ``path``, or of the nearest enclosing key."""
        ...


def describe_all(
    yaml: Lines, errors: list[ErrorDetails], root: type[BaseModel] = Model
) -> list[str]:
    """Return one line per problem; a misspelt key is not also reported as missing.

    Parameters
    ----------
    yaml : Lines
        The file that holds the values.
    errors : list
        What pydantic found.
    root : type
        What the file describes, for the keys that are known in it.
    """
    missing = {file_path(details) for details in errors if details["type"] == "missing"}
    misspelt: set[KeyPath] = set()
    problems = []
    for details in errors:
        if details["type"] == "extra_forbidden":
            problem, meant = _unknown_key(yaml, file_path(details), missing - misspelt, root)
            problems.append(problem)
            if meant is not None:
                misspelt.add(meant)
    for details in errors:
        path = file_path(details)
        if details["type"] != "extra_forbidden" and path not in misspelt:
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
    meant = (*parent, close[0]) if close else None
    place = _place(yaml, path)
    dotted = ".".join(map(str, path))
    return f"{place}unknown key `{dotted}`; {hint}", meant if meant in missing else None


def _place(yaml: Lines, path: KeyPath) -> str:
    line = yaml.line_of(path)
    return f"line {line}: " if line else ""


def _describe(yaml: Lines, details: ErrorDetails) -> str:
    path, kind = file_path(details), details["type"]
    place = _place(yaml, path[:-1] if kind == "missing" else path)
    dotted = ".".join(str(part) for part in path)
    if kind == "missing":
        return f"{place}`{dotted}` is missing"
    message = details["msg"]
    if kind == "literal_error":
        value = str(details["input"])
        if path == ("model",):  # each geometry's class knows only its own name
            message = "should be " + " or ".join(f"'{name}'" for name in KINDS)
        choices = [str(c) for c in _choices(message)]
        close = difflib.get_close_matches(value, choices, n=1)
        message += f"; did you mean `{close[0]}`?" if close else ""
    message = message.replace("Input should", "should").replace("valid tuple", "list, as in [a, b]")
    shown = "" if isinstance(details["input"], dict) else f" (got {_shorten(details['input'])})"
    return f"{place}`{dotted}` {message}{shown}" if dotted else f"{place}{message}"


def _choices(message: str) -> list[str]:
    return message.split("'")[1::2]


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
            for section in _sections_in(model.model_fields[str(part)].annotation)
        ]
    return [key for section in sections for key in section.model_fields]


def _sections_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for inner in get_args(annotation) for section in _sections_in(inner)]


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def in_file_order(problems: list[str]) -> list[str]:
    """Return the problems ordered by their lines; those without one come first."""

    def line(problem: str) -> int:
        first = problem.partition(":")[0]
        return int(first[5:]) if first.startswith("line ") and first[5:].isdigit() else 0

    return sorted(problems, key=line)
