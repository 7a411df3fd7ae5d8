"""The engine process: ``python -m bilayer_orchestra.engines.block2.process JOB_DIRECTORY``.

What it does is described in :mod:`bilayer_orchestra.engine_side.dmrg`. The bond dimension doubles
from stage to stage; each stage starts with noisy sweeps and ends with noise-free ones, after which
everything is measured. After every sweep the state is checkpointed. Every sweep has its own random
seed, so a resumed run makes the same numbers as an uninterrupted one (up to the summation order of
threads).
"""

import json
import math
import os
import shutil
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np

from bilayer_orchestra.engine_side import files
from bilayer_orchestra.engine_side.dmrg import MAX_ATTEMPTS, NOISE_DECAY, PROOF, Search, difference
from bilayer_orchestra.engines.block2 import operators
from bilayer_orchestra.errors import EngineError
from bilayer_orchestra.files import replacing
from bilayer_orchestra.terms import Canonical

#: Noisy sweeps per stage; each stage's noise is below that of the one before.
NOISY_SWEEPS = 2
#: A stage is settled when a noise-free sweep changes the energy, relative, by less than this or
#: than the discarded weight, and a pair of sweeps the correlators by less than the second or a
#: hundredth of the weight's root: finer changes drown in the truncation. A pair, since truncation
#: leaves different states on the way there and on the way back, however many sweeps are made.
SETTLED = 1e-11
SETTLED_CORRELATORS = 1e-7
#: Davidson threshold (square of the residual) of noisy sweeps, and the tightest one.
LOOSE = 1e-8
TIGHT = 1e-20
#: Davidson iterations per bond: what they leave undone, the next sweep does with better blocks.
DAVIDSON_ITERATIONS = 60
#: States with less weight than this are dropped at any bond dimension.
CUTOFF = 1e-22
#: Bond dimension of random states; the first sweeps make it grow.
RANDOM_BOND_DIMENSION = 50
#: A next state with a larger share of the ground state paid the penalty rather than leaving it.
MAX_SHARE = 0.1
#: The state and its :class:`Record`: a zip file, whose checksums tell whether it is whole.
CHECKPOINT, RECORD = "checkpoint.zip", "record.json"
#: What block2 calls the state in a checkpoint, and the one that is optimized.
TAG, KET = "SAVED", "KET"
#: block2's own files.
SCRATCH = "scratch"


@dataclass
class Record:
    """How far a search is, in its checkpoint: ``sweep`` counts in a stage, ``total`` in all.

    ``before`` are the pair and density matrices after the sweep before, if they were measured.
    """

    sector: list[Any]
    attempt: int = 0
    stage: int = 0
    sweep: int = 0
    total: int = 0
    energy: float = math.inf
    weight: float = 1.0
    before: dict[str, Any] = field(default_factory=dict)


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


class Block2Search(Search):
    """One job: block2's driver and H as an operator of it."""

    def __init__(self, directory: Path) -> None:
        # imported here so that the thread environment is set before the library loads
        from pyblock2.driver.core import DMRGDriver, SymmetryTypes

        super().__init__(directory)
        assert isinstance(self.terms.state, Canonical)
        n_up, n_down = self.terms.state
        self.symmetry = operators.symmetry_of(self.terms)
        self.sector: list[Any] = [self.symmetry, self.terms.n_sites, n_up, n_down]
        shutil.rmtree(directory / SCRATCH, ignore_errors=True)  # left by a killed run
        memory = int(self.settings["stack_memory_gib"] * 2**30)
        reserve(memory)
        self.driver = DMRGDriver(
            scratch=str(directory / SCRATCH),
            symm_type=getattr(SymmetryTypes, self.symmetry),
            n_threads=int(os.environ["OMP_NUM_THREADS"]),
            stack_mem=memory,
        )
        self.driver.initialize_system(
            n_sites=self.terms.n_sites, n_elec=n_up + n_down, spin=n_up - n_down
        )
        self.mpo = operators.hamiltonian(self.driver, self.terms, self.symmetry)

    def seed(self, stream: int) -> None:
        """Set block2's random numbers; every sweep and start has its own stream."""
        self.driver.bw.b.Random.rand_seed((self.settings["seed"] * 1_000_003 + stream) % 2**31)

    def random_state(self, stream: int) -> Any:
        """Return a random state."""
        self.seed(stream)
        bond = min(self.bonds[0], RANDOM_BOND_DIMENSION)
        tag = f"START{stream}" if stream else KET
        return self.driver.get_random_mps(tag=tag, bond_dim=bond, nroots=1)

    def sweep(
        self, state: Any, bond: int, noise: float, accuracy: float, stream: int, **projection: Any
    ) -> tuple[float, float]:
        """Do one sweep, see :meth:`Search.sweep`; ``accuracy`` is Davidson's threshold."""
        self.seed(stream)
        energy = self.driver.dmrg(
            self.mpo,
            state,
            n_sweeps=1,
            tol=0.0,
            bond_dims=[bond],
            noises=[noise],
            thrds=[LOOSE if noise else accuracy],
            dav_max_iter=DAVIDSON_ITERATIONS,
            cutoff=CUTOFF,
            iprint=0,
            **projection,
        )
        if not math.isfinite(energy):
            raise EngineError("the energy became NaN or infinite")
        return float(energy), float(self.driver.get_dmrg_results()[1][-1])

    def measure(self, state: Any, observables: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return operator averages."""
        return operators.measure(self.driver, state, self.symmetry, observables)

    def climb(self) -> list[dict[str, Any]]:
        """Optimize the state at one bond dimension after the other; measure at each.

        What is measured goes to ``stage-<attempt>-<k>.npz``.
        """
        settings = self.settings
        record = self._begin()
        while True:
            bond = self.bonds[record.stage]
            clean = record.sweep - NOISY_SWEEPS + 1  # noise-free sweeps of this stage, with this
            noise = settings["noise"] * NOISE_DECAY**record.stage if clean <= 0 else 0.0
            # the local problem need not be solved better than the truncation that follows
            threshold = min(PROOF, max(TIGHT, 1e-3 * record.weight))
            started = time.monotonic()
            energy, weight = self.sweep(self.state, bond, noise, threshold, 1 + record.total)
            self.report(
                step="sweep",
                sweep=record.total + 1,
                energy=energy,
                bond=bond,
                discarded_weight=weight,
                noise=noise,
                seconds=time.monotonic() - started,
            )
            change = abs(energy - record.energy) / max(1.0, abs(energy))
            record.sweep, record.total = record.sweep + 1, record.total + 1
            drift, last = math.inf, record.sweep >= settings["max_sweeps_per_stage"]
            if clean >= 2 and ((clean % 2 == 0 and change < max(SETTLED, weight)) or last):
                now = self.measure(self.state)
                drift, record.before = difference(now, record.before), now
            settled = drift < max(SETTLED_CORRELATORS, 0.01 * math.sqrt(weight))
            if settled:  # what the ways there and back differ by is an error of truncation
                energy, weight = self.sweep(self.state, bond, 0.0, threshold, 1 + record.total)
                drift = max(drift, difference(self.measure(self.state), record.before))
                record.total += 1
            record.energy, record.weight = energy, weight
            if settled or last:
                variance = self._measure_stage(record, drift if settled else math.inf)
                small = weight <= settings["discarded_weight"]
                small = small or variance <= settings["energy_variance"]
                # two stages at least, or the truncation error could not be estimated
                if (small and record.stage >= 1) or record.stage + 1 == len(self.bonds):
                    stages = range(record.stage + 1)
                    return [files.load_arrays(self._stage_file(k)) for k in stages]
                record.stage, record.sweep, record.before = record.stage + 1, 0, {}
            self._keep(self.state, record)

    def _begin(self) -> Record:
        """Set the state: from the checkpoint, from the state of another run, or at random."""
        for name, unused in ((CHECKPOINT, "discarded"), (files.START, "ignored")):
            if not (self.directory / name).exists():
                continue
            try:
                record = self._load(self.directory / name)
            except EngineError as error:
                self.report(step=unused, problem=str(error))
                continue
            if name == files.START:
                self.report(step="begun")
                # noise would undo what the state is good for
                return Record(self.sector, sweep=NOISY_SWEEPS)
            self.attempt = record.attempt
            self.report(step="resumed", sweep=record.total)
            return record
        self.state = self.random_state(0)
        return Record(self.sector)

    def _load(self, place: Path) -> Record:
        """Take the state of a checkpoint, and return how far it is.

        block2 may crash on a damaged file, so none is given to it whose checksum is wrong.

        Raises
        ------
        EngineError
            If that is not possible, with the reason.
        """
        try:
            with ZipFile(place) as archive:
                record = Record(**json.loads(archive.read(RECORD)))
                if record.sector != self.sector:
                    raise EngineError("it belongs to another symmetry, length or electron number")
                if archive.testzip() is not None:
                    raise EngineError("it is damaged")
                archive.extractall(self.driver.scratch)
        except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
            raise EngineError("it is incomplete, or of another version") from error
        self.state = self.driver.copy_mps(self.driver.load_mps(TAG), KET)
        return record

    def _keep(self, state: Any, record: Record) -> None:
        """Replace the checkpoint by rename."""
        self.driver.copy_mps(state, TAG)
        with replacing(self.directory / CHECKPOINT) as fresh, ZipFile(fresh, "w") as archive:
            archive.writestr(RECORD, json.dumps(asdict(record), default=np.ndarray.tolist))
            for file in Path(self.driver.scratch).glob(f"*{TAG}*"):
                archive.write(file, file.name)
                file.unlink()

    def _stage_file(self, stage: int) -> Path:
        return self.directory / f"stage-{self.attempt}-{stage}.npz"

    def _measure_stage(self, record: Record, drift: float) -> float:
        """Measure everything, store it, return the energy variance."""
        bond, raw = self.bonds[record.stage], self.measure(self.state, self.observables)
        energy = float(self.driver.expectation(self.state, self.mpo, self.state))
        deviation = operators.squared_deviation(self.driver, self.terms, self.symmetry, energy)
        variance = float(self.driver.expectation(self.state, deviation, self.state))
        self.report(step="stage", bond=bond, variance=variance)
        files.save_arrays(
            self._stage_file(record.stage),
            bond_dimension=bond,
            discarded_weight=record.weight,
            energy_with_mu=energy,
            energy_variance=variance,
            drift=drift,
            **raw,
        )
        return variance

    def next_state(self, stream: int) -> tuple[Any, float]:
        """Return the lowest state orthogonal to the result, and its energy without any penalty.

        Where leaving the ground state costs more than the penalty, the penalty would be called a
        gap: then it is raised. A small share p of the ground state that is left is taken off the
        energy.
        """
        driver, ground = self.driver, self.state
        if math.prod(math.comb(self.terms.n_sites, n) for n in self.sector[2:]) == 1:
            return ground, math.inf
        identity = driver.get_identity_mpo()
        lift = operators.largest_move(self.terms)
        for _ in range(MAX_ATTEMPTS):
            state = self.random_state(stream)
            self.relax(state, stream + 1, "next state", proj_mpss=[ground], proj_weights=[lift])
            share = float(driver.expectation(ground, identity, state)) ** 2
            if share < MAX_SHARE:
                energy, below = (
                    float(driver.expectation(one, self.mpo, one)) for one in (state, ground)
                )
                return state, (energy - share * below) / (1 - share)
            lift *= 10
        raise EngineError("no state was found that is orthogonal to the ground state")

    def begin_again(self, state: Any) -> None:
        """Leave a checkpoint of another attempt, from which :meth:`climb` goes on."""
        self._keep(state, Record(self.sector, self.attempt + 1))


def run(directory: Path) -> None:
    """Solve the job in ``directory``."""
    Block2Search(directory).run()
    shutil.rmtree(directory / SCRATCH, ignore_errors=True)


if __name__ == "__main__":
    files.solve_from_command_line("block2", run)
