"""The kit for engines: each of its tests fails for an engine with the defect that it looks for."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import pytest

from bilayer_orchestra.testing import CASES, diagonalized
from tests.support.brute_force import oracle
from tests.support.guests import ENGINES, TOY, install, python

#: Method or statement of a toy engine -> the test that has to fail, and its words.
DEFECTS = {
    "a sign": (
        "def parse(self, directory, request):\n"
        "    found = super().parse(directory, request)\n"
        "    found.values['pair'] = -found.values['pair']\n"
        "    return found\n",
        "exact_diagonalization[open]",
        "pair is off by",
    ),
    "spins exchanged": (
        "def parse(self, directory, request):\n"
        "    found = super().parse(directory, request)\n"
        "    found.values['green'] = found.values['green'][::-1]\n"
        "    return found\n",
        "exact_diagonalization[polarized]",
        "green is off by",
    ),
    "one of a degenerate level": (
        "def parse(self, directory, request):\n"
        "    found = super().parse(directory, request)\n"
        "    found.values['density'] = found.values['density'].copy()\n"
        "    found.values['density'][0, 0] += found.diagnostics['degeneracy'] - 1\n"
        "    return found\n",
        "degenerate_levels[isolated sites]",
        "density is off by",
    ),
    "a bias that is too small": (
        "systematics = ('truncation',)\n"
        "def parse(self, directory, request):\n"
        "    found = super().parse(directory, request)\n"
        "    found.values['pair'] = found.values['pair'] + 1e-3 * (request.numerics.knob == 2)\n"
        "    found.bias = {name: 1e-6 + 0 * abs(one) for name, one in found.values.items()}\n"
        "    return found\n",
        "rough_run",
        "the bias of pair is too small",
    ),
    "an error without a size": (
        "systematics = ('truncation',)\n",
        "exact_diagonalization[open]",
        "called converged without a bias",
    ),
    "noise that is not there": (
        "stochastic = True\n",
        "exact_diagonalization[open]",
        "_stderr",
    ),
    "rendering that writes": (
        "def render(self, request):\n"
        "    open('left behind', 'w').close()\n"
        "    return super().render(request)\n",
        "rendering_writes_nothing",
        "left behind",
    ),
    "rendering that needs the engine": (
        "def render(self, request):\n    self.version()\n    return super().render(request)\n",
        "rendering_writes_nothing",
        "must not ask for the engine",
    ),
    "a version that writes": (
        "def version(self):\n"
        "    import os\n"
        "    os.makedirs('/tmp/kit-of-toy', exist_ok=True)\n"
        "    return 'toy 1'\n",
        "version_writes_nothing",
        "os.mkdir",
    ),
    "progress with side effects": (
        "def progress(self, directory, request):\n"
        "    directory.mkdir(exist_ok=True)\n"
        "    (directory / 'stop').touch()\n"
        "    return []\n",
        "progress_changes_nothing",
        "stop",
    ),
    "a library at the top": ("import netCDF4\n", "declaration_imports", "imports"),
    "output that is not looked for": (
        "def parse(self, directory, request):\n    return None\n",
        "missing_output",
        "DID NOT RAISE",
    ),
    "two cheap settings that are one": (
        "def cheaper(self, settings, effort):\n    return settings\n",
        "cheaper_settings",
        "assert",
    ),
}

TESTS = """
from bilayer_orchestra.testing import EngineConformance

class TestToy(EngineConformance):
    name = "toy"
    rough = {"knob": 2.0}
"""


def outcome_of(place: Path, body: str, selected: str) -> tuple[int, str]:
    """Return exit code and output of the kit's tests ``selected`` for a toy with ``body``."""
    text = TOY + textwrap.indent("\n" + body, "    ")
    install(place / "site", "orchestra-toy", text, ENGINES, "toy = toy_engine:Toy")
    (place / "test_toy.py").write_text(TESTS)
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", "--rootdir", place)
    names = python(place / "site", *words, "--collect-only", place / "test_toy.py", cwd=place)
    wanted = [line for line in names.stdout.splitlines() if selected in line]
    assert len(wanted) == 1, names.stdout + names.stderr
    done = python(place / "site", *words, wanted[0], cwd=place)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.cases(3)
@pytest.mark.parametrize(("body", "test", "words"), DEFECTS.values(), ids=DEFECTS.keys())
def test_a_defect_is_found(tmp_path, body, test, words):
    code, said = outcome_of(tmp_path, body, test)
    assert code == 1, said
    assert words in said


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    "test", sorted({test for _, test, _ in DEFECTS.values()} - {"rough_run"}), ids=str
)
def test_nothing_is_found_where_nothing_is_wrong(tmp_path, test):
    code, said = outcome_of(tmp_path, "", test)
    assert code == 0, said


@pytest.mark.parametrize("name", ["open", "polarized ring", "potentials", "thermal ring"])
def test_the_oracle_of_the_kit_against_that_of_the_tests(name):
    terms = CASES[name].model().terms()
    expected, found = oracle(terms), diagonalized(terms).values
    for observable, value in expected.items():
        np.testing.assert_allclose(found[observable], value, atol=1e-10, err_msg=observable)


def test_the_cases_are_what_they_are_called():
    """Solved ones have a gap, degenerate ones a level of several states, or a small gap."""
    for case in CASES.values():
        exact = diagonalized(case.model().terms())
        if case.kind == "solved":
            assert exact.degeneracy == 1
            assert exact.gap > 0.05
        elif case.kind == "degenerate":
            assert exact.degeneracy > 1 or exact.gap < 1e-3
