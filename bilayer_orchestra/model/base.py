"""What all parts of a model file share: strict types, no unknown keys, finite numbers."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


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
