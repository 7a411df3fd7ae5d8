"""YAML 1.2 text to plain data, with the line of every key and every problem in one go.

The parser is ruamel.yaml; this module adds what it does not report: all duplicate keys at once, a
map from the path of each value to its line, and the characters that cannot be seen.
"""

from __future__ import annotations

import re
import unicodedata
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
#: What the tag of a node is where nobody wrote one.
_PLAIN_TAGS: dict[type[Node], set[str]] = {
    MappingNode: {"map"},
    SequenceNode: {"seq"},
    ScalarNode: {"str", "int", "float", "bool", "null", "timestamp"},
}
#: Control characters, and what ends a line for YAML but for hardly an editor: the text after it, in
#: a comment too, would be read as a line of its own.
_UNREADABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029]")


class YamlText:
    """Parsed text with the lines of its values.

    Parameters
    ----------
    text, source : str
        The text, and what messages call it.
    mapping : bool
        Whether only ``key: value`` lines are taken, as in a file, or any value.

    Attributes
    ----------
    data
        The content; a dict if ``mapping``.
    lines : dict
        1-based line of each path, such as ``("layers", "P", "hopping")``: the line of the key.
    problems : list of str
        Duplicate keys, each with its line.
    """

    def __init__(self, text: str, source: str, mapping: bool = True) -> None:
        self.source = source
        self.lines: dict[KeyPath, int] = {}
        self.problems: list[str] = []
        self._constructor = YAML(typ="safe", pure=True).constructor
        if len(text) > MAX_CHARACTERS:
            raise SpecError(source, [f"is longer than {MAX_CHARACTERS} characters"])
        for number, line in enumerate(text.split("\n"), start=1):
            if found := _UNREADABLE.search(line):
                raise self._error(number, f"{_named(found[0])} cannot be read")
            if line.startswith("%"):
                raise self._error(number, f"directives such as {line.split()[0]} are not used here")
        root = self._compose(text)
        if mapping and not isinstance(root, MappingNode):
            empty = "" if root is not None else "the file is empty; "
            raise self._error(1, f"{empty}expected `key: value` lines, as in `version: 1`")
        self.data: Any = None if root is None else self._value(root, ())

    def place_of(self, path: KeyPath) -> str:
        """Return where ``path``, or the nearest enclosing key, is: ``line 3: ``, or nothing."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return f"line {self.lines[path[:length]]}: "
        return ""

    def _error(self, line: int, text: str) -> SpecError:
        return SpecError(self.source, [f"line {line}: {text}"])

    def _compose(self, text: str) -> Node | None:
        try:
            root: Node | None = YAML(typ="safe", pure=True).compose(text)
        except YAMLError as error:
            raise SpecError(self.source, [_syntax_problem(error, text)]) from error
        except RecursionError as error:
            raise SpecError(self.source, ["is nested too deeply"]) from error
        except (ValueError, OverflowError) as error:  # of chr()
            text = r"an escape in double quotes, such as \U00110000, is no character"
            raise SpecError(self.source, [text]) from error
        return root

    def _value(self, node: Node, path: KeyPath) -> Any:
        """Return what ``node`` holds; the lines of all that is in it are noted."""
        if len(path) > MAX_DEPTH:
            raise self._error(_line(node), "is nested too deeply")
        self._refuse_references(node)
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            for index, item in enumerate(node.value):
                self.lines.setdefault((*path, index), _line(item))
            return [self._value(item, (*path, index)) for index, item in enumerate(node.value)]
        try:
            return self._constructor.construct_object(node)
        except (YAMLError, ValueError, OverflowError, LookupError) as error:
            kind = str(node.tag).removeprefix(_TAG)
            kind = {"timestamp": "date", "int": "number", "float": "number"}.get(kind, kind)
            shown = node.value if len(node.value) <= 40 else f"{node.value[:37]}..."
            raise self._error(_line(node), f"`{shown}` is no {kind}") from error

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        data: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = _line(key_node)
            if isinstance(key_node, ScalarNode) and key_node.tag == f"{_TAG}merge":
                raise self._error(line, "merge keys (`<<`) are not used here; write the values out")
            self._refuse_references(key_node)
            if key_node.tag != f"{_TAG}str":
                shown = f" (put `{key_node.value}` in quotes)" * (key_node.id == "scalar")
                raise self._error(line, f"a key must be a single word{shown}")
            key = str(key_node.value)
            if key in first:
                self.problems.append(
                    f"line {line}: duplicate key `{key}` (first on line {first[key]}); keep one"
                )
            first.setdefault(key, line)
            self.lines.setdefault((*path, key), line)
            data.setdefault(key, self._value(value_node, (*path, key)))
        return data

    def _refuse_references(self, node: Node) -> None:
        if (
            node.anchor is not None
            or str(node.tag).removeprefix(_TAG) not in _PLAIN_TAGS[type(node)]
        ):
            raise self._error(_line(node), "anchors, aliases and tags are not used here")


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def parse_scalar(text: str) -> Any:
    """Return the YAML value of a short text, such as ``0.05``, ``[0.2, 0.1]`` or ``20 min``.

    Raises
    ------
    SpecError
        If it is none, or one that a file could not hold either.
    """
    yaml = YamlText(text, "value", mapping=False)
    if yaml.problems:
        raise SpecError(yaml.source, yaml.problems)
    return yaml.data


def odd_characters(text: str) -> str:
    """Return the names of what looks like something else in ``text``, as ``, with ...``; or "".

    Keys and values are written in ASCII, so that one that is refused and holds other characters is
    refused because of them: a no-break space, a long dash for a minus, typographic quotes.
    """
    odd = dict.fromkeys(one for one in text if not " " <= one <= "~" and one != "\n")
    return f", with {', '.join(map(_named, odd))}" if odd else ""


def syntax_problem(problem: str, text: str, line: int) -> tuple[int, str]:
    """Return where a parser that gave up on ``line`` met what; comments begin with ``#``.

    What cannot be seen and separates nothing, such as a no-break space, is noticed by a parser only
    later: the first of it up to there is named in place of what the parser says.

    Parameters
    ----------
    problem : str
        What the parser says.
    text : str
        What it reads.
    line : int
        Where it gave up, counted from 1.

    Returns
    -------
    int, str
        The line, and what is wrong there.
    """
    bare = [re.split(r"(?:^|(?<=\s))#", one)[0] for one in text.split("\n")[:line]]
    unseen = [
        (number, odd)
        for number, one in enumerate(bare, start=1)
        for odd in one
        if odd not in " \t" and unicodedata.category(odd)[0] in "ZC"
    ]
    if "\\t" in problem:
        unseen.append((line, "\t"))
    if unseen:
        line, odd = unseen[0]
        problem = f"{_named(odd)}, where only spaces separate and indent"
    else:
        problem += odd_characters(bare[-1])
    return line, problem


def _named(character: str) -> str:
    name = "tab" if character == "\t" else unicodedata.name(character, "control character")
    return f"{name.lower()} (U+{ord(character):04X})"


def _syntax_problem(error: Exception, text: str) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    if problem == "but found another document":
        problem = "a second document begins (`---`), and one file holds one"
    if problem == "could not find expected ':'":  # noticed at the line after
        mark, problem = getattr(error, "context_mark", mark), "expected `key: value`"
    if mark is None:
        return f"not valid YAML: {problem}"
    line, problem = syntax_problem(problem, text, mark.line + 1)
    return f"line {line}: not valid YAML: {problem}"
