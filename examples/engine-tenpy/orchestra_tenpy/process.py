"""The engine process: ``python -m orchestra_tenpy.process JOB_DIRECTORY``."""

from __future__ import annotations

import pickle
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from tenpy.algorithms.dmrg import TwoSiteDMRGEngine
from tenpy.algorithms.tebd import RandomUnitaryEvolution
from tenpy.models.lattice import Chain
from tenpy.models.model import MPOModel
from tenpy.networks.mpo import MPOGraph
from tenpy.networks.mps import MPS
from tenpy.networks.site import SpinHalfFermionSite
from tenpy.networks.terms import TermList

from bilayer_orchestra.engine_side.files import OUTPUT, read_job, report, save_arrays
from bilayer_orchestra.errors import EngineError, OrchestraError

#: Bond dimension of random states and the random steps that make them; that of the proof.
RANDOM_BOND_DIMENSION, RANDOM_STEPS, PROOF_BOND_DIMENSION = 20, 10, 100
#: Sweeps with TeNPy's mixer (its noise) at the beginning of a stage, and of the other two searches.
MIXED, MIXED_OTHERS = 2, 6
#: A stage is settled when a sweep changes correlators by less than this, or than a hundredth of the
#: root of the discarded weight; the other searches when it changes the energy by less than this.
SETTLED_CORRELATORS, SETTLED_ENERGY = 1e-7, 1e-10
#: Lanczos stops at this weight of other states of the local problem: with the mixer, in the other
#: searches, and at the tightest; in between at a thousandth of the discarded weight.
LOOSE, PROOF, TIGHT = 1e-8, 1e-11, 1e-20
#: A search that ends lower by this much, plus this many times the discarded weight, is right.
LOWER, LOWER_PER_WEIGHT = 1e-7, 10.0
MAX_ATTEMPTS = 3
Arrays = dict[str, Any]


class Search:
    """One job: H and its sector, the state, and the stages that are done."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.checkpoint = directory, directory / "checkpoint.pickle"
        self.terms, self.observables, self.settings = read_job(directory)
        self.sites = [SpinHalfFermionSite(cons_N="N", cons_Sz="Sz")] * self.terms.n_sites
        self.model = self.hamiltonian(0.0)
        large = [m for m in self.settings["stages"] if m >= PROOF_BOND_DIMENSION]
        self.proof_bond = min(large, default=self.settings["stages"][-1])
        self.attempt, self.stages, self.state = 0, [], self.random_state(0)
        if self.checkpoint.exists():  # written by this program, in the user's own directory
            kept = pickle.loads(self.checkpoint.read_bytes())  # noqa: S301
            self.attempt, self.stages, self.state = kept
            report(directory, step="resumed", sweep=sum(stage["sweeps"] for stage in self.stages))

    def keep(self) -> None:
        """Leave a checkpoint, complete or not at all."""
        temporary = self.checkpoint.with_suffix(".tmp")
        temporary.write_bytes(pickle.dumps((self.attempt, self.stages, self.state)))
        temporary.replace(self.checkpoint)

    def hamiltonian(self, constant: float) -> MPOModel:
        """Return H - mu N + constant; TeNPy adds the Jordan-Wigner strings."""
        one_body = self.terms.one_body - np.diag(self.terms.chemical_potential)
        found: list[tuple[list[tuple[str, int]], float]] = [([("Id", 0)], constant)]
        for i, j in np.argwhere(one_body).tolist():
            for create, remove in (("Cdu", "Cu"), ("Cdd", "Cd")):
                found.append(([(create, i), (remove, j)], one_body[i, j]))
        for i in np.flatnonzero(self.terms.interaction).tolist():
            found.append(([("NuNd", i)], self.terms.interaction[i]))
        terms = TermList([term for term, _ in found], [value for _, value in found])
        width = {"unit_cell_width": len(self.sites)}
        operator = MPOGraph.from_term_list(terms, self.sites, "finite", **width).build_MPO()
        return MPOModel(Chain(len(self.sites), self.sites[0], bc_MPS="finite"), operator)

    def random_state(self, stream: int) -> MPS:
        """Return a random state of the sector."""
        # TeNPy draws from numpy's global numbers
        np.random.seed((self.settings["seed"] * 1_000_003 + stream) % 2**32)
        up, down = (np.random.permutation(len(self.sites)) < n for n in self.terms.state)
        names = [("empty", "up", "down", "full")[k] for k in up + 2 * down]
        bond = min(RANDOM_BOND_DIMENSION, self.settings["stages"][0])
        state = MPS.from_product_state(self.sites, names, "finite", unit_cell_width=len(names))
        steps = {"N_steps": RANDOM_STEPS, "trunc_params": {"chi_max": bond}}
        RandomUnitaryEvolution(state, steps).run()
        return state

    def sweep(self, state: MPS, bond: int, mixer: float, accuracy: float, **others: Any) -> float:
        """Sweep there and back, in place; return the largest discarded weight."""
        vectors = self.settings["lanczos_vectors"]
        options = {
            "max_sweeps": 0,  # TeNPy stops once it has made more
            "mixer": bool(mixer),
            "mixer_params": {"amplitude": mixer or 1e-5, "decay": 1.0, "disable_after": None},
            "trunc_params": {"chi_max": bond, "svd_min": 1e-11},
            "lanczos_params": {"N_max": vectors, "P_tol": LOOSE if mixer else accuracy},
            "P_tol_to_trunc": None,
            "max_trunc_err": None,
        }
        engine = TwoSiteDMRGEngine(state, others.pop("model", self.model), options, **others)
        if not np.isfinite(engine.run()[0]):
            raise EngineError("the energy became NaN or infinite")
        return float(engine.sweep_stats["max_trunc_err"][-1])

    def energy(self, state: MPS) -> float:
        """Return <H - mu N>."""
        return float(np.real(self.model.H_MPO.expectation_value(state)))

    def measure(self, state: MPS, everything: bool = False) -> Arrays:
        """Return operator averages; Delta+_i Delta_j = c+_{i,up} c+_{i,dn} c_{j,dn} c_{j,up}."""
        words = {"pair": ("Cdu Cdd", "Cd Cu"), "up": ("Cdu", "Cu"), "down": ("Cdd", "Cd")}
        if everything:
            words |= {"density_product": ("Ntot", "Ntot"), "spin_spin": ("Sz", "Sz")}
        found = {name: np.real(state.correlation_function(*two)) for name, two in words.items()}
        found["green"] = np.stack([found.pop("up"), found.pop("down")])
        entropy = {"entanglement_entropy": np.array(state.entanglement_entropy())}
        return found | {"double_occupancy": found["pair"].diagonal()} | entropy

    def climb(self) -> None:
        """Optimize the state at one bond dimension after the other; measure at each."""
        settings, weight, total = self.settings, 1.0, 0
        for stage, bond in enumerate(settings["stages"]):
            if stage < len(self.stages):
                continue
            if stage >= 2 and self.accurate():  # one stage does not tell what truncation does
                return
            drift, now = np.inf, self.measure(self.state)
            for number in range(settings["max_sweeps_per_stage"]):
                mixer = settings["noise"] * 0.1**stage if number < MIXED else 0.0
                before, started, total = now, time.monotonic(), total + 1
                limit = min(PROOF, max(TIGHT, 1e-3 * weight))
                weight = self.sweep(self.state, bond, mixer, limit)
                energy, now = self.energy(self.state), self.measure(self.state)
                seconds, about = time.monotonic() - started, {"bond": bond, "energy": energy}
                about |= {"discarded_weight": weight, "seconds": seconds}
                report(self.directory, step="sweep", sweep=total, **about)
                change = _difference(now, before)
                if number > MIXED and change < max(SETTLED_CORRELATORS, 0.01 * weight**0.5):
                    drift = change
                    break
            variance = float(self.hamiltonian(-energy).H_MPO.variance(self.state, 0.0))
            report(self.directory, step="stage", bond=bond, variance=variance)
            about = {"bond_dimension": bond, "discarded_weight": weight, "sweeps": total}
            about |= {"energy_with_mu": energy, "energy_variance": variance, "drift": drift}
            self.stages.append(about | self.measure(self.state, bool(self.observables)))
            self.keep()

    def accurate(self) -> bool:
        """Return whether the last stage is as accurate as was asked for."""
        last, wished = self.stages[-1], self.settings
        return any(last[name] <= wished[name] for name in ("discarded_weight", "energy_variance"))

    def relax(self, stream: int, name: str, **others: Any) -> MPS:
        """Return what a random state becomes at the bond dimension of the proof."""
        state, energy = self.random_state(stream), np.inf
        for number in range(self.settings["max_sweeps_per_stage"]):
            mixer = self.settings["noise"] * 0.1 ** (number // 2) if number < MIXED_OTHERS else 0.0
            self.sweep(state, self.proof_bond, mixer, PROOF, **others)
            before, energy = energy, self.energy(state)
            report(self.directory, step=name, sweep=number, energy=energy)
            if mixer == 0 and abs(energy - before) < SETTLED_ENERGY * max(1.0, abs(energy)):
                break
        return state

    def proof(self, reference: Arrays) -> tuple[Arrays, MPS | None]:
        """Return a second start's energy and correlators, the next state's energy, and what lies
        below the state, if anything does.
        """  # noqa: D205
        if not self.settings["proof"]:
            names = ("second_energy", "second_deviation", "orthogonal_energy")
            return dict.fromkeys(names, np.nan), None
        stream, terms = 100 * (self.attempt + 1), self.terms
        second = self.relax(stream, "second start")
        # TeNPy leaves what it projects out at zero energy: H has to lie below
        bound = 2 * (np.abs(terms.one_body).sum() + np.abs(terms.chemical_potential).sum())
        shifted = self.hamiltonian(-float(bound + np.abs(terms.interaction).sum()))
        other = self.relax(stream + 1, "next state", model=shifted, orthogonal_to=[self.state])
        found = {"second_energy": self.energy(second), "orthogonal_energy": self.energy(other)}
        below = min((second, other), key=self.energy)
        last = self.stages[-1]
        margin = LOWER + LOWER_PER_WEIGHT * last["discarded_weight"]
        wrong = self.energy(below) < last["energy_with_mu"] - margin
        deviation = _difference(self.measure(second), reference)
        return found | {"second_deviation": deviation}, below if wrong else None


def run(directory: Path) -> None:
    """Solve the job in ``directory``."""
    search = Search(directory)
    while search.attempt < MAX_ATTEMPTS:
        search.climb()
        stages = search.stages
        large = [stage for stage in stages if stage["bond_dimension"] >= search.proof_bond]
        reference = (large or stages[-1:])[0]
        proof, below = search.proof(reference)
        if below is None:
            arrays = {name: np.stack([stage[name] for stage in stages]) for name in reference}
            bond = reference["bond_dimension"]
            return save_arrays(directory / OUTPUT, proof_bond_dimension=bond, **proof, **arrays)
        search.attempt, search.stages, search.state = search.attempt + 1, [], below
        search.keep()
    raise EngineError(f"{MAX_ATTEMPTS} searches in a row ended in different states")


def _difference(now: Arrays, before: Arrays) -> float:
    return max(float(np.abs(now[name] - before[name]).max()) for name in ("pair", "green"))


if __name__ == "__main__":
    try:
        run(Path(sys.argv[1]))
    except (OrchestraError, MemoryError) as error:
        sys.exit(f"tenpy: {error or 'out of memory'}")
