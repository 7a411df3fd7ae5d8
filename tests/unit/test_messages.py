"""What is wrong with a file is said in words: one violation of every constraint of every schema."""

from __future__ import annotations

import copy
import io
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from bilayer_orchestra.cli.tables import result_table
from bilayer_orchestra.errors import SpecError
from bilayer_orchestra.model.spec import kinds, parse_model
from bilayer_orchestra.runtimes.slurm.site import SiteProfile, load_site
from bilayer_orchestra.study.load import load_study
from bilayer_orchestra.study.spec import Study
from tests.support.models import make_model

#: Words of a library, of Python, or of a regular expression.
RAW = re.compile(
    r"Input|Tuple|List|String|[Dd]ictionary|instance|validation|pydantic|JSON|None|True|False"
    r"|\^|\$|\{\{|\[A-Z|\\s|(?<!\.)\bnan\b|_type\b"
)
NAN = float("nan")

#: What the patterns of all schemas mean.
PATTERN_WORDS = {
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": "letters, digits, dot, dash and underscore",
    r"^[^\s'\"\\#]+$": "word without spaces",
    r"^[^\r\n]+$": "one line",
}

Path = tuple[Any, ...]


def branches(schema: dict[str, Any], definitions: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the schema itself, or its alternatives, without references."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].split("/")[-1]]
    inner = [part for key in ("anyOf", "oneOf", "allOf") for part in schema.get(key, ())]
    if "properties" in schema or not inner:
        yield schema
        return
    for part in inner:
        if part.get("type") != "null":
            yield from branches(part, definitions)


def example(schema: dict[str, Any], definitions: dict[str, Any]) -> Any:
    """Return something that the schema takes."""
    schema = next(branches(schema, definitions))
    if "const" in schema or "enum" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    if schema.get("type") == "object":
        required = schema.get("required", ())
        return {name: example(schema["properties"][name], definitions) for name in required}
    return {"number": 0.5, "integer": schema.get("minimum", 1), "array": []}.get(
        schema.get("type"), "x"
    )


Violation = tuple[Path, Any, str]


def violations(
    schema: dict[str, Any], definitions: dict[str, Any], path: Path = ()
) -> Iterator[Violation]:
    """Yield (path, a value that is refused there, what the message has to contain)."""
    kinds = {"number": of_number, "integer": of_number, "string": of_text}
    for one in branches(schema, definitions):
        kind = one.get("type")
        if "const" in one or "enum" in one:
            words = str(one.get("const", one.get("enum", [""])[0]))
            for value in ("nonsense", 77, None):
                if path[-1] != "dtau" or value == "nonsense":  # which may also be a number
                    yield path, value, words
        elif kind == "array":
            yield from of_list(one, definitions, path)
        elif kind == "object":
            yield from of_section(one, definitions, path)
        elif kind == "boolean":
            yield path, "yes", "true or false"
        elif kind in kinds:
            yield from kinds[kind](one, path)


def of_number(one: dict[str, Any], path: Path) -> Iterator[Violation]:
    kind = one["type"]
    for key, beyond in (("minimum", -1), ("maximum", 1)):
        if key in one:
            yield path, one[key] + beyond, " than or equal to "
        exclusive = f"exclusive{key.capitalize()}"
        if exclusive in one:
            yield path, one[exclusive], f" than {one[exclusive]:g}"
    yield path, NAN, kind
    if kind == "integer":
        yield path, 1.5, kind
    if path[-1] != "time_budget":  # which may also be a text
        yield path, "much", "number" if path[-1] == "dtau" else kind
    if path[-1] != "dtau":  # which may also be a list
        yield path, [1], kind


def of_text(one: dict[str, Any], path: Path) -> Iterator[Violation]:
    yield path, 5, "string"
    if "pattern" in one:
        yield path, "\n'", PATTERN_WORDS[one["pattern"]]
    if one.get("minLength"):
        yield path, "", "at least 1 character"
    if "maxLength" in one:
        yield path, "x" * (one["maxLength"] + 1), f"at most {one['maxLength']} characters"


def of_list(one: dict[str, Any], definitions: dict[str, Any], path: Path) -> Iterator[Violation]:
    yield path, "x", "auto" if path[-1] == "dtau" else "list"
    if one.get("minItems"):
        yield path, [], "at least 1 entry"
    if "maxItems" in one:
        many = [(k + 1) / 100 for k in range(one["maxItems"] + 1)]
        yield path, many, f"at most {one['maxItems']} entries"
    for _, value, words in violations(one.get("items") or {}, definitions, ("item",)):
        yield path, [value], words


def of_section(one: dict[str, Any], definitions: dict[str, Any], path: Path) -> Iterator[Violation]:
    yield path, 5, "section"
    yield path, [1], "section"
    for name, part in one.get("properties", {}).items():
        yield from violations(part, definitions, (*path, name))
        if name in one.get("required", ()):
            yield (*path, name), ..., "is missing"
    if one.get("additionalProperties") is False:
        yield (*path, "zzzz"), 1, "unknown key"
    elif isinstance(one.get("additionalProperties"), dict):
        yield from violations(one["additionalProperties"], definitions, (*path, "pair"))


def put(document: dict[str, Any], schema: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """Return ``document`` with ``value`` at ``path``; sections on the way get what they need."""
    document, definitions = copy.deepcopy(document), schema.get("$defs", {})
    data, places, unknown = document, [schema], path[-1] == "zzzz"
    for key in path[:-1]:
        places = [
            branch
            for place in places
            for branch in branches(place.get("properties", {}).get(key, {}), definitions)
        ]
        needed = {}
        for place in places:
            named = path[-1] in place.get("properties", {}) or unknown
            if named and path[-1] not in data.get(key, {}) and not (unknown and key in data):
                needed = example(place, definitions)
        if needed or not isinstance(data.get(key), dict):
            data[key] = needed
        data = data[key]
    if value is ...:
        data.pop(path[-1], None)
    else:
        data[path[-1]] = value
    return document


def cases() -> Iterator[Any]:
    roots = {name: kind.model_json_schema() for name, kind in kinds().items()}
    roots |= {"study": Study.model_json_schema(), "site": SiteProfile.model_json_schema()}
    for root, schema in roots.items():
        for path, value, words in violations(schema, schema.get("$defs", {})):
            if not path or (root, path) in FREE or (root == "anderson" and path[0] == "numerics"):
                continue
            label = "missing" if value is ... else repr(value)[:20]
            yield pytest.param(root, path, value, words, id=f"{root}-{'.'.join(path)}-{label}")


#: Said by a rule of its own, or free of rules.
FREE = {("bilayer", ("state",)), ("study", ("model",)), ("study", ("name",))}


def base(root: str) -> dict[str, Any]:
    bilayer = make_model({"n_up": 1, "n_down": 1}, 2).to_data()
    if root == "anderson":
        layers = {"f": {"interaction": 4.0}, "c": {"hopping": 1.0}}
        changes = {"model": "anderson", "layers": layers, "hybridization": 0.5}
        data = {key: value for key, value in bilayer.items() if key not in ("t_perp", "layers")}
        return data | changes | {"observables": ["density"]}
    if root == "study":
        return {"version": 1, "name": "s", "model": bilayer, "axes": {"t_perp": [0.5]}}
    return bilayer if root == "bilayer" else {}


def read(root: str, document: dict[str, Any], tmp_path: Any) -> None:
    """Read a document as the program reads its file."""
    if root == "site":
        (tmp_path / "site.toml").write_text(toml(document))
        load_site("site.toml", tmp_path, {})
        return
    text = json.dumps(document, indent=1).replace("NaN", ".nan")
    if root == "study":
        (tmp_path / "study.yaml").write_text(text)
        load_study(tmp_path / "study.yaml")
    else:
        parse_model(text, "model.yaml")


def toml(document: dict[str, Any]) -> str:
    plain = {key: value for key, value in document.items() if not isinstance(value, dict)}
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in plain.items())
    for key in document.keys() - plain.keys():
        text += f"[{key}]\n" + toml(document[key])
    return text.replace("NaN", "nan").replace("null", '""')


@pytest.mark.parametrize(("root", "path", "value", "words"), list(cases()))
def test_every_constraint_is_told_in_words(root, path, value, words, tmp_path):
    kind = {"study": Study, "site": SiteProfile}.get(root) or kinds()[root]
    document = put(base(root), kind.model_json_schema(), path, value)
    with pytest.raises(SpecError) as caught:
        read(root, document, tmp_path)
    assert len(caught.value.problems) == 1, caught.value.problems
    (problem,) = caught.value.problems
    assert not RAW.search(problem), problem
    assert words in problem, problem
    if value is not ... or len(path) > 1:
        assert problem.startswith("line "), problem
    assert (".".join(path) if value is not ... else path[0]) in problem, problem


@pytest.mark.cases(3)
@pytest.mark.parametrize(
    ("backend", "changes"),
    [
        ("block2", {"numerics": {"block2": {"max_bond_dimension": 4}}}),
        ("block2", {"numerics": {"block2": {"max_bond_dimension": 4, "proof": False}}}),
        ("block2", {"numerics": {"block2": {"proof": False}}}),
        ("exact", {"state": {"n_up": 0, "n_down": 0}}),
        ("exact", {"t_perp": 0.0, "M": {"hopping": 0.0}, "P": {"interaction": 0.0}}),
    ],
)
def test_a_result_never_shows_nan_or_inf(solve, backend, changes):
    if backend == "block2":
        pytest.importorskip("block2", reason="block2 is missing")
    state = changes.pop("state", {"n_up": 2, "n_down": 2})
    dataset = solve(make_model(state, 4, **changes), backend)
    console = Console(file=io.StringIO(), width=400)
    console.print(result_table(dataset, reused=False))
    assert not re.search(r"\b(nan|inf)\b", console.file.getvalue())
    assert not re.search(r"\b(nan|inf)\b", dataset.attrs["converged_reason"])
    if changes.get("numerics", {}).get("block2", {}).get("max_bond_dimension"):
        assert "one bond dimension, 4, does not tell" in dataset.attrs["converged_reason"]
