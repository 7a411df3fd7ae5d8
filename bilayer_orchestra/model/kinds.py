"""The geometries by the value of their `model` key; they come in through entry points."""

from __future__ import annotations

import difflib
import functools
from typing import Any, Literal

from pydantic.json_schema import models_json_schema

from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.plugins import Plugins

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


def kind_of(data: Any) -> type[Model]:
    """Return the class that reads ``data``; its validation complains about an unknown name.

    A misspelt name is read as the nearest one, and without that the keys decide, so that the rest
    of the file is judged as meant.
    """
    if not isinstance(data, dict):
        return kinds()[DEFAULT]
    close = difflib.get_close_matches(str(data.get("model")), kinds(), n=1)
    if close:
        return kinds()[close[0]]
    return max(kinds().values(), key=lambda kind: len(kind.model_fields.keys() & data.keys()))


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
