"""Engines and geometries from elsewhere: broken, old, twice there, and gone again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import xarray as xr

from bilayer_orchestra.dataset.schema import open_result
from bilayer_orchestra.terms import Terms
from tests.support.brute_force import oracle
from tests.support.guests import ENGINES, GEOMETRIES, TOY, install, orchestra, python
from tests.support.models import make_model

ROOT = Path(__file__).parents[2]
THREE = ROOT / "examples" / "geometry-three-chains"
CANONICAL = {"n_up": 1, "n_down": 1}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a directory of distributions with the toy engine."""
    folder = tmp_path / "site"
    install(folder, "orchestra-toy", TOY, ENGINES, "toy = toy_engine:Toy")
    return folder


def test_an_engine_works_everywhere_without_an_edit(site, tmp_path):
    model = tmp_path / "model.yaml"
    model.write_text(make_model(CANONICAL, 2).to_yaml() + "numerics:\n  toy: {knob: 2.0}\n")
    doctor = orchestra(site, "doctor")
    assert "toy      ok       toy 1: a toy" in doctor.stdout
    assert '"toy"' in orchestra(site, "schema").stdout
    assert orchestra(site, "run", model, "-b", "toy", "-o", tmp_path / "r").returncode == 0
    assert open_result(tmp_path / "r" / "result.nc").attrs["backend"] == "toy"
    checked = orchestra(site, "check", model, "--backends", "exact,toy", "-o", tmp_path / "c")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import a_library_that_is_not_there\n", "a_library_that_is_not_there"),
        ("class Toy:\n    pass\n", "not a class that derives from Engine"),
        (TOY + "    contract = 99\n", "version 99 of the contract"),
        (TOY.replace('name = "toy"', 'name = "other"'), "calls itself `other`"),
        ("raise SystemError('at import')\n", "at import"),
    ],
    ids=["cannot be imported", "no engine", "another contract", "another name", "raises"],
)
def test_a_broken_guest_is_left_out_by_name(tmp_path, text, words):
    folder = tmp_path / "site"
    install(folder, "orchestra-toy", text, ENGINES, "toy = toy_engine:Toy")
    doctor = orchestra(folder, "doctor")
    assert doctor.returncode == 0
    assert "exact    ok" in doctor.stdout
    assert "toy " not in doctor.stdout
    (line,) = doctor.stderr.splitlines()
    assert "`toy` of orchestra-toy is left out" in line
    assert words in line


def test_two_engines_of_one_name_are_an_error_that_names_both(site):
    install(site, "another-toy", TOY, ENGINES, "toy = second_toy:Toy")
    doctor = orchestra(site, "doctor")
    assert doctor.returncode == 1
    assert "another-toy" in doctor.stderr
    assert "orchestra-toy" in doctor.stderr


def test_no_guest_replaces_a_built_in(tmp_path):
    folder = tmp_path / "site"
    install(folder, "usurper", TOY.replace('"toy"', '"exact"'), ENGINES, "exact = usurper:Toy")
    doctor = orchestra(folder, "doctor")
    assert doctor.returncode == 1
    assert "usurper" in doctor.stderr


def test_help_loads_no_guest(tmp_path):
    folder = tmp_path / "site"
    text = "raise SystemExit('a guest was loaded')\n"
    install(folder, "orchestra-toy", text, ENGINES, "toy = toy_engine:Toy")
    found = orchestra(folder, "--help")
    assert found.returncode == 0
    assert "loaded" not in found.stderr


def test_settings_of_an_engine_that_is_not_there_are_an_error_that_lists_those_that_are(tmp_path):
    model = tmp_path / "model.yaml"
    model.write_text(make_model(CANONICAL, 2).to_yaml() + "numerics:\n  toy: {knob: 2.0}\n")
    found = orchestra(None, "run", model, "-b", "exact", "-o", tmp_path / "r")
    assert found.returncode == 1
    assert "`numerics.toy`" in found.stderr
    for name in ("exact", "block2", "itensor", "alf"):
        assert name in found.stderr


STUDY = """version: 1
name: few
model: model.yaml
axes:
  t_perp: [0.4, 0.6]
backends: [toy, exact]
"""


def test_results_outlive_their_engine(site, tmp_path):
    """Listed, drawn, fitted, compared and collected after the guest was uninstalled."""
    model = make_model(CANONICAL, 12, P={"hopping": 0.3, "interaction": -1.0})
    (tmp_path / "model.yaml").write_text(model.to_yaml() + "numerics:\n  toy: {knob: 2.0}\n")
    (tmp_path / "study.yaml").write_text(STUDY)
    runs = tmp_path / "runs"
    swept = orchestra(site, "sweep", tmp_path / "study.yaml", "-o", runs)
    assert swept.returncode == 0, swept.stderr
    before = xr.load_dataset(runs / "few.nc")
    toy, exact = (
        next(r for r in runs.glob(f"*-{name}-*") if "0.4" in (r / "model.yaml").read_text())
        for name in ("toy", "exact")
    )
    assert open_result(toy / "result.nc").attrs["backend"] == "toy"
    status = orchestra(None, "status", runs)
    assert "4 finished" in status.stdout, status.stdout + status.stderr
    for words in (
        ("plot", toy / "result.nc", "-o", tmp_path / "one.png"),
        ("fit", toy / "result.nc", "-o", tmp_path / "fit.nc"),
        ("fit", runs / "few.nc", "-o", tmp_path / "fits.nc"),
        ("check", toy / "result.nc", exact / "result.nc", "-o", tmp_path / "check"),
    ):
        with_it, without = orchestra(site, *words), orchestra(None, *words)
        assert without.returncode == with_it.returncode, f"{words}: {without.stderr}"
        assert without.stdout == with_it.stdout
        assert without.stdout
    assert (tmp_path / "one.png").exists()
    alone = orchestra(None, "check", "--identities", toy / "result.nc")
    assert "violated" not in alone.stdout
    assert "definitions" in alone.stdout, alone.stderr
    (runs / "few.nc").unlink()
    collected = orchestra(None, "collect", tmp_path / "study.yaml", "-o", runs)
    assert collected.returncode == 0, collected.stdout + collected.stderr
    after = xr.load_dataset(runs / "few.nc")
    xr.testing.assert_equal(before, after)
    # a result says itself what it is of, whatever became of the file beside it
    files = [run / "model.yaml" for run in sorted(runs.glob("*-toy-*"))]
    texts = [file.read_text() for file in files]
    for file, text in zip(files, reversed(texts), strict=True):
        file.write_text(text)
    exchanged = orchestra(None, "collect", tmp_path / "study.yaml", "-o", runs)
    assert "4 of 4 points finished" in exchanged.stdout, exchanged.stderr
    xr.testing.assert_equal(before, xr.load_dataset(runs / "few.nc"))
    # other settings are another request: none of its results is taken for it
    text = (tmp_path / "model.yaml").read_text().replace("knob: 2.0", "knob: 3.0")
    (tmp_path / "model.yaml").write_text(text)
    other = orchestra(None, "collect", tmp_path / "study.yaml", "-o", runs)
    assert "2 of 4 points finished" in other.stdout, other.stdout + other.stderr
    again = orchestra(None, "sweep", tmp_path / "study.yaml", "-o", runs)
    assert again.returncode != 0
    assert "toy" in again.stderr


def test_results_outlive_their_geometry(tmp_path):
    folder, module = tmp_path / "site", "orchestra_three_chains"
    text = (THREE / f"{module}.py").read_text()
    install(folder, "orchestra-toy", TOY, ENGINES, "toy = toy_engine:Toy")
    install(folder, "three", text, GEOMETRIES, f"three-chains = {module}:ThreeChains")
    places = []
    for name in ("exact", "toy"):
        place = tmp_path / name
        done = orchestra(folder, "run", THREE / "model.yaml", "-b", name, "-o", place)
        assert done.returncode == 0, done.stderr
        places.append(place / "result.nc")
    assert "finished" in orchestra(None, "status", tmp_path / "exact").stdout
    assert orchestra(None, "plot", places[0], "-o", tmp_path / "one.png").returncode == 0
    study = (
        "version: 1\nname: few\nmodel: model.yaml\naxes:\n  t_AB: [0.4, 0.5]\nbackends: [exact]\n"
    )
    (tmp_path / "study.yaml").write_text(study)
    model, command = (
        tmp_path / "model.yaml",
        ("collect", tmp_path / "study.yaml", "-o", tmp_path / "r"),
    )
    model.write_text((THREE / "model.yaml").read_text())
    swept = orchestra(folder, "sweep", *command[1:])
    assert "2 of 2 points finished" in swept.stdout, swept.stdout + swept.stderr
    # the defaults that the file leaves out are known to its geometry alone; what was said is stored
    terse = orchestra(None, *command)
    assert "2 of 2 points finished" in terse.stdout, terse.stdout + terse.stderr
    model.write_text((THREE / "model.yaml").read_text() + "observables: [pair]\n")
    other = orchestra(None, *command)
    assert "0 of 2 points finished" in other.stdout, other.stdout + other.stderr
    assert "not installed" in other.stdout
    model.write_text(next((tmp_path / "r").glob("*/model.yaml")).read_text())
    full = orchestra(None, *command)
    assert "2 of 2 points finished" in full.stdout, full.stdout + full.stderr
    compared = orchestra(None, "check", *places, "-o", tmp_path / "check")
    assert compared.returncode == 0, compared.stdout + compared.stderr


@pytest.mark.slow
def test_a_geometry_is_solved_by_every_engine_that_is_there(tmp_path):
    """Three chains, installed as a guest; the engines agree with exact diagonalization."""
    folder, module = tmp_path / "site", "orchestra_three_chains"
    text = (THREE / f"{module}.py").read_text()
    assert len(text.splitlines()) < 80
    install(folder, "three", text, GEOMETRIES, f"three-chains = {module}:ThreeChains")
    names = python(
        folder,
        "-c",
        "from bilayer_orchestra.engines.registry import engines\n"
        "from bilayer_orchestra.errors import OrchestraError\n"
        "for name, engine in engines().items():\n"
        "    try:\n        engine.version(); print(name)\n"
        "    except OrchestraError:\n        pass",
    ).stdout.split()
    assert "exact" in names
    assert "block2" in names
    for name in names:
        done = orchestra(
            folder, "run", THREE / "model.yaml", "-b", name, "-o", tmp_path / name,
            *(("--set", "numerics.alf.time_budget=10") if name == "alf" else ()),
        )  # fmt: skip
        assert done.returncode == 0, f"{name}: {done.stderr}"
        found = open_result(tmp_path / name / "result.nc")
        assert found.layer.values.tolist() == ["A", "B", "C"]
        exact = open_result(tmp_path / "exact" / "result.nc") if name != names[0] else found
        assert float(abs(found.energy - exact.energy)) < (0.2 if name == "alf" else 1e-6), name


FILLED = """version: 1
name: three
model: three-chains
length: 2
layers:
  A: {hopping: 1.0}
  B: {hopping: 0.8, interaction: -1.0}
  C: {hopping: 1.0, interaction: 0.5}
t_AB: 1.0
t_BC: 1.2
filling: {A: 0.7, B: 0.8, C: 0.5}
observables: [pair]
"""


@pytest.mark.parametrize(
    ("engine", "changes"),
    [
        pytest.param("exact", (), marks=pytest.mark.slow),
        ("exact", ("state.beta=2.0", "length=1")),
        pytest.param("block2", (), marks=pytest.mark.slow),
    ],
    ids=["exact", "thermal", "block2"],
)
def test_a_geometry_is_tuned_to_densities_as_the_built_in_one_is(tmp_path, engine, changes):
    """Three chemical potentials; the densities are those of all states of the Fock space."""
    if engine == "block2":
        pytest.importorskip("block2", reason="block2 is missing: pip install block2")
    folder, module = tmp_path / "site", "orchestra_three_chains"
    text = (THREE / f"{module}.py").read_text()
    install(folder, "three", text, GEOMETRIES, f"three-chains = {module}:ThreeChains")
    (tmp_path / "model.yaml").write_text(FILLED)
    options = [word for change in changes for word in ("--set", change)]
    done = orchestra(
        folder, "run", tmp_path / "model.yaml", "-b", engine, "-o", tmp_path / "r", *options
    )
    assert done.returncode == 0, done.stderr
    found = open_result(tmp_path / "r" / "result.nc")
    assert found.attrs["converged"] == 1, found.attrs["converged_reason"]
    assert found.layer.values.tolist() == ["A", "B", "C"]
    assert found.target_density.values.tolist() == [0.7, 0.8, 0.5]
    (tmp_path / "tuned.yaml").write_text(found.attrs["tuned_model"])
    terms = python(
        folder,
        "-c",
        "import json, sys; from bilayer_orchestra.model.spec import load_model\n"
        "from pathlib import Path\n"
        "print(json.dumps(load_model(Path(sys.argv[1])).terms().to_dict()))",
        tmp_path / "tuned.yaml",
    )
    values = oracle(Terms.from_dict(json.loads(terms.stdout)))
    density = values["density"].sum(axis=0).reshape(-1, 3).mean(axis=0)
    assert density == pytest.approx([0.7, 0.8, 0.5], abs=1.1e-5)


def blocks(page: str, language: str, heading: str) -> list[str]:
    """Return the blocks of code that follow a heading of a page of the documentation."""
    text = (ROOT / "docs" / page).read_text().partition(f"\n## {heading}\n")[2]
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_geometry_of_the_page_works_as_it_stands_there(tmp_path):
    """The diagonal bond is in; its densities can be asked for."""
    folder = tmp_path / "site"
    keys, terms = blocks("geometry.md", "python", "Keys")
    install(folder, "ladder", keys + terms, GEOMETRIES, "ladder = orchestra_ladder:Ladder")
    (text,) = blocks("geometry.md", "yaml", "Try it")
    (tmp_path / "ladder.yaml").write_text(text)
    energies = []
    for diagonal in (0.0, 0.4):
        done = orchestra(
            folder, "run", tmp_path / "ladder.yaml", "-b", "exact", "-o", tmp_path / "r",
            "--set", f"t_diagonal={diagonal}",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        energies.append(float(open_result(tmp_path / "r" / "result.nc").energy))
    assert energies[1] < energies[0] - 1e-3
    filled = text.replace("state: {n_up: 2, n_down: 2}", "filling: {a: 1.2, b: 0.8}")
    (tmp_path / "filled.yaml").write_text(filled)
    done = orchestra(folder, "run", tmp_path / "filled.yaml", "-b", "exact", "-o", tmp_path / "f")
    assert done.returncode == 0, done.stderr
    assert "a 1.200000  b 0.800000" in done.stdout


STAR = """
from typing import Literal, NamedTuple

import numpy as np

from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.terms import Terms


class Spot(NamedTuple):
    part: str
    number: int


class Star(Model):
    model: Literal["star"]
    t: float = 1.0
    observables: tuple[str, ...] = ("density", "pair")

    @property
    def sites(self):
        return (Spot("centre", 0), Spot("arm", 0), Spot("arm", 1))

    def terms(self):
        h = np.zeros((3, 3))
        h[0, 1:] = h[1:, 0] = -self.t
        return Terms(self.sites, h, np.zeros(3), np.zeros(3), self.state.as_terms())
"""


def test_a_geometry_that_is_no_chain_is_solved_and_swept_and_refused_in_words(tmp_path):
    folder, runs = tmp_path / "site", tmp_path / "r"
    install(folder, "star", STAR, GEOMETRIES, "star = orchestra_star:Star")
    model = tmp_path / "star.yaml"
    model.write_text("version: 1\nname: star\nmodel: star\nstate: {n_up: 1, n_down: 1}\n")
    study = tmp_path / "study.yaml"
    study.write_text(
        "version: 1\nname: s\nmodel: star.yaml\naxes: {t: [1.0, 2.0]}\nbackends: [exact]\n"
    )
    done = orchestra(folder, "run", model, "-b", "exact", "-o", runs)
    assert done.returncode == 0, done.stderr
    assert re.search(r"density per site +centre 1.000000  arm 0.500000", done.stdout), done.stdout
    assert "no picture: pictures need chains" in done.stdout + done.stderr
    done = orchestra(folder, "sweep", study, "-o", runs)
    assert done.returncode == 0, done.stderr
    swept = open_result(runs / "s.nc")
    assert swept["pair"].dims == ("t", "part", "number", "part_", "number_")
    assert float(swept["density"].sel(t=2.0, part="arm", number=1, spin="up")) == pytest.approx(
        0.25
    )
    for code, *command in (
        (1, "fit", runs / "result.nc"),
        (1, "plot", runs / "result.nc"),
        (3, "check", model, "--backends", "exact,block2", "-o", runs),
        (3, "check", runs / "result.nc", runs / "result.nc", "-o", runs),
        (3, "check", "--identities", runs / "result.nc"),
    ):
        done = orchestra(folder, *command)
        assert done.returncode == code, done.stderr
        assert "need chains, whose sites are labelled by layer and x" in done.stderr


def test_the_engine_of_the_page_works_as_it_stands_there(tmp_path):
    package = tmp_path / "site" / "orchestra_free"
    engine, process = blocks("engine.md", "python", "The smallest one, whole")[:2]
    install(tmp_path / "site", "free", engine, ENGINES, "free = orchestra_free.engine:FreeEngine")
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "engine.py").write_text(engine)
    (package / "process.py").write_text(process)
    model = make_model({"n_up": 2, "n_down": 3}, 3, P={"interaction": 0.0, "hopping": 0.4})
    (tmp_path / "model.yaml").write_text(model.to_yaml())
    for name in ("free", "exact"):
        done = orchestra(
            tmp_path / "site", "run", tmp_path / "model.yaml", "-b", name, "-o", tmp_path / name
        )
        assert done.returncode == 0, done.stderr
    results = [tmp_path / name / "result.nc" for name in ("free", "exact")]
    checked = orchestra(None, "check", *results, "-o", tmp_path / "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def shifted(dataset: xr.Dataset, size: float, bias: float) -> xr.Dataset:
    """Return the dataset with another energy and ``bias`` as every stated error."""
    result = dataset.copy(deep=True)
    for name in ("energy", "kinetic_energy"):
        result[name] += size
    for name in result.data_vars:
        if str(name).endswith("_bias"):
            result[name] = xr.full_like(result[name], bias)
    return result


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("size", "bias", "code"),
    [(1e-3, 1e-6, 1), (1e-3, 3e-3, None), (1e-3, float("nan"), 1), (0.0, float("nan"), 2)],
    ids=["too small", "large enough", "not estimated, seen", "not estimated"],
)
def test_the_same_errors_under_another_name_get_the_same_verdict(solve, tmp_path, size, bias, code):
    pytest.importorskip("block2", reason="block2 is missing: pip install block2")
    model = make_model({"n_up": 2, "n_down": 1}, 2, t_perp=0.7)
    solve(model, "exact").to_netcdf(tmp_path / "exact.nc")
    found, codes = shifted(solve(model, "block2"), size, bias), []
    for name in ("block2", "foreign"):
        found.attrs["backend"] = name
        found.to_netcdf(tmp_path / f"{name}.nc")
        checked = orchestra(
            None, "check", tmp_path / "exact.nc", tmp_path / f"{name}.nc", "-o", tmp_path / "c"
        )
        words = checked.stdout.replace("foreign", "block2").splitlines()[:-2]
        codes.append((checked.returncode, [line.split() for line in words]))
    assert codes[0] == codes[1]
    assert code is None or codes[0][0] == code
    # silence is no statement: nothing can agree
    del found.attrs["systematics"]
    found.to_netcdf(tmp_path / "silent.nc")
    silent = orchestra(
        None, "check", tmp_path / "exact.nc", tmp_path / "silent.nc", "-o", tmp_path / "c"
    )
    assert silent.returncode == (1 if size else 2)
    assert "not stated" in silent.stdout
