"""Model files: what is right passes, what is wrong gets one message with its line."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bilayer_orchestra.errors import SpecError
from bilayer_orchestra.model.spec import load_model, parse_model

pytestmark = pytest.mark.lowest

GOOD = """\
version: 1
name: doped-bilayer
model: bilayer
length: 4
boundary: open
layers:
  P: {hopping: 0.0, interaction: -4.0, chemical_potential: 0.0}
  M: {hopping: 1.0, interaction: 0.0, chemical_potential: 0.0}
t_perp: 0.5
state: {n_up: 3, n_down: 3}
observables: [density, pair]
numerics:
  block2: {max_bond_dimension: 100}
"""

#: (replace this, by this, the line of the problem or None, what the message must contain)
BROKEN = [
    ("t_perp: 0.5", f"t_perp: {'9' * 5000}", 9, "is no number"),
    ("t_perp: 0.5", "t_perp: 2001-13-45", 9, "`2001-13-45` is no date"),
    ("t_perp: 0.5", "t_perp: !!int", 9, "is no number"),
    ("t_perp: 0.5", "t_perp: !!bool maybe", 9, "`maybe` is no bool"),
    ("t_perp: 0.5", "t_perp: !!timestamp now", 9, "`now` is no date"),
    ("name: doped-bilayer", r'name: "\UFFFFFFFF"', None, "an escape in double quotes"),
    ("version: 1\n", "", None, "`version` is missing"),
    ("version: 1", "version: 2", 1, "should be 1"),
    ("version: 1", "version: '1'", 1, "should be 1"),
    ("name: doped-bilayer\n", "", None, "`name` is missing"),
    ("doped-bilayer", "'../../etc'", 2, "name"),
    ("doped-bilayer", "'$(rm -rf x)'", 2, "name"),
    ("doped-bilayer", "''", 2, "name"),
    ("doped-bilayer", "12", 2, "valid string"),
    ("model: bilayer", "model: bilayr", 3, "did you mean `bilayer`?"),
    ("length: 4", "length: 0", 4, "greater than or equal to 1"),
    ("length: 4", "length: -3", 4, "greater than or equal to 1"),
    ("length: 4", "length: 1000000000", 4, "less than or equal to"),
    ("length: 4", "length: 4.5", 4, "integer"),
    ("length: 4", "length: four", 4, "integer"),
    ("length: 4", "length: true", 4, "integer"),
    ("length: 4", "lenght: 4", 4, "did you mean `length`?"),
    ("length: 4", "length: 4\nlength: 5", 5, "duplicate key `length` (first on line 4)"),
    ("boundary: open", "boundary: opne", 5, "did you mean `open`?"),
    ("boundary: open", "boundary: [open]", 5, "open"),
    ("interaction: -4.0", "interation: -4.0", 7, "did you mean `interaction`?"),
    ("interaction: -4.0", "interaction: .nan", 7, "finite"),
    ("interaction: -4.0", "interaction: -.inf", 7, "finite"),
    ("interaction: -4.0", "interaction: strong", 7, "valid number"),
    ("interaction: -4.0", "interaction: 1e300", 7, "less than or equal to"),
    ("interaction: 0.0", "interacton: -1.0", 8, "did you mean `interaction`?"),
    ("hopping: 1.0, ", "", 8, "`layers.M.hopping` is missing"),
    ("  M: {", "  Q: {", 8, "did you mean `M`?"),
    ("t_perp: 0.5", "t_perp:", 9, "valid number"),
    ("t_perp: 0.5", "t_perp: 0.5\nt_prep: 0.5", 10, "did you mean `t_perp`?"),
    ("n_up: 3, n_down: 3", "n_up: 9, n_down: 3", 10, "does not fit"),
    ("n_up: 3, n_down: 3", "n_up: -1, n_down: 3", 10, "greater than or equal to 0"),
    ("n_up: 3, n_down: 3", "n_up: 3", 10, "`state.n_down` is missing"),
    ("n_up: 3, n_down: 3", "n_up: 3, n_dn: 3", 10, "did you mean `n_down`?"),
    ("n_up: 3, n_down: 3", "n_up: 3, n_down: 3, beta: 4.0", 10, "either"),
    ("{n_up: 3, n_down: 3}", "{beta: 0}", 10, "greater than 0"),
    ("{n_up: 3, n_down: 3}", "{beta: -1.0}", 10, "greater than 0"),
    ("{n_up: 3, n_down: 3}", "{beta: .inf}", 10, "finite"),
    ("{n_up: 3, n_down: 3}", "ground", 10, "state"),
    ("{n_up: 3, n_down: 3}", "{}", 10, "missing"),
    ("[density, pair]", "[density, pairs]", 11, "did you mean `pair`?"),
    ("[density, pair]", "[pair, pair]", 11, "listed twice"),
    ("[density, pair]", "[]", 11, "at least 1"),
    ("[density, pair]", "pair", 11, "list"),
    ("block2: {", "bloc2: {", 13, "did you mean `block2`?"),
    ("max_bond_dimension: 100", "max_bond_dimension: 1", 13, "greater than or equal to 2"),
    ("max_bond_dimension: 100", "max_bond_dim: 100", 13, "did you mean `max_bond_dimension`?"),
    ("block2: {max_bond_dimension: 100}", "alf: {dtau: -0.1}", 13, "numerics.alf.dtau"),
    ("block2: {max_bond_dimension: 100}", "alf: {dtau: [0.2, 0]}", 13, "numerics.alf.dtau"),
    ("block2: {max_bond_dimension: 100}", "alf: {time_budget: 20 mn}", 13, "20 min"),
    ("length: 4", "length: [4", None, "not valid YAML"),
    ("length: 4", "length: 4: 5", 4, "not valid YAML"),
    ("length: 4", "\tlength: 4", None, "not valid YAML"),
    ("length: 4", "length: &a 4", 4, "anchors"),
    ("length: 4", "length: !!python/object:os.system x", 4, "tags"),
    ("length: 4", "? [a, b]\n: 4", 4, "single word"),
    (GOOD, "", 1, "key: value"),
    (GOOD, "- 1\n- 2\n", 1, "key: value"),
    (GOOD, "just text", 1, "key: value"),
    (GOOD, "# nothing but a comment\n", 1, "the file is empty"),
    # YAML that would change values in silence, or nothing
    ("{hopping: 1.0,", "{<<: {hopping: 2.0}, hopping: 1.0,", 8, "merge keys"),
    ("{hopping: 1.0,", "{<<: [{hopping: 2.0}],", 8, "merge keys"),
    ("length: 4", "<<: {length: 6}\nlength: 4", 4, "merge keys"),
    ("length: 4", "'<<': {length: 6}\nlength: 4", 4, "unknown key `<<`"),
    ("version: 1", "%YAML 1.1\n---\nversion: 1", 1, "directives such as %YAML"),
    ("length: 4", "&a length: 4", 4, "anchors"),
    ("length: 4", "1: 4\nlength: 4", 4, "put `1` in quotes"),
    ("length: 4", "~: 4\nlength: 4", 4, "single word"),
    ("t_perp: 0.5", "t_perp: 0.5\n---\nversion: 1", 10, "a second document begins"),
    # what cannot be seen, or looks like something else
    ("t_perp: 0.5", "t_perp: 0.5\t", 9, "tab (U+0009)"),
    ("length: 4", "length: 4\t# rungs", 4, "tab (U+0009)"),
    ("  M: {", "\tM: {", 8, "tab (U+0009)"),
    ("length: 4", "length:\u00a04", 4, "no-break space (U+00A0)"),
    ("length: 4", "length: 4\u00a0", 4, "no-break space (U+00A0)"),
    ("  P: {", "\u00a0\u00a0P: {", 7, "no-break space (U+00A0)"),
    ("{n_up: 3, ", "{n_up: 3,\u00a0", 10, "no-break space (U+00A0); did you mean `n_down`?"),
    ("length: 4", "length: 4\u200b", 4, "zero width space (U+200B)"),
    ("length: 4", "\ufefflength: 4", 4, "zero width no-break space (U+FEFF)"),
    ("-4.0", "\u22124.0", 7, "minus sign (U+2212)"),
    ("boundary: open", "boundary: \u201copen\u201d", 5, "left double quotation mark (U+201C)"),
    ("length: 4", "length\uff1a 4", 4, "fullwidth colon (U+FF1A)"),
    ("length: 4", "length: 4 # x\u2028boundary: periodic", 4, "line separator (U+2028)"),
    ("length: 4", "length: 4\x0c", 4, "control character (U+000C)"),
    ("length: 4", "length:4", 4, "expected `key: value`"),
    # emptied sections
    ("state: {n_up: 3, n_down: 3}", "state:", 10, "`state` is missing"),
    ("state: {n_up: 3, n_down: 3}", "filling:", None, "`state` is missing"),
    ("  M: {hopping: 1.0, interaction: 0.0, chemical_potential: 0.0}", "  M:", 8, "is missing"),
    ("{n_up: 3, n_down: 3}", "{n_up: 3, n_down: 3, beta: 4.0}", 10, "{n_up, n_down} (ground"),
    ("name: doped-bilayer", "name: 2024-01-01", 2, "valid string (got 2024-01-01)"),
    (GOOD, "a: " + "[" * 5000, None, ""),
]


def broken_text(old, new):
    assert old in GOOD
    return GOOD.replace(old, new, 1)


def test_the_good_one_is_good():
    model = parse_model(GOOD)
    assert (model.length, model.state.n_up, model.layers.P.interaction) == (4, 3, -4.0)


@pytest.mark.parametrize(("old", "new", "line", "expected"), BROKEN)
def test_broken_files(old, new, line, expected):
    with pytest.raises(SpecError) as caught:
        parse_model(broken_text(old, new), "model.yaml")
    assert len(caught.value.problems) == 1, caught.value.problems
    (problem,) = caught.value.problems
    assert expected in problem
    if line is not None:
        assert problem.startswith(f"line {line}: ")


@pytest.mark.parametrize(
    "changed",
    [
        GOOD.replace("  block2: {max_bond_dimension: 100}\n", ""),
        GOOD.replace("{max_bond_dimension: 100}", ""),
        GOOD.replace("block2: {max_bond_dimension: 100}", "alf: {target_stderr: }"),
        GOOD + "filling:\n",
        "\ufeff" + GOOD,
        GOOD.replace("length: 4", "length: 4 # a\u00a0comment \u2212 with anything"),
        GOOD.replace("{n_up: 3,", "{n_up: 3,\t"),  # where YAML takes a tab
    ],
)
def test_emptied_sections_are_left_out_and_comments_are_free(tmp_path, changed):
    path = tmp_path / "model.yaml"
    path.write_text(changed)
    bare = parse_model(GOOD[: GOOD.index("numerics:")]).to_data()
    data = load_model(path).to_data()
    assert data == bare | {key: data[key] for key in data if key == "numerics"}
    assert data.get("numerics") in (None, {"block2": {"max_bond_dimension": 100}})


@pytest.mark.parametrize("key", ["numerics.block2.seed=3", "numerics.block2={seed: 3}"])
def test_set_reaches_into_an_emptied_section(key):
    text = GOOD.replace("{max_bond_dimension: 100}", "")
    assert parse_model(text, overrides=(key,)).numerics.block2.seed == 3
    empty = text.replace("  block2: \n", "")
    assert parse_model(empty, overrides=(key,)).numerics.block2.seed == 3


def test_all_problems_in_one_go_and_in_the_order_of_the_file():
    text = GOOD.replace("length: 4", "length: 0").replace("-4.0", ".nan").replace("3}", "x}")
    with pytest.raises(SpecError) as caught:
        parse_model(text)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "line 4",
        "line 7",
        "line 10",
    ]


@pytest.mark.parametrize("number", ["1e-1", "0.1", ".1", "1.0e-01"])
def test_numbers_in_every_notation(number):
    assert parse_model(GOOD.replace("t_perp: 0.5", f"t_perp: {number}")).t_perp == 0.1


def test_set_replaces_single_values():
    model = parse_model(GOOD, overrides=("state.n_up=2", "numerics.alf.dtau=[0.2, 0.1]"))
    assert model.state.n_up == 2
    assert model.numerics.alf.dtau == (0.2, 0.1)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("t_prep=1", "did you mean `t_perp`?"),
        ("t_perp", "KEY=VALUE"),
        ("=1", "KEY=VALUE"),
        ("t_perp.x=1", "no keys inside"),
        ("t_perp=[", "not valid YAML"),
        ("layers.M={<<: {hopping: 2.0}, hopping: 1.0}", "merge keys"),
        ("state={n_up: 1, n_up: 2, n_down: 1}", "duplicate key"),
        ("t_perp=\u22120.3", "minus sign"),
        ("state.n_up=99", "does not fit"),
    ],
)
def test_bad_overrides(override, expected):
    with pytest.raises(SpecError, match=expected.replace("?", r"\?")):
        parse_model(GOOD, overrides=(override,))


def test_unreadable_files(tmp_path):
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"name: caf\xe9")
    for path, expected in [
        (tmp_path / "none.yaml", "no such file"),
        (tmp_path, "is a directory"),
        (latin, "not UTF-8"),
    ]:
        with pytest.raises(SpecError, match=expected):
            load_model(path)


def test_schema_describes_what_the_reader_accepts():
    command = [sys.executable, "-m", "bilayer_orchestra.cli.main", "schema"]
    schema = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    bilayer, anderson = (schema["$defs"][name] for name in ("BilayerModel", "AndersonModel"))
    assert bilayer["additionalProperties"] is anderson["additionalProperties"] is False
    assert set(bilayer["required"]) == {"version", "name", "length", "layers", "t_perp"}
    assert {"model", "hybridization"} <= set(anderson["required"])
    assert bilayer["properties"]["boundary"]["enum"] == ["open", "periodic"]
    jsonschema = pytest.importorskip(
        "jsonschema", reason="jsonschema is missing: pip install jsonschema"
    )
    from bilayer_orchestra.yaml_text import YamlText

    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(YamlText(GOOD, "good").data)
    assert not validator.is_valid(YamlText(GOOD.replace("length: 4", "length: 0"), "bad").data)
    without = YamlText(GOOD, "filling").data
    del without["state"]
    assert not validator.is_valid(without)
    assert validator.is_valid(without | {"filling": {"P": 0.5, "M": 0.25}})
    other = YamlText(GOOD.replace("model: bilayer", "model: anderson"), "mixed").data
    assert not validator.is_valid(other)
    other["layers"] = {"f": {"interaction": 4.0}, "c": {"hopping": 1.0}}
    other["hybridization"] = other.pop("t_perp")
    other["observables"] = ["density", "spin_flip"]
    assert validator.is_valid(other)


@pytest.mark.parametrize("bad", ["length: 0", "length: [4"])
def test_command_line_shows_one_message_and_no_traceback(tmp_path, bad):
    path = tmp_path / "model.yaml"
    path.write_text(GOOD.replace("length: 4", bad))
    command = [sys.executable, "-m", "bilayer_orchestra.cli.main", "run", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("orchestra: ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()
