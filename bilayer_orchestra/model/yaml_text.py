"""YAML 1.2 text to plain data, with the line of every key and every problem in one go.

The parser is ruamel.yaml; this module adds what it does not report: all duplicate keys at once
and a map from the path of each value to its line.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from bilayer_orchestra.errors import SpecError

KeyPath = tuple[str | int, ...]

#: A model file is a page of text; more is a mistake (or an attack), and is refused unread.
MAX_CHARACTERS = 200_000
MAX_DEPTH = 20
_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = {"map", "seq", "str", "int", "float", "bool", "null", "timestamp"}


class YamlText:
    """Parsed text with the lines of its values.

    Attributes
    ----------
    data : dict
        The content.
    lines : dict
        1-based line of each path, such as ``("layers", "P", "hopping")``: the line of the key.
    problems : list of str
        Duplicate keys, each with its line.
    """

    def __init__(self, text: str, source: str) -> None:
        self.source = source
        self.lines: dict[KeyPath, int] = {}
        self.problems: list[str] = []
        if len(text) > MAX_CHARACTERS:
            raise SpecError(source, [f"is longer than {MAX_CHARACTERS} characters"])
        root = self._compose(text)
        if not isinstance(root, MappingNode):
            raise SpecError(source, ["line 1: expected `key: value` lines, as in `version: 1`"])
        for path, line in self._walk(root, ()):
            self.lines.setdefault(path, line)
        self.data: dict[str, Any] = self._construct(text)

    def line_of(self, path: KeyPath) -> int | None:
        """Return the line of ``path``, or of the nearest enclosing key."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return None

    def _compose(self, text: str) -> Node | None:
        try:
            root: Node | None = YAML(typ="safe", pure=True).compose(text)
        except YAMLError as error:
            raise SpecError(self.source, [_syntax_problem(error)]) from error
        except RecursionError as error:
            raise SpecError(self.source, ["is nested too deeply"]) from error
        except ValueError as error:
            raise SpecError(self.source, [str(error)]) from error
        return root

    def _construct(self, text: str) -> dict[str, Any]:
        yaml = YAML(typ="safe", pure=True)
        yaml.allow_duplicate_keys = True  # reported by _walk, all of them
        try:
            data = yaml.load(text)
        except (YAMLError, ValueError, OverflowError) as error:
            raise SpecError(self.source, [_syntax_problem(error)]) from error
        assert isinstance(data, dict)
        return data

    def _walk(self, node: Node, path: KeyPath) -> Iterator[tuple[KeyPath, int]]:
        if len(path) > MAX_DEPTH:
            line = node.start_mark.line + 1
            raise SpecError(self.source, [f"line {line}: is nested too deeply"])
        plain = (node.tag or "").removeprefix(_TAG) in _PLAIN_TAGS
        if node.anchor is not None or not plain:
            line = node.start_mark.line + 1
            raise SpecError(
                self.source, [f"line {line}: anchors, aliases and tags are not used here"]
            )
        if isinstance(node, MappingNode):
            seen: dict[str, int] = {}
            for key_node, value_node in node.value:
                line = key_node.start_mark.line + 1
                if not isinstance(key_node, ScalarNode):
                    raise SpecError(self.source, [f"line {line}: a key must be a single word"])
                key = str(key_node.value)
                if key in seen:
                    self.problems.append(
                        f"line {line}: duplicate key `{key}` (first on line {seen[key]}); keep one"
                    )
                seen.setdefault(key, line)
                yield (*path, key), line
                yield from self._walk(value_node, (*path, key))
        elif isinstance(node, SequenceNode):
            for index, item in enumerate(node.value):
                yield (*path, index), item.start_mark.line + 1
                yield from self._walk(item, (*path, index))


def parse_scalar(text: str) -> Any:
    """Return the YAML value of a short text, such as ``0.05``, ``[0.2, 0.1]`` or ``20 min``."""
    return YAML(typ="safe", pure=True).load(text)


def _syntax_problem(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    place = f"line {mark.line + 1}: " if mark is not None else ""
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{place}not valid YAML: {problem}"
