"""Cheaper settings for the first runs of a search, which only have to come near."""

from __future__ import annotations

from bilayer_orchestra.backends.dmrg_numerics import DMRGNumerics
from bilayer_orchestra.model.bilayer import BilayerModel

#: Bond dimensions of the first runs.
BOND, FIRST_BOND = 60, 30


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
        }
    )
    everything = model.numerics.model_copy(update={backend: cheap})
    return model.model_copy(update={"numerics": everything, "observables": ("density",)})
