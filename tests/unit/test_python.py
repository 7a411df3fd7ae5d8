"""The Python interface, and what its page, the README and older scripts say of the program."""

from __future__ import annotations

import re

import pytest
import typer.main

import bilayer_orchestra as bo
from bilayer_orchestra.cli.app import app
from bilayer_orchestra.engines.exact.engine import ExactEngine
from bilayer_orchestra.engines.registry import engines
from bilayer_orchestra.errors import MissingEngineError
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "python.md"
#: The command lines of version 0.1.0: command -> its options.
OLD_OPTIONS = {
    "run": "--backend -b --runtime --image --output -o --set --wait --no-wait --plot --no-plot "
    "--strict --style",
    "sweep": "--runtime --output -o --jobs -j --image --site --dry-run --strict",
    "collect": "--runtime --output -o --image --site --strict",
    "check": "--backends --output -o --set --identities --distance --style",
    "render": "--output -o --backend -b --set",
    "status": "",
    "fit": "--what --layer --output -o --boundary --beta --convention --r-min --r-max --edge "
    "--power --wave-vector --replicas --plot --no-plot --style",
    "plot": "--output -o --runs --style",
    "extrapolate": "--model --dim --name --output -o",
    "schema": "",
    "doctor": "",
    "engines build": "--source --native --mpi --hdf5 --rebuild",
    "engines list": "",
    "containers build": "--output -o --base --source --version --sha256 --mirror",
    "containers verify": "",
    "containers list": "",
}


@pytest.mark.parametrize("command", OLD_OPTIONS)
def test_old_command_lines_still_work(command):
    found = typer.main.get_command(app)
    for name in command.split():
        found = found.commands[name]
    known = {name for one in found.params for name in (*one.opts, *one.secondary_opts)}
    assert set(OLD_OPTIONS[command].split()) <= known


def test_the_examples_of_the_page_run(tmp_path, monkeypatch):
    pytest.importorskip("block2", reason="block2 is missing: pip install block2")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    names = {}
    for example in examples:
        exec(example, names)  # noqa: S102  (our own page)
    assert len(examples) == 2
    assert set(names["table"]["verdict"]) == {"agree"}


def test_the_page_names_every_public_name():
    text = PAGE.read_text()
    unnamed = [name for name in bo.__all__ if not re.search(rf"\b{name}\b", text)]
    assert unnamed == []
    assert len(bo.__all__) <= 15


def test_the_readme_lists_the_engines_that_come_with_the_program():
    table = (ROOT / "README.md").read_text().partition("## Engines")[2].partition("\n\n`")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]* \| ([^|]*) \|", table, re.MULTILINE))
    ours = {
        name: engine
        for name, engine in engines().items()
        if type(engine).__module__.startswith("bilayer_orchestra.")
    }
    assert set(rows) == set(ours)
    for name, engine in ours.items():
        canonical = "ground state" in rows[name] or "T = 0" in rows[name]
        said = {"canonical": canonical, "thermal": "thermal" in rows[name]}
        assert {state for state, there in said.items() if there} == set(engine.ensembles), name


def test_an_engine_that_is_missing_has_an_empty_version_and_a_reason(monkeypatch):
    def missing(self):
        raise MissingEngineError("not here")

    monkeypatch.setattr(ExactEngine, "version", missing)
    row = bo.list_engines().loc["exact"]
    assert (row["version"], row["problem"]) == ("", "not here")
    assert not bo.list_engines().isna().any(axis=None)
