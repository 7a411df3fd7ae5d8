"""The engine process: ``python -m bilayer_orchestra.engines.block2.process JOB_DIRECTORY``.

Three parts, each from the previous one's result:

1. ground state: the bond dimension doubles from stage to stage; each stage starts with noisy
   sweeps and ends with noise-free ones, after which everything is measured;
2. second start: another random state at small bond dimension must arrive at the same energy and
   correlators;
3. orthogonal state: the lowest state orthogonal to the result gives the gap. If it lies lower,
   the result was not the ground state and the search continues from it.

After every sweep of part 1 the state is checkpointed. Every sweep has its own random seed, so a
resumed run makes the same numbers as an uninterrupted one (up to the summation order of threads).
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from bilayer_orchestra.engine_side.files import (
    OUTPUT,
    START,
    load_arrays,
    read_job,
    report,
    save_arrays,
)
from bilayer_orchestra.engines.block2.hamiltonian import (
    hamiltonian,
    largest_move,
    squared_deviation,
    symmetry_of,
)
from bilayer_orchestra.engines.block2.measure import measure
from bilayer_orchestra.engines.block2.state import (
    checkpoint_problem,
    load_checkpoint,
    save_checkpoint,
)
from bilayer_orchestra.errors import EngineError, OrchestraError
from bilayer_orchestra.terms import Canonical

#: Bond dimension at which the proof (second start, orthogonal state) is made.
PROOF_BOND_DIMENSION = 100
#: Noisy sweeps per stage and the factor by which each stage's noise is below the one before.
NOISY_SWEEPS, NOISE_DECAY = 2, 0.1
#: A stage is settled when a noise-free sweep changes the energy, relative, by less than this or
#: than the discarded weight, and a pair of sweeps the correlators by less than this or a hundredth
#: of the weight's root: finer changes drown in the truncation. A pair, since truncation leaves
#: different states on the way there and on the way back, however many sweeps are made.
SETTLED, SETTLED_CORRELATORS = 1e-11, 1e-7
#: Davidson threshold (square of the residual) of noisy sweeps, of the proof, and the tightest one.
LOOSE, PROOF, TIGHT = 1e-8, 1e-11, 1e-20
#: Davidson iterations per bond: what they leave undone, the next sweep does with better blocks.
DAVIDSON_ITERATIONS = 60
#: States with less weight than this are dropped at any bond dimension.
CUTOFF = 1e-22
#: A start that ends lower than the result by this much, plus this many times the discarded weight
#: (truncated states scatter), proves the result wrong.
LOWER, LOWER_PER_WEIGHT = 1e-7, 10.0
MAX_ATTEMPTS = 3
#: A next state with a larger share of the ground state paid the penalty rather than leaving it.
MAX_SHARE = 0.1
CHECKPOINT = "checkpoint"


def reserve(memory: int) -> None:
    """Say how many bytes block2 reserves, and raise EngineError if they are not to be had.

    block2 itself would crash without a word, then or once they are used up.
    """
    place = f"{memory / 2**30:.3g} GiB of working memory (numerics.block2.stack_memory_gib)"
    sys.stderr.write(f"block2 has {place} and crashes where it needs more\n")
    sys.stderr.flush()
    try:
        np.empty(memory, np.uint8)
    except MemoryError as error:
        raise EngineError(f"this machine does not give {place}; take less") from error


class Search:
    """One DMRG job: the driver, H and what does not change between the parts."""

    def __init__(self, directory: Path) -> None:
        # imported here so that the thread environment is set before the library loads
        from pyblock2.driver.core import DMRGDriver, SymmetryTypes

        self.directory = directory
        self.terms, self.observables, self.settings = read_job(directory)
        assert isinstance(self.terms.state, Canonical)
        n_up, n_down = self.terms.state
        self.symmetry = symmetry_of(self.terms)
        scratch = directory / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)  # left by a killed run
        memory = int(self.settings["stack_memory_gib"] * 2**30)
        reserve(memory)
        self.driver = DMRGDriver(
            scratch=str(scratch),
            symm_type=getattr(SymmetryTypes, self.symmetry),
            n_threads=int(os.environ["OMP_NUM_THREADS"]),
            stack_mem=memory,
        )
        self.driver.initialize_system(
            n_sites=self.terms.n_sites, n_elec=n_up + n_down, spin=n_up - n_down
        )
        self.mpo = hamiltonian(self.driver, self.terms, self.symmetry)
        self.stages: list[int] = self.settings["stages"]
        self.sector = [self.symmetry, self.terms.n_sites, n_up, n_down]

    def seed(self, stream: int) -> None:
        """Set block2's random numbers; every sweep and start has its own stream."""
        self.driver.bw.b.Random.rand_seed((self.settings["seed"] * 1_000_003 + stream) % 2**31)

    def sweep(
        self, state: Any, bond: int, noise: float, threshold: float, **projection: Any
    ) -> tuple[float, float]:
        """Do one sweep in place; return (energy, largest discarded weight)."""
        energy = self.driver.dmrg(
            self.mpo,
            state,
            n_sweeps=1,
            tol=0.0,
            bond_dims=[bond],
            noises=[noise],
            thrds=[LOOSE if noise else threshold],
            dav_max_iter=DAVIDSON_ITERATIONS,
            cutoff=CUTOFF,
            iprint=0,
            **projection,
        )
        if not math.isfinite(energy):
            raise EngineError("the energy became NaN or infinite")
        return float(energy), float(self.driver.get_dmrg_results()[1][-1])

    def random_state(self, tag: str, stream: int) -> Any:
        """Return a random state; its bond dimension is grown by the first sweeps."""
        self.seed(stream)
        return self.driver.get_random_mps(tag=tag, bond_dim=min(self.stages[0], 50), nroots=1)

    def first_state(self) -> tuple[Any, int]:
        """Return the state that another run left for this one, or else a random state.

        And the sweep at which the first stage begins: noise would undo what the state is good for.
        """
        place = self.directory / START
        if place.exists():
            problem = checkpoint_problem(place, self.sector)
            if problem is None:
                state, _, _ = load_checkpoint(self.driver, "SAVED", "KET", place)
                report(self.directory, step="begun")
                return state, NOISY_SWEEPS
            report(self.directory, step="ignored", problem=problem)
        return self.random_state("KET", 0), 0

    def relax(self, state: Any, stream: int, name: str, **projection: Any) -> float:
        """Optimize ``state`` at the proof's bond dimension until settled; return its energy."""
        previous = math.inf
        for number in range(self.settings["max_sweeps_per_stage"]):
            noise = self.settings["noise"] * NOISE_DECAY ** (number // 2) if number < 6 else 0.0
            self.seed(stream + number)
            energy, _ = self.sweep(state, self.proof_bond, noise, PROOF, **projection)
            report(self.directory, step=name, sweep=number, energy=energy, bond=self.proof_bond)
            if noise == 0 and abs(energy - previous) < 1e-9 * max(1.0, abs(energy)):
                break
            previous = energy
        return energy

    @property
    def proof_bond(self) -> int:
        """First stage's bond dimension that is large enough for the proof, or the last one."""
        return next((m for m in self.stages if m >= PROOF_BOND_DIMENSION), self.stages[-1])


def fresh_record(search: Search, attempt: int) -> dict[str, Any]:
    """Return the record of a search that has not swept yet."""
    return {
        "sector": search.sector,
        "attempt": attempt,
        "stage": 0,
        "sweep": 0,
        "total": 0,
        "energy": math.inf,
        "weight": 1.0,
    }


def find_ground_state(search: Search) -> tuple[Any, int]:
    """Part 1, from the checkpoint if there is one; returns the state and the attempt's number.

    Stage results go to ``stage-<attempt>-<k>.npz``.
    """
    settings, checkpoint = search.settings, search.directory / CHECKPOINT
    before: dict[str, Any]
    problem = checkpoint_problem(checkpoint, search.sector)
    if problem is None:
        state, record, before = load_checkpoint(search.driver, "SAVED", "KET", checkpoint)
        report(search.directory, step="resumed", sweep=record["total"])
    else:
        if checkpoint.exists():
            report(search.directory, step="discarded", problem=problem)
        state, sweep = search.first_state()
        record, before = fresh_record(search, 0) | {"sweep": sweep}, {}
    attempt = record["attempt"]
    while True:
        stage = record["stage"]
        bond = search.stages[stage]
        clean = record["sweep"] - NOISY_SWEEPS + 1  # noise-free sweeps of this stage, with this one
        noise = settings["noise"] * NOISE_DECAY**stage if clean <= 0 else 0.0
        # the local problem need not be solved better than the truncation that follows
        threshold = min(PROOF, max(TIGHT, 1e-3 * record["weight"]))
        search.seed(1 + record["total"])
        started = time.monotonic()
        energy, weight = search.sweep(state, bond, noise, threshold)
        report(
            search.directory,
            step="sweep",
            sweep=record["total"] + 1,
            energy=energy,
            bond=bond,
            discarded_weight=weight,
            noise=noise,
            seconds=time.monotonic() - started,
        )
        change = abs(energy - record["energy"]) / max(1.0, abs(energy))
        drift = math.inf
        last = record["sweep"] + 1 >= settings["max_sweeps_per_stage"]
        if clean >= 2 and ((clean % 2 == 0 and change < max(SETTLED, weight)) or last):
            now = measure(search.driver, state, search.symmetry, ())
            drift, before = _difference(now, before), now
        settled = drift < max(SETTLED_CORRELATORS, 0.01 * math.sqrt(weight))
        record |= {
            "sweep": record["sweep"] + 1,
            "total": record["total"] + 1,
            "energy": energy,
            "weight": weight,
        }
        if settled:  # what the ways there and back differ by is an error of truncation
            search.seed(1 + record["total"])
            energy, weight = search.sweep(state, bond, 0.0, threshold)
            drift = max(
                drift, _difference(measure(search.driver, state, search.symmetry, ()), before)
            )
            record |= {"total": record["total"] + 1, "energy": energy, "weight": weight}
        if settled or last:
            variance = _measure_stage(
                search, state, attempt, stage, weight, drift if settled else math.inf
            )
            small = weight <= settings["discarded_weight"]
            small = small or variance <= settings["energy_variance"]
            # two stages at least, or the truncation error could not be estimated
            enough = small and stage >= 1
            if enough or stage + 1 == len(search.stages):
                return state, attempt
            record |= {"stage": stage + 1, "sweep": 0}
            before = {}
        save_checkpoint(search.driver, state, "SAVED", record, before, checkpoint)


def _difference(now: dict[str, Any], before: dict[str, Any]) -> float:
    """Return the largest change of the pair and density matrices (infinite without a before)."""
    return max(
        (float(np.abs(now[name] - before[name]).max()) for name in ("pair", "green") if before),
        default=math.inf,
    )


def _measure_stage(
    search: Search, state: Any, attempt: int, stage: int, weight: float, drift: float
) -> float:
    """Measure everything, store it, return the energy variance."""
    raw = measure(search.driver, state, search.symmetry, search.observables)
    energy = float(search.driver.expectation(state, search.mpo, state))
    deviation = squared_deviation(search.driver, search.terms, search.symmetry, energy)
    variance = float(search.driver.expectation(state, deviation, state))
    report(search.directory, step="stage", bond=search.stages[stage], variance=variance)
    save_arrays(
        search.directory / f"stage-{attempt}-{stage}.npz",
        bond_dimension=search.stages[stage],
        discarded_weight=weight,
        energy_with_mu=energy,
        energy_variance=variance,
        drift=drift,
        **raw,
    )
    return variance


def second_start(
    search: Search, attempt: int, reference: dict[str, Any]
) -> tuple[Any, dict[str, float]]:
    """Part 2: a different random start must arrive at the same place."""
    state = search.random_state("SECOND", 100_000 * (attempt + 1))
    energy = search.relax(state, 100_000 * (attempt + 1) + 1, "second start")
    raw = measure(search.driver, state, search.symmetry, ())
    return state, {"second_energy": energy, "second_deviation": _difference(raw, reference)}


def orthogonal_state(search: Search, attempt: int, ground: Any) -> tuple[Any, dict[str, float]]:
    """Part 3: the lowest state orthogonal to ``ground``, and its energy without any penalty.

    Where leaving the ground state costs more than the penalty, the penalty would be called a gap:
    then it is raised. A small share p of the ground state that is left is taken off the energy.
    """
    driver, terms = search.driver, search.terms
    assert isinstance(terms.state, Canonical)
    if math.prod(math.comb(terms.n_sites, n) for n in terms.state) == 1:
        return ground, {"orthogonal_energy": math.inf}
    stream = 100_000 * (attempt + 1) + 50_000
    identity = driver.get_identity_mpo()
    lift = largest_move(terms)
    for _ in range(MAX_ATTEMPTS):
        state = search.random_state("ORTHOGONAL", stream)
        search.relax(state, stream + 1, "next state", proj_mpss=[ground], proj_weights=[lift])
        share = float(driver.expectation(ground, identity, state)) ** 2
        if share < MAX_SHARE:
            energy, below = (
                float(driver.expectation(one, search.mpo, one)) for one in (state, ground)
            )
            return state, {"orthogonal_energy": (energy - share * below) / (1 - share)}
        lift *= 10
    raise EngineError("no state was found that is orthogonal to the ground state")


def run(directory: Path) -> None:
    """Solve the job in ``directory``."""
    search = Search(directory)
    while True:
        ground, attempt = find_ground_state(search)
        stages = _stages(directory, attempt)
        reference = next(
            (s for s in stages if s["bond_dimension"] >= search.proof_bond), stages[-1]
        )
        if not search.settings["proof"]:
            proof = dict.fromkeys(
                ("second_energy", "second_deviation", "orthogonal_energy"), math.nan
            )
            break
        weight = float(stages[-1]["discarded_weight"])
        wrong_above = float(stages[-1]["energy_with_mu"]) - LOWER - LOWER_PER_WEIGHT * weight
        other, proof = second_start(search, attempt, reference)
        if proof["second_energy"] >= wrong_above:
            other, gap = orthogonal_state(search, attempt, ground)
            proof |= gap
            if gap["orthogonal_energy"] >= wrong_above:
                break
        if attempt == MAX_ATTEMPTS - 1:
            raise EngineError(f"{MAX_ATTEMPTS} searches in a row ended in different states")
        # continue from the lower state; through the checkpoint, so that a kill forgets nothing
        checkpoint = directory / CHECKPOINT
        save_checkpoint(
            search.driver, other, "SAVED", fresh_record(search, attempt + 1), {}, checkpoint
        )
    names = stages[0].keys()
    stacked = {name: np.stack([stage[name] for stage in stages]) for name in names}
    save_arrays(
        directory / OUTPUT, proof_bond_dimension=reference["bond_dimension"], **proof, **stacked
    )
    shutil.rmtree(directory / "scratch", ignore_errors=True)


def _stages(directory: Path, attempt: int) -> list[dict[str, Any]]:
    files = sorted(
        directory.glob(f"stage-{attempt}-*.npz"), key=lambda file: int(file.stem.split("-")[2])
    )
    return [load_arrays(file) for file in files]


if __name__ == "__main__":
    try:
        run(Path(sys.argv[1]))
    except (OrchestraError, MemoryError) as error:
        sys.exit(f"block2: {error or 'out of memory'}")
