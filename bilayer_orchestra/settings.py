"""What all parts of a model file share: strict types, no unknown keys, finite numbers."""

from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
WORD = r"^[^\s'\"\\#]+$"
LINE = r"^[^\r\n]+$"

Name = Annotated[str, Field(min_length=1, max_length=64, pattern=NAME)]
#: YAML and TOML have lists where strict validation wants tuples.
AS_TUPLE = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)

#: Of an engine's random numbers, and of its threads: the same in all that have them.
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Threads = Annotated[
    int | None, Field(ge=1, le=1024, description="threads; default: the cores available")
]

#: Names of the branches of unions, and what pydantic calls a key: no part of a value's path in the
#: file.
UNION_TAGS = frozenset({"canonical", "thermal", "one", "word", "several", "[key]"})


def kind_of_value(value: Any) -> str:
    """Return the union branch of a value that is one number, a word, or several numbers."""
    if isinstance(value, str):
        return "word"
    return "several" if isinstance(value, (list, tuple)) else "one"


#: Patterns of texts -> what a text has to be, for messages: nobody should have to read the pattern.
PATTERNS = {
    NAME: "letters, digits, dot, dash and underscore, beginning with a letter or a digit",
    WORD: "a word without spaces, quotes, backslash and #",
    LINE: "one line",
}


def sections_in(annotation: Any) -> Iterator[type]:
    """Yield the classes in ``annotation`` that stand for a mapping: sections, and plain dict."""
    kind = get_origin(annotation) or annotation
    if isinstance(kind, type) and issubclass(kind, (BaseModel, dict)):
        yield kind
    for inner in get_args(annotation):
        yield from sections_in(inner)


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

    @model_validator(mode="before")
    @classmethod
    def _without_emptied(cls, data: Any) -> Any:
        """Read a section with nothing in it (``numerics:``) as one that was left out."""
        if not isinstance(data, dict):
            return data
        fields = {name: field.annotation for name, field in cls.model_fields.items()}
        return {
            key: value
            for key, value in data.items()
            if value is not None or not any(sections_in(fields.get(key)))
        }
