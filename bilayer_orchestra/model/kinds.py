"""The geometries by the value of their `model` key; a new one is a class and a line here."""

from __future__ import annotations

import difflib
from typing import Any

from bilayer_orchestra.model.anderson import AndersonModel
from bilayer_orchestra.model.bilayer import BilayerModel
from bilayer_orchestra.model.spec import Model

KINDS: dict[str, type[Model]] = {"bilayer": BilayerModel, "anderson": AndersonModel}
DEFAULT = "bilayer"


def kind_of(data: Any) -> type[Model]:
    """Return the class that reads ``data``; its validation complains about an unknown name.

    A misspelt name is read as the nearest one, and without that the keys decide, so that the rest
    of the file is judged as meant.
    """
    if not isinstance(data, dict):
        return KINDS[DEFAULT]
    close = difflib.get_close_matches(str(data.get("model")), KINDS, n=1)
    if close:
        return KINDS[close[0]]
    return max(KINDS.values(), key=lambda kind: len(kind.model_fields.keys() & data.keys()))


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the model file: one branch per geometry."""
    schemas = {name: kind.model_json_schema(mode="validation") for name, kind in KINDS.items()}
    definitions: dict[str, Any] = {}
    for schema in schemas.values():
        definitions |= schema.pop("$defs", {})
    for name, schema in schemas.items():
        definitions[KINDS[name].__name__] = schema
    # if/then/else, unlike oneOf, lets an editor complete and complain for the branch that is meant
    document: dict[str, Any] = {"$ref": f"#/$defs/{KINDS[DEFAULT].__name__}"}
    for name, kind in KINDS.items():
        if name != DEFAULT:
            document = {
                "if": {"properties": {"model": {"const": name}}, "required": ["model"]},
                "then": {"$ref": f"#/$defs/{kind.__name__}"},
                "else": document,
            }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Model file of bilayer_orchestra",
        "type": "object",
        "$defs": definitions,
    } | document
