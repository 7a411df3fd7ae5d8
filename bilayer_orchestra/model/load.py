"""Read a model file: every problem in one go, each with its line and what would be right."""

import copy
from collections.abc import Mapping, Sequence
from errno import EISDIR, ENOENT
from pathlib import Path
from typing import Any

from bilayer_orchestra.errors import SpecError
from bilayer_orchestra.model.spec import Model, kinds, validated
from bilayer_orchestra.user_files import read_bounded
from bilayer_orchestra.yaml_text import YamlText, set_value

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
    return validated(yaml.data, source, yaml.place_of, yaml.problems)


def model_from(data: Mapping[str, Any], source: str = "model") -> Model:
    """Validate a model that is given as plain data; see :func:`load_model`."""
    return validated(copy.deepcopy(dict(data)), source)


def _apply(yaml: YamlText, override: str) -> None:
    """Set one value from ``a.b.c=value``; unknown keys are left to validation."""
    dotted, equals, value = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise SpecError(
            yaml.source, [f"--set {override}: expected KEY=VALUE, as in t_perp=0.3 or state.n_up=4"]
        )
    try:
        given = YamlText(value, "value", mapping=False)
        if given.problems:
            raise SpecError(given.source, given.problems)
    except SpecError as error:
        problem = error.problems[0].removeprefix("line 1: ")
        raise SpecError(yaml.source, [f"--set {override}: not a YAML value: {problem}"]) from error
    if (clash := set_value(yaml.data, keys, given.data)) is not None:
        raise SpecError(yaml.source, [f"--set {override}: `{clash}` has no keys inside"])
    for length in range(1, len(keys) + 1):
        yaml.lines.pop(tuple(keys[:length]), None)
