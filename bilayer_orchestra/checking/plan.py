"""Which engines solve what for a check, and which results are then compared with which.

For a ground state: every ground-state engine, AFQMC as projector, and the grand-canonical ladder to
T -> 0. For a thermal state: every thermal engine. Results are reused by content, as always.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import xarray as xr

from bilayer_orchestra.checking.comparison import Pair
from bilayer_orchestra.checking.ladder import (
    Ladder,
    plan_ladder,
    projection_term,
    projection_time,
    sector_term,
    temperature_term,
)
from bilayer_orchestra.checking.overall import Verdict
from bilayer_orchestra.checking.sectors import place_potentials, solve_sectors, with_beta
from bilayer_orchestra.checking.verdict import NEIGHBOURS, incomparable, judge_all
from bilayer_orchestra.dataset.reading import need_chains
from bilayer_orchestra.engines.base import Engine
from bilayer_orchestra.engines.registry import engines, get_engine
from bilayer_orchestra.errors import OrchestraError, OtherVersionError
from bilayer_orchestra.model.spec import CanonicalState, Model, parse_model
from bilayer_orchestra.running.point import checked_request
from bilayer_orchestra.running.versions import run_directory
from bilayer_orchestra.runtimes.local import LocalRuntime
from bilayer_orchestra.tuning.point import run_model

#: What an engine that cannot say takes for a sector of a small system, in seconds. Which engine
#: solves a sector decides whether stored ones are found: exact does up to 400 000 states.
SECTOR_SECONDS = 21.0

Show = Callable[[str], None]


class Check:
    """Runs the engines of one check.

    Parameters
    ----------
    model : Model
        What is solved.
    names : list of str
        Of the engines that take part.
    root : Path
        Directory of the runs.
    show : callable
        Takes one line of progress.
    distance : int
        Sites so far apart must agree.
    any_version : bool or None
        See :func:`bilayer_orchestra.running.versions.run_directory`.
    """

    def __init__(
        self,
        model: Model,
        names: list[str],
        root: Path,
        show: Show,
        distance: int = NEIGHBOURS,
        any_version: bool | None = None,
    ) -> None:
        need_chains(model.sites[0]._fields, "checks")
        self.model, self.root, self.show, self.distance = model, root, show, distance
        self.any_version = any_version
        self.engines = [get_engine(name) for name in names]
        self.verdict = Verdict(model.name, model)
        self.runtime = LocalRuntime(many=True)

    def run(self) -> Verdict:
        """Solve, compare, judge.

        Raises
        ------
        OrchestraError
            If there are not two results that can be compared.
        """
        with closing(self.runtime):
            self._tune()
            ground = isinstance(self.model.state, CanonicalState)
            pairs = self._ground() if ground else _all_pairs(self._each(self.engines))
        if not pairs and self.verdict.ladder is None:
            raise OrchestraError(
                "a check needs two engines that can solve this model; usable here: "
                f"{', '.join(engine.name for engine in self.engines) or 'none'}"
            )
        self.verdict.verdicts = judge_all(pairs, distance=self.distance)
        return self.verdict

    def _tune(self) -> None:
        """Search for a `filling` once: all engines are compared at the same potentials."""
        if getattr(self.model, "filling", None) is None or not self.engines:
            return
        engine = next((one for one in self.engines if not one.stochastic), self.engines[0])
        tuned = self._solve(self.model, engine, f"chemical potentials, from {engine.name}")
        self.model = self.verdict.model = parse_model(str(tuned.attrs["tuned_model"]))
        self._note(
            f"compared at the chemical potentials that {engine.name} found for the wished filling"
        )

    def _note(self, text: object) -> None:
        """Keep the first line of a text for the report."""
        self.verdict.notes.append(str(text).splitlines()[0])

    def _solve(self, model: Model, engine: Engine, text: str) -> xr.Dataset:
        self.show(f"{model.name}: {text}")
        run = run_directory(self.root, model, engine, self.any_version)
        return run_model(model, engine, self.runtime, self.root, self.show, run=run).dataset

    def _keep(self, model: Model, engine: Engine, label: str, more: str = "") -> xr.Dataset:
        """Solve one model of those that are compared."""
        result = self._solve(model, engine, label + more)
        self.verdict.results[label] = result
        return result

    def _each(self, chosen: list[Engine]) -> dict[str, xr.Dataset]:
        return {engine.name: self._keep(self.model, engine, engine.name) for engine in chosen}

    def _ground(self) -> list[Pair]:
        projecting = [engine for engine in self.engines if projects(engine, self.model)]
        direct = self._each(
            [one for one in self.engines if one not in projecting and "canonical" in one.ensembles]
        )
        pairs = _all_pairs(direct)
        for engine in projecting if direct else []:
            pairs += self._projector(engine, direct)
        return pairs + self._ladder(direct)

    def _projector(self, engine: Engine, direct: dict[str, xr.Dataset]) -> list[Pair]:
        """Solve at T = 0, projected for as long as the gap of the sector asks for."""
        label, model, gap = f"{engine.name} projector", self.model, _gap(direct)
        settings = model.settings(engine.name)
        theta = engine.projection_time(settings)
        if np.isfinite(gap):
            theta = projection_time(model, engine, gap)
            if theta is None:
                self._note(
                    f"{label}: not run; the next state of the sector lies {gap:.2g} above, and no "
                    "affordable projection time removes it"
                )
                return []
            settings = engine.with_projection_time(settings, theta)
            model = model.with_settings(engine.name, settings)
            theta = engine.projection_time(settings)
        assert theta is not None
        try:
            checked_request(model, engine)
            result = self._keep(model, engine, label, f", theta = {theta:g}")
        except OtherVersionError:  # for the user to decide
            raise
        except OrchestraError as error:
            self._note(f"{label}: {error}")
            return []
        extra = {"projection": projection_term(result, theta, gap)} if np.isfinite(gap) else {}
        return [Pair(result, other, (label, known), extra=extra) for known, other in direct.items()]

    def _ladder(self, direct: dict[str, xr.Dataset]) -> list[Pair]:
        """Solve the thermal states that go over into the ground state."""
        if self.model.raised(0.0) is None:
            self._note(f"T -> 0 is not checked for `model: {self.model.model}`")
            return []
        thermal = with_beta(self.model, 1.0)
        able = [engine for engine in self.engines if _accepts(engine, thermal)]
        if not able or not direct:
            self._note(
                "T -> 0 is not checked: no engine here solves the thermal state "
                f"({len(self.model.sites)} sites)"
            )
            return []
        try:
            wanted, others, sectors = solve_sectors(self.model, self._solve_sector)
            placement = place_potentials(wanted, others)
        except OtherVersionError:
            raise
        except OrchestraError as error:
            self.verdict.ladder = Ladder((), None, str(error).splitlines()[0])
            return []
        samplers = [e for e in engines().values() if e.stochastic and "thermal" in e.ensembles]
        alone = able[0] if all(engine.stochastic for engine in able) else None
        ladder = self.verdict.ladder = plan_ladder(self.model, placement, samplers, alone)
        for line in ladder.describe():
            self.show(line)
        for engine in able if ladder.rungs else []:
            try:
                self.verdict.thermal[engine.name] = {
                    rung.beta: self._keep(rung.model, engine, f"{engine.name} beta={rung.beta:g}")
                    for rung in ladder.rungs[1 if engine.stochastic else 0 :]
                }
            except OrchestraError as error:
                if not engine.stochastic or isinstance(error, OtherVersionError):
                    raise
                self._note(f"{engine.name}: {error}")
        solved, noisy = self.verdict.thermal, {e.name for e in able if e.stochastic}
        pairs = [
            Pair(sampled, solved[other][beta], (f"{name} beta={beta:g}", f"{other} beta={beta:g}"))
            for name in solved
            for other in solved
            if name in noisy and other not in noisy
            for beta, sampled in solved[name].items()
        ]
        for name, by_beta in solved.items():
            *_, warmer, coldest = sorted(by_beta)
            change = temperature_term(by_beta[coldest], by_beta[warmer], placement.smallest[1])
            mixed = sector_term(placement, sectors, coldest)
            extra = {"temperature": change, "other sectors": mixed}
            pairs += [
                Pair(by_beta[coldest], ground, (f"{name} T->0", other), "limit", extra)
                for other, ground in direct.items()
            ]
        return pairs

    def _solve_sector(self, model: Model) -> xr.Dataset:
        """Solve a neighbouring sector with the fastest engine that is there."""
        state = model.state
        assert isinstance(state, CanonicalState)
        return self._solve(model, _sector_engine(model), f"sector ({state.n_up}, {state.n_down})")


def usable_engines(model: Model) -> tuple[list[str], list[str]]:
    """Return the engines that can take part in a check, and why the others cannot.

    Those with the fewest kinds of error come first: the first one searches for a `filling`.
    """
    usable, without = [], []
    found = sorted(engines().items(), key=lambda one: (one[1].stochastic, bool(one[1].systematics)))
    for name, engine in found:
        try:
            engine.version()
            if not projects(engine, model):  # its settings follow from the gap
                checked_request(model, engine)
        except OrchestraError as error:
            without.append(f"without {name}: {str(error).splitlines()[0]}")
        else:
            usable.append(name)
    return usable, without


def compare_files(results: dict[str, xr.Dataset], name: str, distance: int = NEIGHBOURS) -> Verdict:
    """Compare stored results with each other.

    Parameters
    ----------
    results : dict
        Label -> result.
    name : str
        Of the check.
    distance : int
        Sites so far apart must agree.

    Raises
    ------
    OrchestraError
        If two of them must not be compared.
    """
    for result in results.values():
        need_chains(result.dims, "checks")
    pairs = _all_pairs(results)
    for pair in pairs:
        why_not = incomparable(pair.first, pair.second)
        if why_not:
            raise OrchestraError(f"{' and '.join(pair.labels)} cannot be compared: {why_not}")
    return Verdict(name, None, judge_all(pairs, distance=distance), results=results)


def _all_pairs(results: dict[str, xr.Dataset]) -> list[Pair]:
    return [
        Pair(results[one], results[other], (one, other))
        for one, other in itertools.combinations(results, 2)
    ]


def projects(engine: Engine, model: Model) -> bool:
    """Return whether the engine projects a trial state onto the ground state of ``model``."""
    ground = isinstance(model.state, CanonicalState)
    return ground and engine.projection_time(model.settings(engine.name)) is not None


def _accepts(engine: Engine, model: Model) -> bool:
    if "thermal" not in engine.ensembles:
        return False
    if engine.stochastic:  # what it cannot do at one temperature, it may at another
        return True
    try:
        checked_request(model, engine)
    except OrchestraError:
        return False
    return True


def _sector_engine(model: Model) -> Engine:
    """Return the engine without noise that is fastest, as far as anybody can say."""
    able: list[tuple[float, Engine]] = []
    for engine in engines().values():
        if engine.stochastic or "canonical" not in engine.ensembles:
            continue
        try:
            engine.version()
            seconds = engine.cost(checked_request(model, engine)).seconds
        except OrchestraError:
            continue
        able.append((SECTOR_SECONDS if seconds is None else seconds, engine))
    if not able:
        raise OrchestraError("no engine here solves the neighbouring sectors")
    return min(able, key=lambda one: one[0])[1]


def _gap(direct: dict[str, xr.Dataset]) -> float:
    """Return the gap within the sector: that of an exact result, else DMRG's (an upper bound)."""
    known = [dataset for dataset in direct.values() if "gap" in dataset]
    for dataset in known:
        if "degeneracy" in dataset:
            return 0.0 if float(dataset["degeneracy"]) > 1 else float(dataset["gap"])
    return min((float(dataset["gap"]) for dataset in known), default=np.nan)
