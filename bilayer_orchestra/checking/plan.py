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
from bilayer_orchestra.checking.verdict import NEIGHBOURS, Verdict, judge_all, overall
from bilayer_orchestra.engines.exact.engine import canonical_dimension, out_of_reach
from bilayer_orchestra.engines.registry import BACKENDS, get_engine
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.model.bilayer import BilayerModel
from bilayer_orchestra.model.load import parse_model
from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.model.state import CanonicalState
from bilayer_orchestra.running.point import checked_request, run_point
from bilayer_orchestra.runtimes.registry import get_runtime

#: Sectors up to this size are solved exactly; beyond it DMRG is faster.
EXACT_SECTOR = 400_000

Show = Callable[[str], None]


@dataclass
class CheckResult:
    """Everything that a check found out."""

    name: str
    model: Model | None
    verdicts: list[Verdict] = field(default_factory=list)
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
        self.runtime = get_runtime("local", many=True)

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
        name = next((name for name in self.names if name != "alf"), "alf")
        tuned = self._solve(self.model, name, f"chemical potentials, from {name}")
        self.model = self.outcome.model = parse_model(str(tuned.attrs["tuned_model"]))
        self.outcome.notes.append(
            f"compared at the chemical potentials that {name} found for the wished filling"
        )

    def _solve(self, model: Model, name: str, label: str) -> xr.Dataset:
        self.show(f"{model.name}: {label}")
        return run_point(model, get_engine(name), self.runtime, self.root, self.show).dataset

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
            if name != "alf"
        ]
        gap = _gap(direct)
        pairs = _all_pairs(direct)
        if "alf" in self.names:
            pairs += self._projector(direct, gap)
        return pairs + self._ladder(direct)

    def _projector(self, direct: list[tuple[str, xr.Dataset]], gap: float) -> list[Pair]:
        """AFQMC at T = 0, projected for as long as the gap of the sector asks for."""
        label = "alf projector"
        model = self.model
        if not direct:
            return []
        if np.isfinite(gap):
            theta = rungs_of.projection_time(model, gap)
            if theta is None:
                self.outcome.notes.append(
                    f"{label}: not run; the next state of the sector lies {gap:.2g} above, and no "
                    "affordable projection time removes it"
                )
                return []
            model = _with_alf(model, projection_time=theta)
        theta = model.numerics.alf.projection_time
        try:
            checked_request(model, BACKENDS["alf"])
            result = self._keep(self._solve(model, "alf", f"{label}, theta = {theta:g}"), label)
        except OrchestraError as error:
            self.outcome.notes.append(f"{label}: {_first_line(error)}")
            return []
        extra = (
            {"projection": rungs_of.projection_term(result, theta, gap)} if np.isfinite(gap) else {}
        )
        return [Pair(result, other, (label, name), extra=extra) for name, other in direct]

    def _ladder(self, direct: list[tuple[str, xr.Dataset]]) -> list[Pair]:
        """Solve the thermal states that go over into the ground state."""
        if not isinstance(self.model, BilayerModel):
            self.outcome.notes.append(f"T -> 0 is not checked for `model: {self.model.model}`")
            return []
        first = with_beta(self.model, 1.0).terms()
        exact_reaches = out_of_reach(first) is None and "exact" in self.names
        alf_reaches = "alf" in self.names
        if not (exact_reaches or alf_reaches) or not direct:
            self.outcome.notes.append(
                "T -> 0 is not checked: no engine here solves the thermal state "
                f"({len(self.model.sites)} sites; exact reaches 8, alf any)"
            )
            return []
        try:
            wanted, others, sectors = solve_sectors(self.model, self._solve_sector)
            placement = place(wanted, others)
        except OrchestraError as error:
            self.outcome.ladder = Ladder((), None, np.inf, _first_line(error))
            return []
        ladder = plan_ladder(self.model, placement, monte_carlo=not exact_reaches)
        self.outcome.ladder = ladder
        for line in ladder.describe():
            self.show(line)
        if not ladder.rungs:
            return []
        solved: dict[str, dict[float, xr.Dataset]] = {}
        if exact_reaches:
            solved["exact"] = {r.beta: self._rung(r, "exact") for r in ladder.rungs}
        if alf_reaches:
            try:
                solved["alf"] = {r.beta: self._rung(r, "alf") for r in ladder.rungs[1:]}
            except OrchestraError as error:
                self.outcome.notes.append(f"alf: {_first_line(error)}")
        self.outcome.thermal = solved
        pairs = [
            Pair(a, solved["exact"][beta], (f"alf beta={beta:g}", f"exact beta={beta:g}"))
            for beta, a in solved.get("alf", {}).items()
            if "exact" in solved
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
    for name, backend in BACKENDS.items():
        try:
            backend.version()
            if not (name == "alf" and isinstance(model.state, CanonicalState)):
                checked_request(model, backend)
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


def _sector_engine(model: Model) -> str:
    terms = model.terms()
    if out_of_reach(terms) is None and canonical_dimension(terms) <= EXACT_SECTOR:
        return "exact"
    for name in ("block2", "itensor"):
        try:
            BACKENDS[name].version()
            checked_request(model, BACKENDS[name])
        except OrchestraError:
            continue
        return name
    return "exact"


def _gap(direct: list[tuple[str, xr.Dataset]]) -> float:
    """Return the gap within the sector: exact if there, else DMRG's (an upper bound)."""
    gaps = {name: float(d["gap"]) for name, d in direct if "gap" in d}
    if "exact" in gaps:
        return 0.0 if float(dict(direct)["exact"]["degeneracy"]) > 1 else gaps["exact"]
    return min(gaps.values(), default=np.nan)


def _with_alf(model: Model, **settings: object) -> Model:
    alf = model.numerics.alf
    changed = type(alf).model_validate(alf.model_dump(mode="python", exclude_unset=True) | settings)
    return model.model_copy(update={"numerics": model.numerics.model_copy(update={"alf": changed})})


def _first_line(error: OrchestraError) -> str:
    return str(error).splitlines()[0]
