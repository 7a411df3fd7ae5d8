"""What the processes of DMRG engines in Python share: from a search to a state that is proven.

Three parts, each from the previous one's result:

1. ground state: :meth:`Search.climb`, which every engine has for itself;
2. second start: another random state at small bond dimension must arrive at the same energy and
   correlators;
3. next state: the lowest state orthogonal to the result gives the gap.

If a start ends lower, the result was not the ground state and the search begins again from there.
"""

import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from bilayer_orchestra.engine_side.files import OUTPUT, read_job, report, save_arrays
from bilayer_orchestra.errors import EngineError

Arrays = dict[str, Any]

#: Bond dimension at which the proof (second start, next state) is made.
PROOF_BOND_DIMENSION = 100
#: Accuracy of the local solver in the proof: weight of other states, or square of the residual.
PROOF = 1e-11
#: Noisy sweeps of a start of the proof, and the factor by which noise decreases every second sweep.
NOISY_SWEEPS_OF_PROOF = 6
NOISE_DECAY = 0.1
#: A start of the proof is settled when a sweep changes its energy, relative, by less than this.
SETTLED_ENERGY = 1e-9
#: A start that ends lower than the result by this much, plus this many times the discarded weight
#: (truncated states scatter), proves the result wrong.
LOWER = 1e-7
LOWER_PER_WEIGHT = 10.0
MAX_ATTEMPTS = 3


class Search(ABC):
    """One job of a DMRG engine.

    Attributes
    ----------
    bonds : list of int
        Bond dimension of every stage.
    attempt : int
        How often another start ended lower; every attempt has random numbers of its own.
    state
        What is optimized; of the engine's own kind.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.terms, self.observables, self.settings = read_job(directory)
        self.bonds: list[int] = self.settings["stages"]
        self.proof_bond = next((m for m in self.bonds if m >= PROOF_BOND_DIMENSION), self.bonds[-1])
        self.attempt = 0
        self.state: Any = None

    @abstractmethod
    def climb(self) -> list[Arrays]:
        """Optimize the state, from the checkpoint if there is one.

        Returns
        -------
        list of dict
            What was measured at every bond dimension: see
            :func:`bilayer_orchestra.engines.dmrg.results.averages_from_stages`.
        """

    @abstractmethod
    def random_state(self, stream: int) -> Any:
        """Return a random state of the sector, another one for every ``stream``."""

    @abstractmethod
    def sweep(
        self, state: Any, bond: int, noise: float, accuracy: float, stream: int, **projection: Any
    ) -> tuple[float, float]:
        """Optimize ``state`` once along the chain, in place.

        Parameters
        ----------
        state
            What is optimized.
        bond : int
            Largest bond dimension.
        noise : float
            Admixture of other states, against local minima.
        accuracy : float
            Of the local solver, in its own measure.
        stream : int
            Number of the random numbers.
        projection
            What keeps it orthogonal to another state; of the engine's own kind.

        Returns
        -------
        energy, discarded_weight : float
            <H - mu N>, and the largest weight that was discarded at a bond.
        """

    @abstractmethod
    def measure(self, state: Any) -> Arrays:
        """Return ``pair`` (N, N) and ``green`` (2, N, N), and what comes with them."""

    @abstractmethod
    def next_state(self, stream: int) -> tuple[Any, float]:
        """Return the lowest state orthogonal to the result, and its energy."""

    @abstractmethod
    def begin_again(self, state: Any) -> None:
        """Make ``state`` the beginning of another attempt, so that a kill forgets nothing."""

    def relax(self, state: Any, stream: int, name: str, **projection: Any) -> float:
        """Optimize ``state`` at the bond dimension of the proof until settled; return its energy.

        Parameters
        ----------
        state
            What is optimized, in place.
        stream : int
            Number of the random numbers of the first sweep; the others have the following.
        name : str
            What it is called in the progress.
        projection
            See :meth:`sweep`.
        """
        energy = math.inf
        for number in range(self.settings["max_sweeps_per_stage"]):
            noisy = number < NOISY_SWEEPS_OF_PROOF
            noise = self.settings["noise"] * NOISE_DECAY ** (number // 2) if noisy else 0.0
            before = energy
            energy, _ = self.sweep(
                state, self.proof_bond, noise, PROOF, stream + number, **projection
            )
            self.report(step=name, sweep=number, energy=energy, bond=self.proof_bond)
            if noise == 0 and abs(energy - before) < SETTLED_ENERGY * max(1.0, abs(energy)):
                break
        return energy

    def run(self) -> None:
        """Solve the job: leave ``output.npz``."""
        while True:
            stages = self.climb()
            reference = next(
                (stage for stage in stages if stage["bond_dimension"] >= self.proof_bond),
                stages[-1],
            )
            proof, lower = self._prove(stages[-1], reference)
            if lower is None:
                break
            if self.attempt == MAX_ATTEMPTS - 1:
                raise EngineError(f"{MAX_ATTEMPTS} searches in a row ended in different states")
            self.begin_again(lower)
        arrays = {name: np.stack([stage[name] for stage in stages]) for name in stages[0]}
        bond = reference["bond_dimension"]
        save_arrays(self.directory / OUTPUT, proof_bond_dimension=bond, **proof, **arrays)

    def report(self, **event: Any) -> None:
        """Append one progress event."""
        report(self.directory, **event)

    def _prove(self, last: Arrays, reference: Arrays) -> tuple[dict[str, float], Any]:
        """Return what the other starts found, and the one that lies below the result, or None."""
        names = ("second_energy", "second_deviation", "orthogonal_energy")
        if not self.settings["proof"]:
            return dict.fromkeys(names, math.nan), None
        margin = LOWER + LOWER_PER_WEIGHT * float(last["discarded_weight"])
        lower = float(last["energy_with_mu"]) - margin
        stream = 100_000 * (self.attempt + 1)
        second = self.random_state(stream)
        energy = self.relax(second, stream + 1, "second start")
        if energy < lower:
            return {}, second
        deviation = difference(self.measure(second), reference)
        other, above = self.next_state(stream + 50_000)
        found = dict(zip(names, (energy, deviation, above), strict=True))
        return found, other if above < lower else None


def difference(now: Arrays, before: Arrays) -> float:
    """Return the largest change of the pair and density matrices (infinite without a before)."""
    return max(
        (float(np.abs(now[name] - before[name]).max()) for name in ("pair", "green") if before),
        default=math.inf,
    )
