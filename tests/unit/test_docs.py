"""The site builds without a warning, says what the code says, and its notebook runs."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser

import pytest
import typer.main

from bilayer_orchestra.cli.app import app
from bilayer_orchestra.engines.registry import known_configuration
from bilayer_orchestra.model.spec import kinds
from bilayer_orchestra.runtimes.slurm.site import SiteProfile
from bilayer_orchestra.study.spec import Study
from tests.support.paths import ROOT

NOTEBOOK = ROOT / "docs" / "notebooks" / "first_steps.ipynb"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="the docs extra is not installed")
    pytest.importorskip("mkdocs_jupyter", reason="the docs extra is not installed")
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "NO_COLOR": "1"}
    done = subprocess.run(
        command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr
    return target


def text_of(site, page):
    source = (site / page / "index.html").read_text()
    return html.unescape(re.sub(r"<[^>]+>", "", source.partition("<article")[2]))


def test_nothing_is_installed_by_a_name_that_no_registry_has():
    """Until the package is published, remedies name a checkout, or the packages that it needs."""
    words = re.compile(r"pip install[^`\n]*bilayer[-_.]orchestra")
    places = (
        "README.md",
        "CONTRIBUTING.md",
        "docs",
        "bilayer_orchestra",
        "containers",
        "templates",
    )
    files = [file for place in places for file in (ROOT / place, *(ROOT / place).rglob("*"))]
    texts = {file: file.read_bytes() for file in files if file.is_file() and file.suffix != ".pyc"}
    assert len(texts) > 200
    found = [
        str(file) for file, text in texts.items() if words.search(text.decode(errors="replace"))
    ]
    assert found == []


def keys_below(model):
    """Names of all fields of a pydantic class and of the classes in its annotations."""
    for name, field in model.model_fields.items():
        yield name
        for part in re.findall(r"bilayer_orchestra[\w.]+", str(field.annotation)):
            module, _, inner = part.rpartition(".")
            other = getattr(sys.modules[module], inner, None)
            if hasattr(other, "model_fields"):
                yield from keys_below(other)


def test_every_key_of_every_file_is_in_the_reference(site):
    shown = text_of(site, "reference/model")
    keys = {key for kind in kinds().values() for key in keys_below(kind)}
    assert {"hopping", "beta", "max_bond_dimension", "hybridization", "projection_time"} <= keys
    for key in keys:
        assert re.search(rf"\b{key}\b", shown), key
    for page, model in (("study", Study), ("site", SiteProfile)):
        for key in keys_below(model):
            assert re.search(rf"\b{key}\b", text_of(site, f"reference/{page}")), key


def test_the_page_of_the_configuration_file_has_every_key():
    text = (ROOT / "docs" / "configuration.md").read_text()
    shown = tomllib.loads(text.partition("```toml\n")[2].partition("```")[0])
    known = known_configuration()
    assert {table: sorted(keys) for table, keys in shown.items()} == {
        table: sorted(keys) for table, keys in known.items()
    }


def test_every_command_is_in_the_reference(site):
    shown = text_of(site, "reference/commands")
    commands = typer.main.get_command(app).commands
    assert {"run", "fit", "extrapolate"} <= set(commands)
    for command in commands:
        assert f"orchestra {command}" in shown
    assert "--replicas" in shown


HTML = re.compile(
    "a|abbr|article|b|blockquote|body|br|button|clipboard-copy|code|dd|details|div|dl|dt|em|footer|form|g|h[1-6]|head"
    "|figcaption|figure|header|hr|html|i|img|input|label|li|link|main|meta|nav|ol|p|path|pre|script|section|small|span"
    "|strong|style|sub|summary|sup|svg|table|tbody|td|th|thead|title|tr|ul"
)


class Tags(HTMLParser):
    """The names of all tags of a page."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)


def test_averages_are_not_taken_for_tags(site):
    assert "⟨Delta+_i Delta_j⟩, Delta_i = c_{i,dn} c_{i,up}" in text_of(site, "theory")
    for page in site.rglob("*.html"):
        tags = Tags()
        tags.feed(page.read_text())
        assert [tag for tag in tags.seen if not HTML.fullmatch(tag)] == [], page


def test_the_api_is_documented(site):
    shown = text_of(site, "api/fits")
    assert "bilayer_orchestra.fits.datasets" in shown
    assert "Fit one kind of correlation in every layer and at every point." in shown
    assert ":data:" not in shown


def test_nothing_is_loaded_from_elsewhere(site):
    for page in site.rglob("*.html"):
        for tag in re.findall(r"<(?:script|link|img)\b[^>]*>", page.read_text()):
            assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", tag), (page, tag)


def printed(notebook):
    """Return what the cells of a notebook printed, as one text."""
    cells = json.loads(notebook.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join("".join(output.get("text", "")) for output in outputs)


def test_the_notebook_runs_and_shows_what_it_computes(tmp_path):
    pytest.importorskip("nbconvert", reason="the docs extra is not installed")
    pytest.importorskip("ipykernel", reason="the docs extra is not installed")
    pytest.importorskip("block2")
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", str(NOTEBOOK)]
    done = subprocess.run(
        [*command, "--output-dir", str(tmp_path)],
        check=False,
        cwd=tmp_path,
        env=os.environ
        | dict.fromkeys(("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "TMPDIR"), str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    now, stored = printed(tmp_path / NOTEBOOK.name), printed(NOTEBOOK)
    for number in (r"E = (-[\d.]+)", r"eta = ([\d.]+)", r"power law: ([\d.]+)"):
        assert re.findall(number, now) == re.findall(number, stored) != []
    # two engines, and an exponent that is known
    assert len(set(re.findall(r"E = (-[\d.]+)", now))) == 1
    differences = [float(one) for one in re.findall(r"largest difference (\S+)", now)]
    assert len(differences) == 3
    assert max(differences) < 1e-8
    assert float(re.search(r"eta = ([\d.]+)", now)[1]) == pytest.approx(0.5, rel=0.02)
    assert NOTEBOOK.stat().st_size < 200_000
