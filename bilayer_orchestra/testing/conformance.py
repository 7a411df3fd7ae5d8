"""The tests that every engine has to pass; a subclass names the engine."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

from bilayer_orchestra.dataset.reading import by_site, is_stochastic, systematics_of
from bilayer_orchestra.engines.base import CONTRACT, Engine
from bilayer_orchestra.engines.registry import get_engine
from bilayer_orchestra.errors import EngineError, MissingEngineError, OrchestraError, SpecError
from bilayer_orchestra.model.bilayer import OBSERVABLES as SELECTABLE
from bilayer_orchestra.model.spec import Model, parse_model, stored_model
from bilayer_orchestra.running.directory import find_runs, request_hash
from bilayer_orchestra.running.point import Runner, checked_request, run_point
from bilayer_orchestra.settings import SpecModel
from bilayer_orchestra.terms import FloatArray, Terms
from bilayer_orchestra.testing.cases import CASES, Case
from bilayer_orchestra.testing.declaration import measured
from bilayer_orchestra.testing.oracle import Exact, diagonalized
from bilayer_orchestra.testing.purity import changes

if TYPE_CHECKING:
    import xarray as xr

ENERGIES = ("energy", "kinetic_energy", "interaction_energy")
#: Largest processor time of a declaration's import, in seconds: `orchestra doctor` loads them all.
DECLARATION = 0.05
#: Errors beyond the stated ones that are rounding, in units of the largest value or of one.
ROUNDING = 1e-9
#: What rounding leaves of a state, in energy: over the gap it is an error of correlators.
RESIDUAL = 1e-13
#: How much larger than its bias an error may be: never, and in more than a twentieth of elements.
NEVER, RARELY = 10.0, 3.0
#: Largest pull of any of some hundred elements, and range of their root mean square.
LARGEST_PULL, PULLS = 6.0, (0.1, 2.0)
#: Seconds that a run may take to write what it is killed after.
PATIENCE = 600.0


@dataclass
class Solver:
    """Solves the cases of one test class, each once.

    Parameters
    ----------
    engine : Engine
        The one that is tested.
    settings : dict
        Its section of the model files.
    root : Path
        Directory of the runs.
    """

    engine: Engine
    settings: dict[str, Any]
    root: Path
    _solved: dict[str, xr.Dataset] = field(default_factory=dict)

    def model(self, case: Case, **settings: Any) -> Model:
        """Return the model of ``case`` with the class's settings and these."""
        return case.model({self.engine.name: self.settings | settings})

    def dataset(self, case: Case, **settings: Any) -> xr.Dataset:
        """Return the result of ``case``; raises OrchestraError where the engine refuses it."""
        key = f"{case.name} {settings}"
        if key not in self._solved:
            model = self.model(case, **settings)
            self._solved[key] = run_point(model, self.engine, Runner(self.root / case.name)).dataset
        return self._solved[key]


class EngineConformance:
    """Tests of an engine; subclass it with a name that begins with ``Test`` and set :attr:`name`.

    Attributes
    ----------
    name : str
        The engine's.
    settings : dict
        Its section of the models, to make runs short.
    rough : dict
        Further settings that make its systematic errors large enough to be seen, such as a small
        bond dimension; empty if it has none.
    refused : frozenset of str
        Cases (:data:`bilayer_orchestra.testing.cases.CASES`) that it cannot solve: that it refuses
        them in words is tested. Ensembles need not be listed; they are declared by the engine.
    slow : frozenset of str
        Cases that take too long for every day, and get the mark ``slow``.
    tolerance : float
        Largest error of a converged result without noise.
    interrupted : dict
        Changes of the base model for the run that is killed; it has to take a second at least.
    killed_after : str
        Pattern of the file in the job's directory after whose appearance it is killed.
    resumed : str or None
        What its progress says when it goes on from where it was; None if it begins again.
    """

    name: ClassVar[str]
    settings: ClassVar[dict[str, Any]] = {}
    rough: ClassVar[dict[str, Any]] = {}
    refused: ClassVar[frozenset[str]] = frozenset()
    slow: ClassVar[frozenset[str]] = frozenset()
    tolerance: ClassVar[float] = 1e-6
    interrupted: ClassVar[dict[str, Any]] = {"length": 4, "state": {"n_up": 3, "n_down": 3}}
    killed_after: ClassVar[str] = "*"
    resumed: ClassVar[str | None] = None

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Give every test its cases."""
        kinds = {"solved_case": "solved", "degenerate": "degenerate", "extreme": "extreme"}
        for argument in {*kinds, "killed", "truncated"} & set(metafunc.fixturenames):
            cases = [case for case in CASES.values() if case.kind == kinds.get(argument)]
            if argument in ("killed", "truncated"):
                cases = [Case(argument, changes=self.interrupted if argument == "killed" else {})]
            metafunc.parametrize(
                argument,
                [
                    pytest.param(case, marks=[pytest.mark.slow] * (case.name in self.slow))
                    for case in cases
                ],
                ids=[case.name for case in cases],
            )

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Engine:
        """Return the engine; skip everything that needs it if it is not installed."""
        engine = get_engine(cls.name)
        try:
            engine.version()
        except MissingEngineError as error:
            pytest.skip(str(error))
        return engine

    @pytest.fixture(scope="class")
    @classmethod
    def solver(
        cls,
        engine: Engine,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> Solver:
        """Return what solves the cases, each once for all tests."""
        return Solver(engine, cls.settings, tmp_path_factory.mktemp("kit"))

    def _able(self, engine: Engine, case: Case) -> bool:
        ensemble = "thermal" if case.thermal else "canonical"
        return ensemble in engine.ensembles and case.name not in self.refused

    # what it declares

    def test_declaration(self) -> None:
        """Every attribute is there and means something."""
        engine = get_engine(self.name)
        assert engine.name == self.name
        assert engine.contract == CONTRACT
        assert engine.revision >= 1
        assert engine.ensembles
        assert set(engine.ensembles) <= {"canonical", "thermal"}
        assert isinstance(engine.stochastic, bool)
        assert isinstance(engine.systematics, tuple), "a tuple of names, empty if there are none"
        assert not [name for name in engine.systematics if not name.strip() or "," in name]
        assert engine.summary
        assert "\n" not in engine.summary
        assert issubclass(engine.settings, SpecModel)
        assert engine.settings() is not None, "every setting has a default"

    def test_the_declaration_imports_no_engine_library(self) -> None:
        """Listing the engines that there are must cost nothing."""
        cost = measured(self.name)
        assert not cost.foreign, f"the declaration imports {', '.join(cost.foreign)}"
        assert cost.seconds < DECLARATION, f"the declaration takes {cost.seconds:.3f} s"

    def test_settings_survive_the_model_file(self) -> None:
        """Written and read again they are the same, and so is the identity of the run."""
        case = CASES["open"]
        for section in ({}, self.settings, self.settings | self.rough):
            model = case.model({self.name: section})
            again = parse_model(model.to_yaml())
            assert again.settings(self.name) == model.settings(self.name)
            plain = model.settings(self.name).model_dump(mode="json")
            assert (
                type(again.settings(self.name))
                .model_validate_json(model.settings(self.name).model_dump_json())
                .model_dump(mode="json")
                == plain
            )

    def test_unknown_settings_are_refused_with_their_line(self) -> None:
        """A typing error in the model file is one message with its place."""
        text = CASES["open"].model().to_yaml() + f"numerics:\n  {self.name}:\n    no_such_key: 1\n"
        with pytest.raises(SpecError, match=rf"line \d+: unknown key.*{self.name}.no_such_key"):
            parse_model(text)

    def test_cheaper_settings_are_settings(self) -> None:
        """What a search begins with is valid, and another run than the accurate one."""
        engine, usual = get_engine(self.name), CASES["open"].model().settings(self.name)
        cheaper = engine.cheaper(usual, 0.1)
        if cheaper is not None:
            assert type(cheaper).model_validate(cheaper.model_dump()) == cheaper
            assert cheaper != usual

    # what is pure

    def test_rendering_writes_nothing_and_needs_no_engine(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Files in, files out, on a machine without the engine."""
        engine = get_engine(self.name)
        case = next(case for case in CASES.values() if self._able(engine, case))
        request = checked_request(case.model({self.name: self.settings}), engine)

        def missing(*_: object) -> None:
            raise MissingEngineError("rendering must not ask for the engine")

        monkeypatch.chdir(tmp_path)
        for method in ("version", "tools", "place", "self_test"):
            monkeypatch.setattr(engine, method, missing)
        with changes() as changed:
            job, again = engine.render(request), engine.render(request)
        assert changed == []
        assert job == again, "the same request gives the same files"
        assert job.files
        assert not [name for name in job.files if Path(name).is_absolute() or ".." in name]

    def test_version_writes_nothing(self, engine: Engine) -> None:
        """It is asked for whenever engines are listed."""
        with changes() as changed:
            first, second = type(engine)().version(), engine.version()
        assert changed == []
        assert first == second
        assert "\n" not in first

    def test_progress_changes_nothing(self, solver: Solver, tmp_path: Path) -> None:
        """Asking how far a job is has no side effects, whatever is there."""
        engine = solver.engine
        case = next(case for case in CASES.values() if self._able(engine, case))
        solver.dataset(case)
        request = checked_request(solver.model(case), engine)
        (run,) = find_runs(solver.root / case.name)
        for directory in (run.job, tmp_path, tmp_path / "not there"):
            with changes() as changed:
                lines = type(engine)().progress(directory, request)
                enough = engine.enough(directory, request)
            assert changed == []
            assert all(isinstance(line, str) for line in lines)
            assert isinstance(enough, bool)

    def test_missing_output_is_an_error_in_words(self, engine: Engine, tmp_path: Path) -> None:
        """A job that left nothing is none that is read."""
        case = next(case for case in CASES.values() if self._able(engine, case))
        request = checked_request(case.model({self.name: self.settings}), engine)
        with pytest.raises(EngineError, match=r"\w"):
            engine.parse(tmp_path, request)

    # what it computes

    def test_every_observable_against_exact_diagonalization(
        self, solver: Solver, solved_case: Case
    ) -> None:
        """Right within the errors that are stated, or refused in words where that is declared."""
        if not self._able(solver.engine, solved_case):
            with pytest.raises(OrchestraError, match=r"\w"):
                checked_request(solver.model(solved_case), solver.engine)
            return
        dataset = solver.dataset(solved_case)
        assert dataset.attrs["converged"], dataset.attrs["converged_reason"]
        for name in (*ENERGIES, *SELECTABLE):
            assert name in dataset, f"{name} is missing"
        self._judge(dataset, solver.model(solved_case).terms())

    def test_degenerate_levels(self, solver: Solver, degenerate: Case) -> None:
        """The energy holds; correlators are right (level averages), or not called converged."""
        if not self._able(solver.engine, degenerate):
            with pytest.raises(OrchestraError, match=r"\w"):
                checked_request(solver.model(degenerate), solver.engine)
            return
        dataset, terms = solver.dataset(degenerate), solver.model(degenerate).terms()
        if dataset.attrs["converged"]:
            self._judge(dataset, terms)
        else:
            assert str(dataset.attrs["converged_reason"])
            if not solver.engine.stochastic:
                energy = float(dataset["energy"]) - float(diagonalized(terms).values["energy"])
                allowed = np.nanmax([self.tolerance, float(dataset["energy_bias"])])
                assert abs(energy) <= allowed

    def test_extreme_models(self, solver: Solver, extreme: Case) -> None:
        """Solved rightly, or refused in words before anything runs."""
        model = solver.model(extreme)
        try:
            checked_request(model, solver.engine)
        except OrchestraError:
            return
        dataset = solver.dataset(extreme)
        if dataset.attrs["converged"]:
            self._judge(dataset, model.terms())

    def test_stated_errors_cover_those_of_a_rough_run(
        self, solver: Solver, truncated: Case
    ) -> None:
        """Where systematic errors are large, their estimates are as well."""
        if not self.rough:
            assert not solver.engine.systematics, "set `rough`: nothing tests the stated errors"
            return
        dataset = solver.dataset(truncated, **self.rough)
        exact = diagonalized(solver.model(truncated).terms())
        error = np.abs(_of(dataset, "pair") - exact.values["pair"]).max()
        assert error > self.tolerance, "`rough` is not rough: no error is seen"
        bias = _of(dataset, "pair_bias")
        assert np.isfinite(bias).all(), "nothing is stated of an error that is there"
        self._judge_errors(dataset, exact)

    def test_killed_and_run_again(self, solver: Solver, killed: Case, tmp_path: Path) -> None:
        """After kill -9 the same request gives the result of an undisturbed run."""
        model, engine = solver.model(killed), solver.engine
        (tmp_path / "model.yaml").write_text(model.to_yaml())
        root = tmp_path / "runs"
        self._kill(tmp_path / "model.yaml", root)
        said: list[str] = []
        again = run_point(model, engine, Runner(root, tell=said.append))
        if self.resumed is not None:
            assert any(self.resumed in line for line in said), f"it began again: {said[:5]}"
        undisturbed = solver.dataset(killed)
        assert again.dataset.attrs["request_hash"] == request_hash(model, engine)
        for name in (*ENERGIES, *SELECTABLE):
            one, other = _of(again.dataset, name), _of(undisturbed, name)
            allowed = np.full(one.shape, self.tolerance)
            if engine.stochastic:
                sizes = (_of(d, f"{name}_stderr") for d in (again.dataset, undisturbed))
                allowed = allowed + LARGEST_PULL * np.hypot(*sizes)
            for dataset in (again.dataset, undisturbed):
                allowed = allowed + np.nan_to_num(_of(dataset, f"{name}_bias"))
            assert np.all(np.abs(one - other) <= allowed), name

    def _kill(self, model: Path, root: Path) -> None:
        """Start a run and kill it once it left what :attr:`killed_after` names."""
        command = [sys.executable, "-m", "bilayer_orchestra.cli.main", "run", str(model)]
        command += ["-b", self.name, "-o", str(root), "--no-plot"]
        errors = root.with_name("errors.txt")
        with errors.open("wb") as stream:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stream)
        end = time.monotonic() + PATIENCE
        try:
            while not list(root.glob(f"*/job/{self.killed_after}")):
                ended = process.poll() is not None
                assert not ended, f"it ended before it could be killed: {errors.read_text()}"
                assert time.monotonic() < end, f"no {self.killed_after} in the job's directory"
                time.sleep(0.02)
        finally:
            process.kill()
            process.wait()
        (run,) = find_runs(root)
        while run.in_use():  # the engine ends with its orchestrator
            assert time.monotonic() < end, "the engine outlives its orchestrator"
            time.sleep(0.02)
        assert not run.finished, "it had finished already: make `interrupted` larger"

    # how it is judged

    def _judge(self, dataset: xr.Dataset, terms: Terms) -> None:
        """Compare a converged result with exact diagonalization."""
        exact = diagonalized(terms)
        if not is_stochastic(dataset):
            for name, value in _known(dataset, exact):
                error = np.abs(_of(dataset, name) - value).max()
                allowed = max(self.tolerance, RESIDUAL / exact.gap)
                assert error <= allowed, f"{name} is off by {error:.1e}"
            if "gap" in dataset and np.isfinite(exact.gap) and exact.degeneracy == 1:
                assert float(dataset["gap"]) == pytest.approx(exact.gap, rel=0.02)
        self._judge_errors(dataset, exact)

    def _judge_errors(self, dataset: xr.Dataset, exact: Exact) -> None:
        """Compare the true errors with the stated ones."""
        engine = get_engine(self.name)
        assert systematics_of(dataset) == engine.systematics
        assert is_stochastic(dataset) == engine.stochastic
        pulls: list[FloatArray] = []
        for name, value in _known(dataset, exact):
            error = np.abs(_of(dataset, name) - value)
            rounding = ROUNDING * max(1.0, float(np.abs(value).max()))
            bias = _of(dataset, f"{name}_bias") if f"{name}_bias" in dataset else error * np.nan
            assert (f"{name}_stderr" in dataset) == engine.stochastic, f"{name}_stderr"
            if engine.systematics and dataset.attrs["converged"]:
                assert not np.isnan(bias).any(), f"{name} is called converged without a bias"
            if engine.stochastic:
                stderr = _of(dataset, f"{name}_stderr")
                assert np.all(stderr >= 0), name
                left = np.maximum(error - np.nan_to_num(bias) - rounding, 0.0)
                assert np.all(left <= LARGEST_PULL * stderr), f"{name}: {np.max(left / stderr)}"
                moving = stderr > rounding
                pulls.append((error / np.hypot(stderr, np.nan_to_num(bias)))[moving])
            elif engine.systematics:
                estimated = ~np.isnan(bias)
                beyond = (error - rounding)[estimated]
                assert np.all(beyond <= NEVER * bias[estimated]), f"the bias of {name} is too small"
                share = np.mean(beyond > RARELY * bias[estimated]) if beyond.size else 0.0
                assert share <= max(0.05, 1.0 / max(beyond.size, 1)), (
                    f"{share:.0%} of {name} have errors of more than {RARELY} biases"
                )
        if pulls and (together := np.concatenate(pulls)).size:
            size = float(np.sqrt(np.mean(together**2)))
            assert PULLS[0] < size < PULLS[1], f"errors are {size:.2f} times the stated ones"


def _of(dataset: xr.Dataset, name: str) -> FloatArray:
    """Return a variable in site order: rung by rung, layers as the dataset has them."""
    variable = dataset[name]
    if "layer" not in variable.dims:
        return np.asarray(variable.values, dtype=float)
    terms = stored_model(str(dataset.attrs["model"])).terms()
    return by_site(variable, terms.sites)


def _known(dataset: xr.Dataset, exact: Exact) -> Iterator[tuple[str, FloatArray]]:
    """Yield the observables that both have."""
    for name, value in exact.values.items():
        if name in dataset:
            yield name, value
