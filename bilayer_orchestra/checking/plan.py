"""Which engines solve what for a check, and which results are then compared with which.

For a ground state: every ground-state engine, AFQMC as projector, and the grand-canonical ladder to
T -> 0. For a thermal state: every thermal engine. Results are reused by content, as always.
"""

import itertools
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from bilayer_orchestra.checking.comparison import NEIGHBOURS, Pair
from bilayer_orchestra.checking.ladder import (
    Ladder,
    limit_terms,
    plan_ladder,
    projection_term,
    projection_time,
)
from bilayer_orchestra.checking.sectors import place_potentials, solve_sectors, with_beta
from bilayer_orchestra.checking.verdict import Verdict, judge_all
from bilayer_orchestra.dataset.reading import flat, need_chains, yaml_data
from bilayer_orchestra.engines.base import Engine
from bilayer_orchestra.engines.registry import engines, get_engine
from bilayer_orchestra.errors import OrchestraError, OtherVersionError
from bilayer_orchestra.model.spec import CanonicalState, Model, parse_model
from bilayer_orchestra.running.point import Runner, checked_request, make_request
from bilayer_orchestra.runtimes.local import LocalRuntime
from bilayer_orchestra.tuning.point import run_model

#: What an engine that cannot say takes for a sector of a small system, in seconds. Which engine
#: solves a sector decides whether stored ones are found: exact does up to 400 000 states.
SECTOR_SECONDS = 21.0


@dataclass
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
        See :class:`bilayer_orchestra.running.point.Runner`.
    """

    model: Model
    names: list[str]
    root: Path
    show: Callable[[str], None]
    distance: int = NEIGHBOURS
    any_version: bool | None = None

    def __post_init__(self) -> None:
        need_chains(self.model.sites[0]._fields, "checks")
        self.engines = [get_engine(name) for name in self.names]
        self.verdict = Verdict(self.model.name, self.model)
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
        if self.model.wished is None or not self.engines:
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
        runner = Runner(self.root, self.runtime, self.show, any_version=self.any_version)
        return run_model(model, engine, runner).dataset

    def _keep(self, model: Model, engine: Engine, label: str, more: str = "") -> xr.Dataset:
        """Solve one model of those that are compared."""
        result = self._solve(model, engine, label + more)
        self.verdict.results[label] = result
        return result

    def _each(self, chosen: list[Engine]) -> dict[str, xr.Dataset]:
        return {engine.name: self._keep(self.model, engine, engine.name) for engine in chosen}

    def _ground(self) -> list[Pair]:
        projecting = [engine for engine in self.engines if projects(engine, self.model)]
        others = [engine for engine in self.engines if engine not in projecting]
        direct = self._each([engine for engine in others if "canonical" in engine.ensembles])
        projected = [self._projector(engine, direct) for engine in projecting if direct]
        return [*_all_pairs(direct), *itertools.chain(*projected), *self._ladder(direct)]

    def _projector(self, engine: Engine, direct: dict[str, xr.Dataset]) -> list[Pair]:
        """Solve at T = 0, projected for as long as the gap of the sector asks for."""
        label, model, gap = f"{engine.name} projector", self.model, _gap(direct)
        theta = projection_time(model, engine, gap)
        if theta is None:
            self._note(
                f"{label}: not run; the next state of the sector lies {gap:.2g} above, and no "
                "affordable projection time removes it"
            )
            return []
        settings = engine.with_projection_time(model.settings(engine.name), theta)
        model = model.with_settings(engine.name, settings)
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
        able = [engine for engine in self.engines if "thermal" in engine.ensembles]
        # what noise forbids at one temperature, it may allow at another
        able = [one for one in able if one.stochastic or not _refusal(one, thermal)]
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
            self.verdict.ladder = Ladder(out_of_reach=str(error).splitlines()[0])
            return []
        samplers = [e for e in engines().values() if e.stochastic and "thermal" in e.ensembles]
        alone = able[0] if all(engine.stochastic for engine in able) else None
        ladder = self.verdict.ladder = plan_ladder(self.model, placement, samplers, alone)
        for line in ladder.describe():
            self.show(line)
        solved = self.verdict.thermal
        for engine in able if ladder.rungs else []:
            try:
                solved[engine.name] = {
                    rung.beta: self._keep(rung.model, engine, f"{engine.name} beta={rung.beta:g}")
                    for rung in ladder.rungs[1 if engine.stochastic else 0 :]
                }
            except OrchestraError as error:
                if not engine.stochastic or isinstance(error, OtherVersionError):
                    raise
                self._note(f"{engine.name}: {error}")
        noisy = {engine.name for engine in able if engine.stochastic}
        pairs = [
            Pair(sampled, solved[other][beta], (f"{name} beta={beta:g}", f"{other} beta={beta:g}"))
            for name, other in itertools.product(solved, solved)
            if name in noisy and other not in noisy
            for beta, sampled in solved[name].items()
        ]
        for name, by_beta in solved.items():
            coldest, extra = by_beta[max(by_beta)], limit_terms(by_beta, placement, sectors)
            pairs += [
                Pair(coldest, ground, (f"{name} T->0", other), "limit", extra)
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
    found = sorted(engines().values(), key=lambda one: (one.stochastic, bool(one.systematics)))
    refused = {engine.name: _refusal(engine, model) for engine in found}
    without = [f"without {name}: {why.splitlines()[0]}" for name, why in refused.items() if why]
    return [name for name, why in refused.items() if not why], without


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
        if why_not := _incomparable(pair.first, pair.second):
            raise OrchestraError(f"{' and '.join(pair.labels)} cannot be compared: {why_not}")
    return Verdict(name, None, judge_all(pairs, distance=distance), results=results)


def _incomparable(a: xr.Dataset, b: xr.Dataset) -> str:
    """Return why two results must not be compared, or "".

    They must be of the same Terms: sites, couplings, boundary, ensemble, particle numbers or beta.
    """
    if a.attrs["terms_hash"] == b.attrs["terms_hash"]:
        return ""
    if a.attrs["ensemble"] != b.attrs["ensemble"]:
        return (
            f"{a.attrs['backend']} is {a.attrs['ensemble']}, {b.attrs['backend']} is "
            f"{b.attrs['ensemble']}: only the limit T -> 0 of one could be compared with the other"
        )
    one, other = (flat(yaml_data(str(d.attrs.get("model", "")))) for d in (a, b))
    settings = ", ".join(
        f"{'.'.join(path)}: {one.get(path, 'none')} and {other.get(path, 'none')}"
        for path in one | other
        if path[0] not in ("numerics", "name", "observables") and one.get(path) != other.get(path)
    )
    unknown = "couplings, boundary, length, filling or temperature"
    return f"they solve different models ({settings or unknown})"


def _all_pairs(results: dict[str, xr.Dataset]) -> list[Pair]:
    return [
        Pair(results[one], results[other], (one, other))
        for one, other in itertools.combinations(results, 2)
    ]


def projects(engine: Engine, model: Model) -> bool:
    """Return whether the engine projects a trial state onto the ground state of ``model``."""
    ground = isinstance(model.state, CanonicalState)
    return ground and engine.projection_time(model.settings(engine.name)) is not None


def _refusal(engine: Engine, model: Model) -> str:
    """Return why an engine cannot solve a model here, or ""."""
    try:
        engine.version()
        if not projects(engine, model):  # its settings follow from the gap
            checked_request(model, engine)
    except OrchestraError as error:
        return str(error)
    return ""


def _sector_engine(model: Model) -> Engine:
    """Return the engine without noise that is fastest, as far as anybody can say."""

    def seconds(engine: Engine) -> float:
        said = engine.cost(make_request(model, engine)).seconds
        return SECTOR_SECONDS if said is None else said

    exact = [e for e in engines().values() if not e.stochastic and "canonical" in e.ensembles]
    able = [engine for engine in exact if not _refusal(engine, model)]
    if not able:
        raise OrchestraError("no engine here solves the neighbouring sectors")
    return min(able, key=seconds)


def _gap(direct: dict[str, xr.Dataset]) -> float:
    """Return the gap within the sector: that of an exact result, else DMRG's (an upper bound)."""
    known = [dataset for dataset in direct.values() if "gap" in dataset]
    for dataset in known:
        if "degeneracy" in dataset:
            return 0.0 if float(dataset["degeneracy"]) > 1 else float(dataset["gap"])
    return min((float(dataset["gap"]) for dataset in known), default=np.nan)
