"""Which engines solve what for a check, and which results are then compared with which.

For a ground state: every ground-state engine, AFQMC as projector, and the grand-canonical ladder to
T -> 0. For a thermal state: every thermal engine. Results are reused by content, as always.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xarray as xr

from bilayer_orchestra.checking import ladder as rungs_of
from bilayer_orchestra.checking.comparison import Pair, Word
from bilayer_orchestra.checking.ladder import Ladder, plan_ladder
from bilayer_orchestra.checking.sectors import place, solve_sectors, with_beta
from bilayer_orchestra.checking.verdict import NEIGHBOURS, PairVerdict, judge_all, overall
from bilayer_orchestra.engines.base import Engine
from bilayer_orchestra.engines.registry import engines, get_engine
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.model.load import parse_model
from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.model.state import CanonicalState
from bilayer_orchestra.running.point import checked_request
from bilayer_orchestra.runtimes.local import LocalRuntime
from bilayer_orchestra.tuning.point import run_model

#: What an engine that cannot say takes for a sector of a small system, in seconds.
SECTOR_SECONDS = 20.0

Show = Callable[[str], None]


@dataclass
class CheckResult:
    """Everything that a check found out."""

    name: str
    model: Model | None
    verdicts: list[PairVerdict] = field(default_factory=list)
    ladder: Ladder | None = None
    notes: list[str] = field(default_factory=list)
    results: dict[str, xr.Dataset] = field(default_factory=dict)
    thermal: dict[str, dict[float, xr.Dataset]] = field(default_factory=dict)

    @property
    def word(self) -> Word:
        """The verdict of the whole check."""
        return overall(self.verdicts)

    @property
    def distance(self) -> int | None:
        """Distance up to which all results agree; None without agreement or correlations."""
        if self.word != "agree":
            return None
        reached = [v.distance for v in self.verdicts if v.distance is not None]
        return min(reached, default=None)


class Check:
    """Runs the engines of one check."""

    def __init__(
        self, model: Model, names: list[str], root: Path, show: Show, distance: int = NEIGHBOURS
    ) -> None:
        self.model, self.names, self.root, self.show = model, names, root, show
        self.distance = distance
        self.outcome = CheckResult(model.name, self.model)
        self.runtime = LocalRuntime(many=True)

    def run(self) -> CheckResult:
        """Solve, compare, judge.

        Raises
        ------
        OrchestraError
            If there are not two results that can be compared.
        """
        with closing(self.runtime):
            self._tune()
            ground = isinstance(self.model.state, CanonicalState)
            pairs = self._ground() if ground else self._thermal()
        if not pairs and self.outcome.ladder is None:
            raise OrchestraError(
                "a check needs two engines that can solve this model; usable here: "
                f"{', '.join(self.names) or 'none'}"
            )
        self.outcome.verdicts = judge_all(pairs, distance=self.distance)
        return self.outcome

    def _tune(self) -> None:
        """Search for a `filling` once: all engines are compared at the same potentials."""
        if getattr(self.model, "filling", None) is None or not self.names:
            return
        name = next((n for n in self.names if not get_engine(n).stochastic), self.names[0])
        tuned = self._solve(self.model, name, f"chemical potentials, from {name}")
        self.model = self.outcome.model = parse_model(str(tuned.attrs["tuned_model"]))
        self.outcome.notes.append(
            f"compared at the chemical potentials that {name} found for the wished filling"
        )

    def _solve(self, model: Model, name: str, label: str) -> xr.Dataset:
        self.show(f"{model.name}: {label}")
        return run_model(model, get_engine(name), self.runtime, self.root, self.show).dataset

    def _keep(self, dataset: xr.Dataset, label: str) -> xr.Dataset:
        self.outcome.results[label] = dataset
        return dataset

    def _thermal(self) -> list[Pair]:
        solved = [
            (name, self._keep(self._solve(self.model, name, name), name)) for name in self.names
        ]
        return _all_pairs(solved)

    def _ground(self) -> list[Pair]:
        direct = [
            (name, self._keep(self._solve(self.model, name, name), name))
            for name in self.names
            if not projects(get_engine(name), self.model)
            and "canonical" in get_engine(name).ensembles
        ]
        gap = _gap(direct)
        pairs = _all_pairs(direct)
        for name in self.names:
            if projects(get_engine(name), self.model):
                pairs += self._projector(name, direct, gap)
        return pairs + self._ladder(direct)

    def _projector(self, name: str, direct: list[tuple[str, xr.Dataset]], gap: float) -> list[Pair]:
        """Solve at T = 0, projected for as long as the gap of the sector asks for."""
        label, engine = f"{name} projector", get_engine(name)
        model = self.model
        if not direct:
            return []
        if np.isfinite(gap):
            theta = rungs_of.projection_time(model, engine, gap)
            if theta is None:
                self.outcome.notes.append(
                    f"{label}: not run; the next state of the sector lies {gap:.2g} above, and no "
                    "affordable projection time removes it"
                )
                return []
            settings = engine.with_projection_time(model.settings(name), theta)
            model = model.with_settings(name, settings)
        theta = engine.projection_time(model.settings(name))
        assert theta is not None
        try:
            checked_request(model, engine)
            result = self._keep(self._solve(model, name, f"{label}, theta = {theta:g}"), label)
        except OrchestraError as error:
            self.outcome.notes.append(f"{label}: {_first_line(error)}")
            return []
        extra = (
            {"projection": rungs_of.projection_term(result, theta, gap)} if np.isfinite(gap) else {}
        )
        return [Pair(result, other, (label, known), extra=extra) for known, other in direct]

    def _ladder(self, direct: list[tuple[str, xr.Dataset]]) -> list[Pair]:
        """Solve the thermal states that go over into the ground state."""
        if self.model.raised(0.0) is None:
            self.outcome.notes.append(f"T -> 0 is not checked for `model: {self.model.model}`")
            return []
        thermal = with_beta(self.model, 1.0)
        able = [name for name in self.names if _accepts(get_engine(name), thermal)]
        known = [name for name in able if not get_engine(name).stochastic]
        sampled = [name for name in able if get_engine(name).stochastic]
        if not able or not direct:
            self.outcome.notes.append(
                "T -> 0 is not checked: no engine here solves the thermal state "
                f"({len(self.model.sites)} sites)"
            )
            return []
        try:
            wanted, others, sectors = solve_sectors(self.model, self._solve_sector)
            placement = place(wanted, others)
        except OrchestraError as error:
            self.outcome.ladder = Ladder((), None, np.inf, _first_line(error))
            return []
        samplers = [e for e in engines().values() if e.stochastic and "thermal" in e.ensembles]
        alone = get_engine(sampled[0]) if not known else None
        ladder = plan_ladder(self.model, placement, samplers, alone)
        self.outcome.ladder = ladder
        for line in ladder.describe():
            self.show(line)
        if not ladder.rungs:
            return []
        solved: dict[str, dict[float, xr.Dataset]] = {}
        for name in able:
            rungs = ladder.rungs[1:] if get_engine(name).stochastic else ladder.rungs
            try:
                solved[name] = {rung.beta: self._rung(rung, name) for rung in rungs}
            except OrchestraError as error:
                if not get_engine(name).stochastic:
                    raise
                self.outcome.notes.append(f"{name}: {_first_line(error)}")
        self.outcome.thermal = solved
        pairs = [
            Pair(a, solved[other][beta], (f"{name} beta={beta:g}", f"{other} beta={beta:g}"))
            for name in sampled
            for other in known
            for beta, a in solved.get(name, {}).items()
        ]
        gap = placement.smallest[1]
        for name, by_beta in solved.items():
            *_, warmer, coldest = sorted(by_beta)
            extra = {
                "temperature": rungs_of.temperature_term(by_beta[coldest], by_beta[warmer], gap),
                "other sectors": rungs_of.sector_term(placement, sectors, coldest),
            }
            pairs += [
                Pair(by_beta[coldest], ground, (f"{name} T->0", other), "limit", extra)
                for other, ground in direct
            ]
        return pairs

    def _rung(self, rung: rungs_of.Rung, name: str) -> xr.Dataset:
        label = f"{name} beta={rung.beta:g}"
        return self._keep(self._solve(rung.model, name, label), label)

    def _solve_sector(self, model: Model) -> xr.Dataset:
        """Solve a neighbouring sector with the fastest engine that is there."""
        state = model.state
        assert isinstance(state, CanonicalState)
        return self._solve(model, _sector_engine(model), f"sector ({state.n_up}, {state.n_down})")


def usable_engines(model: Model) -> tuple[list[str], list[str]]:
    """Return the engines that can take part in a check, and why the others cannot."""
    usable, without = [], []
    for name, engine in engines().items():
        try:
            engine.version()
            if not projects(engine, model):  # its settings follow from the gap
                checked_request(model, engine)
        except OrchestraError as error:
            without.append(f"without {name}: {_first_line(error)}")
        else:
            usable.append(name)
    return usable, without


def compare_files(
    results: dict[str, xr.Dataset], name: str, distance: int = NEIGHBOURS
) -> CheckResult:
    """Compare stored results with each other.

    Raises
    ------
    OrchestraError
        If two of them must not be compared.
    """
    from bilayer_orchestra.checking.verdict import incomparable

    pairs = _all_pairs(list(results.items()))
    for pair in pairs:
        why_not = incomparable(pair.first, pair.second)
        if why_not:
            raise OrchestraError(f"{' and '.join(pair.labels)} cannot be compared: {why_not}")
    return CheckResult(name, None, judge_all(pairs, distance=distance), results=results)


def _all_pairs(solved: list[tuple[str, xr.Dataset]]) -> list[Pair]:
    return [
        Pair(first, second, (one, other))
        for k, (one, first) in enumerate(solved)
        for other, second in solved[k + 1 :]
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


def _sector_engine(model: Model) -> str:
    """Return the engine without noise that is fastest, as far as anybody can say."""
    able: list[tuple[str, float]] = []
    for name, engine in engines().items():
        if engine.stochastic or "canonical" not in engine.ensembles:
            continue
        try:
            engine.version()
            request = checked_request(model, engine)
        except OrchestraError:
            continue
        seconds = engine.cost(request).seconds
        able.append((name, SECTOR_SECONDS if seconds is None else seconds))
    if not able:
        raise OrchestraError("no engine here solves the neighbouring sectors")
    return min(able, key=lambda one: one[1])[0]


def _gap(direct: list[tuple[str, xr.Dataset]]) -> float:
    """Return the gap within the sector: that of an exact result, else DMRG's (an upper bound)."""
    for _, dataset in direct:
        if "degeneracy" in dataset and "gap" in dataset:
            return 0.0 if float(dataset["degeneracy"]) > 1 else float(dataset["gap"])
    return min((float(d["gap"]) for _, d in direct if "gap" in d), default=np.nan)


def _first_line(error: OrchestraError) -> str:
    return str(error).splitlines()[0]
