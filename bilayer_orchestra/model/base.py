"""What all parts of a model file share: strict types, no unknown keys, finite numbers."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

#: Names of the branches of unions; they are no part of a value's path in the file.
UNION_TAGS = frozenset({"canonical", "thermal", "one", "word", "several"})


def kind_of_value(value: Any) -> str:
    """Return the union branch of a value that is one number, a word, or several numbers."""
    if isinstance(value, str):
        return "word"
    return "several" if isinstance(value, (list, tuple)) else "one"


class SpecModel(BaseModel):
    """Base of every section of a model file."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        # docstrings of classes appear in the JSON Schema, where editors show them
        use_attribute_docstrings=True,
    )
