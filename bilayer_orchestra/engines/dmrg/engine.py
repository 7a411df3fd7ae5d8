"""What the DMRG engines share: ground states, sweeps, truncation as the error that is left."""

from __future__ import annotations

from pathlib import Path

from bilayer_orchestra.averages import Averages
from bilayer_orchestra.engine_side.files import OUTPUT, load_arrays
from bilayer_orchestra.engines.base import Engine, Request
from bilayer_orchestra.engines.dmrg.progress import Sweeps
from bilayer_orchestra.engines.dmrg.results import averages_from_stages, unit_of
from bilayer_orchestra.engines.dmrg.settings import DMRGNumerics

#: Bond dimensions of the first runs of a search.
CHEAP_BOND, FIRST_CHEAP_BOND = 60, 30


class DMRGEngine(Engine):
    """An engine whose process leaves stages of growing bond dimension in ``output.npz``."""

    ensembles = ("canonical",)
    stochastic = False
    systematics = ("truncation",)

    def __init__(self) -> None:
        self._sweeps = Sweeps()

    def cheaper(self, settings: DMRGNumerics, effort: float) -> DMRGNumerics | None:
        """Return a small bond dimension without proof; what it gets wrong, later runs put right."""
        if settings.max_bond_dimension <= CHEAP_BOND:
            return None
        return settings.model_copy(
            update={
                "max_bond_dimension": CHEAP_BOND,
                "initial_bond_dimension": min(settings.initial_bond_dimension, FIRST_CHEAP_BOND),
                "discarded_weight": max(settings.discarded_weight, 1e-9),
                "energy_accuracy": max(settings.energy_accuracy, 1e-3),
                "proof": False,
            }
        )

    def may_begin_from_state(self, settings: DMRGNumerics) -> bool:
        """Return whether the search proves its state."""
        return settings.proof

    def progress(self, directory: Path, request: Request) -> list[str]:
        """Return the new sweeps, or what comes before the first."""
        return self._sweeps.lines(directory, "first sweep", unit_of(request.terms))

    def parse(self, directory: Path, request: Request) -> Averages:
        """Read ``output.npz``."""
        output = load_arrays(directory / OUTPUT)
        return averages_from_stages(output, request.terms, request.numerics)
