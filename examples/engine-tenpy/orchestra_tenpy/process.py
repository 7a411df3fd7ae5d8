"""The engine process: ``python -m orchestra_tenpy.process JOB_DIRECTORY``."""

from __future__ import annotations

import pickle
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

from bilayer_orchestra.engine_side.dmrg import NOISE_DECAY, PROOF, Arrays, Search, difference
from bilayer_orchestra.engine_side.files import solve_from_command_line
from bilayer_orchestra.errors import EngineError

#: Bond dimension of random states, and the random steps that make them.
RANDOM_BOND_DIMENSION = 20
RANDOM_STEPS = 10
#: Sweeps with TeNPy's mixer (its noise) at the beginning of a stage.
MIXED = 2
#: A stage is settled when a sweep changes correlators by less than this, or than a hundredth of the
#: root of the discarded weight.
SETTLED_CORRELATORS = 1e-7
#: Lanczos stops at this weight of other states of the local problem: with the mixer, and at the
#: tightest; in between at a thousandth of the discarded weight.
LOOSE = 1e-8
TIGHT = 1e-20


class TenpySearch(Search):
    """One job: H and its sector, the state, and the stages that are done."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.checkpoint = directory / "checkpoint.pickle"
        self.sites = [SpinHalfFermionSite(cons_N="N", cons_Sz="Sz")] * self.terms.n_sites
        self.model = self.hamiltonian(0.0)
        self.stages, self.state = [], self.random_state(0)
        if self.checkpoint.exists():  # written by this program, in the user's own directory
            kept = pickle.loads(self.checkpoint.read_bytes())  # noqa: S301
            self.attempt, self.stages, self.state = kept
            self.report(step="resumed", sweep=sum(stage["sweeps"] for stage in self.stages))

    def keep(self) -> None:
        """Leave a checkpoint, complete or not at all."""
        temporary = self.checkpoint.with_suffix(".tmp")
        temporary.write_bytes(pickle.dumps((self.attempt, self.stages, self.state)))
        temporary.replace(self.checkpoint)

    def begin_again(self, state: MPS) -> None:
        """Go on from a state that lies lower."""
        self.attempt, self.stages, self.state = self.attempt + 1, [], state
        self.keep()

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

    def sweep(
        self, state: MPS, bond: int, noise: float, accuracy: float, stream: int, **projection: Any
    ) -> tuple[float, float]:
        """Sweep there and back; there are no random numbers in it."""
        vectors = self.settings["lanczos_vectors"]
        options = {
            "max_sweeps": 0,  # TeNPy stops once it has made more
            "mixer": bool(noise),
            "mixer_params": {"amplitude": noise or 1e-5, "decay": 1.0, "disable_after": None},
            "trunc_params": {"chi_max": bond, "svd_min": 1e-11},
            "lanczos_params": {"N_max": vectors, "P_tol": LOOSE if noise else accuracy},
            "P_tol_to_trunc": None,
            "max_trunc_err": None,
        }
        model = projection.pop("model", self.model)
        engine = TwoSiteDMRGEngine(state, model, options, **projection)
        if not np.isfinite(engine.run()[0]):
            raise EngineError("the energy became NaN or infinite")
        return self.energy(state), float(engine.sweep_stats["max_trunc_err"][-1])

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

    def climb(self) -> list[Arrays]:
        """Optimize the state at one bond dimension after the other; measure at each."""
        settings, weight, total = self.settings, 1.0, 0
        for stage in range(len(self.stages), len(self.bonds)):
            if stage >= 2 and self.accurate():  # one stage does not tell what truncation does
                break
            bond, drift, now = self.bonds[stage], np.inf, self.measure(self.state)
            for number in range(settings["max_sweeps_per_stage"]):
                noise = settings["noise"] * NOISE_DECAY**stage if number < MIXED else 0.0
                before, started, total = now, time.monotonic(), total + 1
                limit = min(PROOF, max(TIGHT, 1e-3 * weight))
                energy, weight = self.sweep(self.state, bond, noise, limit, total)
                now, about = self.measure(self.state), {"bond": bond, "energy": energy}
                about |= {"discarded_weight": weight, "seconds": time.monotonic() - started}
                self.report(step="sweep", sweep=total, **about)
                change = difference(now, before)
                if number > MIXED and change < max(SETTLED_CORRELATORS, 0.01 * weight**0.5):
                    drift = change
                    break
            variance = float(self.hamiltonian(-energy).H_MPO.variance(self.state, 0.0))
            self.report(step="stage", bond=bond, variance=variance)
            about = {"bond_dimension": bond, "discarded_weight": weight, "sweeps": total}
            about |= {"energy_with_mu": energy, "energy_variance": variance, "drift": drift}
            self.stages.append(about | self.measure(self.state, bool(self.observables)))
            self.keep()
        return self.stages

    def accurate(self) -> bool:
        """Return whether the last stage is as accurate as was asked for."""
        last, wished = self.stages[-1], self.settings
        return any(last[name] <= wished[name] for name in ("discarded_weight", "energy_variance"))

    def next_state(self, stream: int) -> tuple[MPS, float]:
        """Return the lowest state orthogonal to the result, and its energy."""
        terms, state = self.terms, self.random_state(stream)
        # TeNPy leaves what it projects out at zero energy: H has to lie below
        bound = 2 * (np.abs(terms.one_body).sum() + np.abs(terms.chemical_potential).sum())
        shifted = self.hamiltonian(-float(bound + np.abs(terms.interaction).sum()))
        others = {"model": shifted, "orthogonal_to": [self.state]}
        return state, self.relax(state, stream + 1, "next state", **others)


if __name__ == "__main__":
    solve_from_command_line("tenpy", lambda directory: TenpySearch(directory).run())
