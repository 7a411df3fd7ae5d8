"""What a user wrote: YAML 1.2 text to plain data, and every problem in one go, with its line.

The parser is ruamel.yaml; this module adds what it does not report: all duplicate keys at once, a
map from the path of each value to its line, and the characters that cannot be seen. What the values
should be is said by pydantic; :func:`describe_all` puts its words into those of the file.
"""

import copy
import difflib
import math
import re
import unicodedata
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from bilayer_orchestra.errors import SpecError
from bilayer_orchestra.settings import PATTERNS, UNION_TAGS, sections_in

KeyPath = tuple[str | int, ...]
#: Where a value is, for messages: ``line 3: ``, or nothing.
PlaceOf = Callable[[KeyPath], str]

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
        try:
            root = YAML(typ="safe", pure=True).compose(text)
        except YAMLError as error:
            raise SpecError(source, [_syntax_problem(error, text)]) from error
        except (RecursionError, ValueError, OverflowError) as error:  # the last two of chr()
            escape = r"an escape in double quotes, such as \U00110000, is no character"
            deep = isinstance(error, RecursionError)
            raise SpecError(source, ["is nested too deeply" if deep else escape]) from error
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
        for key_node, value_node in node.value:
            line = _line(key_node)
            if isinstance(key_node, ScalarNode) and key_node.tag == f"{_TAG}merge":
                raise self._error(line, "merge keys (`<<`) are not used here; write the values out")
            self._refuse_references(key_node)
            if key_node.tag != f"{_TAG}str":
                shown = f" (put `{key_node.value}` in quotes)" * (key_node.id == "scalar")
                raise self._error(line, f"a key must be a single word{shown}")
            key = str(key_node.value)
            first = self.lines.setdefault((*path, key), line)
            if key in data:
                self.problems.append(
                    f"line {line}: duplicate key `{key}` (first on line {first}); keep one"
                )
            data.setdefault(key, self._value(value_node, (*path, key)))
        return data

    def _refuse_references(self, node: Node) -> None:
        plain = str(node.tag).removeprefix(_TAG) in _PLAIN_TAGS[type(node)]
        if node.anchor is not None or not plain:
            raise self._error(_line(node), "anchors, aliases and tags are not used here")


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


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


def describe_all(place_of: PlaceOf, errors: list[ErrorDetails], root: type[BaseModel]) -> list[str]:
    """Return one line per problem; a misspelt key is not also reported as missing.

    Of a geometry that is not there nobody knows the keys: that alone is said.

    Parameters
    ----------
    place_of : callable
        Says where the value of a path stands.
    errors : list
        What pydantic found.
    root : type
        What the file describes, for the keys that are known in it.
    """
    absent = [details for details in errors if details["type"] == "absent"]
    errors = absent or errors
    missing = {file_path(details) for details in errors if details["type"] == "missing"}
    # a list is called too short as well where its entries are wrong
    inside = {file_path(details)[:-1] for details in errors}
    misspelt: set[KeyPath | None] = set()
    problems = []
    for details in sorted(errors, key=lambda one: one["type"] != "extra_forbidden"):
        path, kind = file_path(details), details["type"]
        if kind == "extra_forbidden":
            problem, meant = _unknown_key(place_of, path, missing - misspelt, root)
            problems.append(problem)
            misspelt.add(meant)
        elif path not in misspelt and not (kind == "too_short" and path in inside):
            problems.append(_describe(place_of, details))
    return problems


def _unknown_key(
    place_of: PlaceOf, path: KeyPath, missing: set[KeyPath], root: type[BaseModel]
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
    dotted = ".".join(map(str, path))
    problem = f"{place_of(path)}unknown key `{dotted}`{odd_characters(key)}; {hint}"
    return problem, meant if meant in missing else None


def _describe(place_of: PlaceOf, details: ErrorDetails) -> str:
    path, kind, value = file_path(details), details["type"], details["input"]
    dotted = ".".join(map(str, path))
    if kind == "missing":
        return f"{place_of(path)}`{dotted}` is missing"
    message = details["msg"].replace("Input should", "should")
    if kind in _WORDS:
        message = _WORDS[kind].format(**details.get("ctx", {}))
    if kind == "string_pattern_mismatch":
        message = f"should be {PATTERNS[details['ctx']['pattern']]}"
    if kind == "literal_error":
        close = difflib.get_close_matches(str(value), message.split("'")[1::2], n=1)
        message += " or a number" if "word" in details["loc"] else ""
        message += f"; did you mean `{close[0]}`?" if close else ""
    shown = "" if isinstance(value, dict) else f" (got {_shown(value)})"
    return place_of(path) + (f"`{dotted}` {message}{shown}" if dotted else message)


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
    lines = {problem: re.match(r"line (\d+):", problem) for problem in problems}
    return sorted(problems, key=lambda one: int(found[1]) if (found := lines[one]) else 0)
