"""Cheaper settings for the first runs of a search, which only have to come near."""

from __future__ import annotations

from bilayer_orchestra.engines.dmrg.settings import DMRGNumerics
from bilayer_orchestra.model.bilayer import BilayerModel

#: Bond dimensions of the first runs.
BOND, FIRST_BOND = 60, 30
#: Shortest Monte Carlo runs: below, starting and warming up costs more than sampling.
LEAST_SWEEPS, LEAST_SECONDS = 200, 3.0


def cheap_ground(model: BilayerModel, backend: str) -> BilayerModel | None:
    """Return the model with a cheap DMRG that measures densities only; None if nothing is gained.

    What it gets wrong is put right by the accurate runs that follow.
    """
    numerics = getattr(model.numerics, backend)
    if not isinstance(numerics, DMRGNumerics) or numerics.max_bond_dimension <= BOND:
        return None
    cheap = numerics.model_copy(
        update={
            "max_bond_dimension": BOND,
            "initial_bond_dimension": min(numerics.initial_bond_dimension, FIRST_BOND),
            "discarded_weight": max(numerics.discarded_weight, 1e-9),
            "energy_accuracy": max(numerics.energy_accuracy, 1e-3),
            "proof": False,
        }
    )
    everything = model.numerics.model_copy(update={backend: cheap})
    return model.model_copy(update={"numerics": everything, "observables": ("density",)})


def cheap_sampling(model: BilayerModel, effort: float) -> BilayerModel:
    """Return the model with Monte Carlo of ``effort`` times the wished length, densities only.

    The time steps stay: their error moves the densities, and with them the chemical potentials.
    """
    numerics = model.numerics.alf
    update: dict[str, object] = {"target_stderr": {}, "pair_susceptibility": False}
    if numerics.sweeps is not None:
        update["sweeps"] = max(LEAST_SWEEPS, round(effort * numerics.sweeps))
    budget = numerics.effective_budget
    if budget is not None:
        update["time_budget"] = max(LEAST_SECONDS, round(effort * budget, 1))
    everything = model.numerics.model_copy(update={"alf": numerics.model_copy(update=update)})
    return model.model_copy(
        update={"numerics": everything, "observables": ("density", "density_density")}
    )
