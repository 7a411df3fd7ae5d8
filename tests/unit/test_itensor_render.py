"""What the ITensor backend writes and reads, without Julia."""

from __future__ import annotations

import math
import re
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bilayer_orchestra.engine_side.files import OUTPUT
from bilayer_orchestra.engines.base import Job
from bilayer_orchestra.engines.dmrg.results import in_own_units
from bilayer_orchestra.engines.itensor import julia, memory
from bilayer_orchestra.engines.itensor.engine import ITensorEngine
from bilayer_orchestra.engines.itensor.job import render_job
from bilayer_orchestra.engines.itensor.julia import find_julia
from bilayer_orchestra.engines.itensor.memory import estimate, write_bond_dimension
from bilayer_orchestra.engines.itensor.package import engine_depot, engine_half
from bilayer_orchestra.errors import EngineError, MissingEngineError, OrchestraError
from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.resources import resource
from bilayer_orchestra.running.point import checked_request, make_request
from bilayer_orchestra.terms import Terms
from tests.support.models import make_model
from tests.support.paths import DATA

RECORDED = DATA / "itensor"
BACKEND = ITensorEngine()


def rendered(model: Model) -> Job:
    return BACKEND.render(make_request(model, BACKEND))


def test_golden_job():
    model = make_model(
        {"n_up": 2, "n_down": 1},
        3,
        boundary="periodic",
        t_perp=0.1 + 0.2,
        P={"hopping": 1e-7, "chemical_potential": -1.5},
    )
    assert rendered(model).files["job.toml"] == (RECORDED / "job.toml").read_text()


def test_the_script_is_the_template_whatever_the_model():
    """Nothing of a model is ever part of what Julia runs."""
    template = resource("templates", "itensor", "dmrg.jl").read_text(encoding="utf-8")
    for model in (make_model({"n_up": 1, "n_down": 1}), make_model({"n_up": 5, "n_down": 2}, 7)):
        job = rendered(model.model_copy(update={"name": '"; rm(homedir()) #$(1)'}))
        assert job.files["dmrg.jl"] == template
        assert set(job.files) == {"dmrg.jl", "job.toml", "engine.path"}
        assert job.files["engine.path"] == f"{engine_half()}\n"
        assert "rm(" not in "".join(job.files.values())
        assert job.arguments == ("--startup-file=no", "dmrg.jl")


JULIA_SOURCES = [
    resource("templates", "itensor", "dmrg.jl"),
    *sorted(resource("backends", "itensor").glob("src/*.jl")),
]


def syntax_errors(text: str) -> list[str]:
    """Return the places where Julia's grammar is violated."""
    tree_sitter = pytest.importorskip("tree_sitter")
    grammar = pytest.importorskip("tree_sitter_julia")
    parser = tree_sitter.Parser(tree_sitter.Language(grammar.language()))
    found, left = [], [parser.parse(text.encode()).root_node]
    while left:
        node = left.pop()
        if node.type == "ERROR" or node.is_missing:
            found.append(f"line {node.start_point[0] + 1}: {node.text.decode()[:40]}")
        left += node.children
    return found


@pytest.mark.parametrize("file", JULIA_SOURCES, ids=lambda file: file.name)
def test_julia_code_parses(file):
    assert syntax_errors(file.read_text(encoding="utf-8")) == []


def test_a_broken_script_would_be_noticed():
    assert syntax_errors("solve(read_job(@__DIR__)") != []


HOSTILE = [
    'a"; rm(homedir()); "',
    "$(run(`id`))",
    "back\\slash\\",
    "line\nsolve(1)\n",
    "ünïcode \u2028 \U0001f40d",
    "#= comment =#",
    "%{{ template }}",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_and_paths_never_become_code(monkeypatch, tmp_path, name):
    """What Julia parses is the same whatever the model is called and wherever things are."""
    model = make_model({"n_up": 1, "n_down": 1})
    plain = rendered(model).files
    cache = tmp_path / name.replace("/", "")
    monkeypatch.setenv("ORCHESTRA_CACHE", str(cache))
    files = rendered(model.model_copy(update={"name": name})).files
    assert files["dmrg.jl"] == plain["dmrg.jl"]
    assert files["job.toml"] == plain["job.toml"]
    # the one path is data in a file of its own, and whole
    path = Path(files["engine.path"].removesuffix("\n"))
    assert path.is_relative_to(cache)
    assert (path / "src" / "OrchestraITensor.jl").exists()


def numbers() -> st.SearchStrategy[float]:
    return st.floats(-1e4, 1e4, allow_nan=False)


@given(hopping=numbers(), interaction=numbers(), potential=numbers(), t_perp=numbers())
def test_every_number_survives_exactly(hopping, interaction, potential, t_perp):
    layer = {"hopping": hopping, "interaction": interaction, "chemical_potential": potential}
    model = make_model({"n_up": 2, "n_down": 2}, 3, P=layer, t_perp=t_perp)
    terms = in_own_units(make_request(model, BACKEND).terms)
    job = tomllib.loads(rendered(model).files["job.toml"])
    n = terms.n_sites
    one_body = np.zeros((n, n))
    for i, j, value in job["one_body"]:
        assert isinstance(value, float)
        one_body[i - 1, j - 1] = one_body[j - 1, i - 1] = value
    np.testing.assert_array_equal(one_body, terms.one_body)
    np.testing.assert_array_equal(job["interaction"], terms.interaction)
    np.testing.assert_array_equal(job["chemical_potential"], terms.chemical_potential)


def test_a_model_in_other_units_is_the_same_job():
    couplings = {"P": {"interaction": -4.0}, "M": {"hopping": 1.0, "chemical_potential": 0.5}}
    small = {name: {k: 2**-10 * v for k, v in layer.items()} for name, layer in couplings.items()}
    state = {"n_up": 2, "n_down": 1}
    plain = rendered(make_model(state, t_perp=0.5, **couplings))
    assert rendered(make_model(state, t_perp=0.5 * 2**-10, **small)).files == plain.files


def test_no_electron_hops_through_an_empty_list():
    model = make_model({"n_up": 1, "n_down": 1}, 1, t_perp=0.0)
    assert tomllib.loads(rendered(model).files["job.toml"])["one_body"] == []


@pytest.mark.parametrize("value", ["$(1)", 'a"b', "naïve", "two words", "", math.nan, None, {}])
def test_only_numbers_and_identifiers_reach_the_job(value):
    terms: Terms = make_model({"n_up": 1, "n_down": 1}).terms()
    with pytest.raises(TypeError, match=r"no place in job\.toml"):
        render_job(terms, ("pair",), {"noise": value})


def test_recorded_output_becomes_averages():
    """Written by Julia for 2 rungs, 1 up 1 down, t_perp = 0.8: E = -4.354554895800679."""
    model = make_model({"n_up": 1, "n_down": 1}, 2, t_perp=0.8)
    averages = BACKEND.parse(RECORDED, make_request(model, BACKEND))
    assert averages.converged, averages.reason
    assert float(averages.values["energy"]) == pytest.approx(-4.354554895800679, abs=1e-10)
    pair = averages.values["pair"]
    np.testing.assert_allclose(pair, pair.T, atol=1e-12)
    np.testing.assert_allclose(pair.diagonal(), averages.values["double_occupancy"], atol=1e-12)
    assert averages.values["density"].sum() == pytest.approx(2.0)


def test_damaged_output_is_an_error(tmp_path):
    model = make_model({"n_up": 1, "n_down": 1}, 2, t_perp=0.8)
    request = make_request(model, BACKEND)
    with pytest.raises(EngineError, match="missing or damaged"):
        BACKEND.parse(tmp_path, request)
    whole = (RECORDED / OUTPUT).read_bytes()
    (tmp_path / OUTPUT).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EngineError, match="missing or damaged"):
        BACKEND.parse(tmp_path, request)


def test_a_flipped_bit_is_noticed(tmp_path):
    """The checksum in the file is one that numpy verifies."""
    whole = bytearray((RECORDED / OUTPUT).read_bytes())
    whole[180] ^= 1  # in the numbers of the first array
    (tmp_path / OUTPUT).write_bytes(whole)
    model = make_model({"n_up": 1, "n_down": 1}, 2, t_perp=0.8)
    with pytest.raises(EngineError, match="missing or damaged"):
        BACKEND.parse(tmp_path, make_request(model, BACKEND))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (make_model({"beta": 2.0}), "does not solve thermal states"),
        (make_model({"n_up": 0, "n_down": 0}), "one electron"),
    ],
)
def test_what_it_cannot_do_is_refused(model, message):
    with pytest.raises(OrchestraError, match=message):
        checked_request(model, BACKEND)


@pytest.fixture
def no_configuration(monkeypatch, tmp_path):
    monkeypatch.setenv("ORCHESTRA_CONFIG", str(tmp_path / "none.toml"))
    for name in ("ORCHESTRA_JULIA", "ORCHESTRA_JULIA_PROJECT", "JULIA_PROJECT", "JULIA_DEPOT_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(julia, "managed_julia", lambda: None)


@pytest.mark.usefixtures("no_configuration")
class TestFindingJulia:
    def test_without_julia_the_message_holds_the_remedy(self):
        with pytest.raises(
            MissingEngineError, match=r"install itensor.*julialang\.org.*Pkg\.add.*ORCHESTRA_JULIA"
        ):
            find_julia()

    def test_a_wrong_name_is_reported_with_who_named_it(self, monkeypatch, tmp_path):
        monkeypatch.setenv("ORCHESTRA_JULIA", "/nowhere/julia")
        with pytest.raises(MissingEngineError, match="ORCHESTRA_JULIA, does not exist"):
            find_julia()
        monkeypatch.delenv("ORCHESTRA_JULIA")
        (tmp_path / "none.toml").write_text('[julia]\nbinary = "/nowhere/julia"\n')
        with pytest.raises(MissingEngineError, match=r"none\.toml, does not exist"):
            find_julia()

    @pytest.mark.parametrize(
        ("answers", "message"),
        [
            (
                "julia 1.10.8",
                "has no ITensors in its default environment; .* that in ORCHESTRA_JULIA_PROJECT",
            ),
            ("julia 1.10.8\nITensors 0.9.1\nITensorMPS 0.3.9", "ITensorMPS 0.3.9 is too old"),
            ("julia 1.9.4\nITensors 0.9.1\nITensorMPS 0.4.1", "julia 1.9.4 is too old"),
            ("julia 1.12.0-rc1\nITensors 0.10.0\nITensorMPS 0.4.2\nPrecompileTools 1.2.1", None),
            ("", "has no julia"),
        ],
    )
    def test_versions(self, monkeypatch, tmp_path, answers, message):
        julia = tmp_path / "a julia's $HOME"
        lines = "".join(f"echo '{line}'\n" for line in answers.splitlines())
        julia.write_text(f"#!/bin/sh\n{lines}")
        julia.chmod(0o755)
        monkeypatch.setenv("ORCHESTRA_JULIA", str(julia))
        if message is None:
            found = find_julia()
            assert found.label == "ITensorMPS 0.4.2, ITensors 0.10.0, Julia 1.12.0-rc1"
            assert found.binary == julia
        else:
            with pytest.raises(MissingEngineError, match=message):
                find_julia()

    def test_a_broken_julia_says_so_in_its_own_words(self, monkeypatch, tmp_path):
        julia = tmp_path / "julia"
        julia.write_text("#!/bin/sh\necho 'libjulia.so: not found' >&2; exit 127\n")
        julia.chmod(0o755)
        with pytest.raises(MissingEngineError, match=r"not a working Julia: libjulia\.so"):
            find_julia()

    def test_the_users_project_is_honoured(self, monkeypatch, tmp_path):
        monkeypatch.delenv("JULIA_DEPOT_PATH", raising=False)
        julia = tmp_path / "julia"
        julia.write_text(
            "#!/bin/sh\necho julia 1.11.2; echo ITensors 0.9.27; echo ITensorMPS 0.4.1\n"
            "echo PrecompileTools 1.2.1; echo depots ${JULIA_DEPOT_PATH-/her/depot}\n"
        )
        julia.chmod(0o755)
        half = str(engine_half())
        assert find_julia().environment == {
            "JULIA_LOAD_PATH": f"@v#.#:{half}:@stdlib",
            "JULIA_DEPOT_PATH": f"{engine_depot()}:/her/depot",
        }
        monkeypatch.setenv("JULIA_PROJECT", "@work")
        assert find_julia().environment["JULIA_PROJECT"] == "@work"
        (tmp_path / "none.toml").write_text('[julia]\nproject = "~/x"\ndepot = "/d:~/e"\n')
        # over JULIA_DEPOT_PATH, and with Julia's own depots behind: an empty entry
        monkeypatch.setenv("JULIA_DEPOT_PATH", "/other")
        environment = find_julia().environment
        assert environment["JULIA_PROJECT"] == str(Path("~/x").expanduser())
        assert environment["JULIA_LOAD_PATH"] == f"@:{half}:@stdlib"
        assert environment["JULIA_DEPOT_PATH"] == f"{engine_depot()}:/d:{Path.home()}/e:"
        monkeypatch.setenv("ORCHESTRA_JULIA_PROJECT", "mine")
        assert find_julia().environment["JULIA_PROJECT"] == str(Path("mine").absolute())

    def test_a_project_found_from_here_is_not_looked_for_above_the_run(self, monkeypatch, tmp_path):
        """JULIA_PROJECT=@. is looked for upwards of wherever Julia runs; others may write there."""
        julia = tmp_path / "julia"
        julia.write_text(
            "#!/bin/sh\necho julia 1.11.2; echo ITensors 0.9.27; echo ITensorMPS 0.4.1\n"
            "echo PrecompileTools 1.2.1; echo project /her/project\n"
        )
        julia.chmod(0o755)
        monkeypatch.setenv("JULIA_PROJECT", "@.")
        assert find_julia().environment["JULIA_PROJECT"] == "/her/project"


def test_what_does_not_fit_into_memory_is_refused_with_numbers_that_fit(monkeypatch):
    def model(bond_dimension):
        numerics = {"itensor": {"max_bond_dimension": bond_dimension}}
        return make_model({"n_up": 8, "n_down": 8}, 16, numerics=numerics)

    monkeypatch.setattr(memory, "memory_limit", lambda: 4 * 2**30)
    BACKEND.check(make_request(model(100), BACKEND))
    with pytest.raises(OrchestraError, match=r"needs about [\d.]+ GiB .* has 4.0 GiB") as error:
        BACKEND.check(make_request(model(20_000), BACKEND))
    fits = int(re.search(r"max_bond_dimension up to (\d+) fits", str(error.value))[1])
    assert 100 < fits < 20_000
    BACKEND.check(make_request(model(fits), BACKEND))
    # environments go to disk before a run is refused
    assert (
        write_bond_dimension(model(fits).terms(), make_request(model(fits), BACKEND).numerics)
        < fits
    )
    monkeypatch.setattr(memory, "memory_limit", lambda: None)
    BACKEND.check(make_request(model(20_000), BACKEND))


@pytest.mark.parametrize("bond_dimension", [50, 10_000])
def test_memory_covers_what_must_be_alive(bond_dimension):
    """Three copies of the state, and the solver's vectors of two sites, counted state by state."""
    terms = make_model({"n_up": 2, "n_down": 1}, 3).terms()
    n = terms.n_sites

    def charges(cut):
        """How many product states of the first ``cut`` sites have which (n_up, n_dn)."""
        return Counter(
            (a.bit_count(), b.bit_count())
            for a in range(2**cut)
            for b in range(2**cut)
            if 0 <= 2 - a.bit_count() <= n - cut and 0 <= 1 - b.bit_count() <= n - cut
        )

    def size(cut, charge):
        left, right = charges(cut)[charge], 0
        for a in range(2 ** (n - cut)):
            for b in range(2 ** (n - cut)):
                right += (charge[0] + a.bit_count(), charge[1] + b.bit_count()) == (2, 1)
        return min(left, right)

    exact = sum(
        size(k, left) * size(k + 1, right)
        for k in range(n)
        for left in charges(k)
        for right in charges(k + 1)
        if right[0] - left[0] in (0, 1) and right[1] - left[1] in (0, 1)
    )
    found = estimate(terms, bond_dimension).total - memory.BASE
    if bond_dimension > 1000:  # nothing is truncated
        assert found >= 8 * 3 * exact
        assert found < 8 * 1000 * exact
    assert estimate(terms, 5).total < estimate(terms, 50).total


def test_an_image_needs_no_julia_of_the_host(monkeypatch, tmp_path):
    monkeypatch.setenv("ORCHESTRA_JULIA", str(tmp_path / "none"))
    with pytest.raises(MissingEngineError):
        find_julia()
    request = make_request(make_model({"n_up": 1, "n_down": 1}), BACKEND)
    assert ITensorEngine().progress(tmp_path, request) == ["starting Julia, then the first sweep"]
