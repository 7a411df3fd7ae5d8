"""The engine process: ``python -m bilayer_orchestra.engines.exact.process JOB_DIRECTORY``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bilayer_orchestra.engine_side.files import (
    OUTPUT,
    read_job,
    report,
    save_arrays,
    solve_from_command_line,
)
from bilayer_orchestra.engines.exact.fock import Sector
from bilayer_orchestra.engines.exact.ground import ground_level
from bilayer_orchestra.engines.exact.measure import measure_states
from bilayer_orchestra.engines.exact.thermal import thermal_averages
from bilayer_orchestra.terms import Canonical


def run(directory: Path) -> None:
    """Solve the job in ``directory``."""
    terms, _, settings = read_job(directory)
    if isinstance(terms.state, Canonical):
        sector = Sector(terms, terms.state.n_up, terms.state.n_down)
        dimension = int(np.prod(sector.shape))
        level = ground_level(
            sector,
            settings["seed"],
            lambda part, steps, energy: report(
                directory, step=part, dimension=dimension, steps=steps, energy=energy
            ),
        )
        report(directory, step="measure", energy=level.energy)
        averages = measure_states(sector, level.states)
        extra = {
            "gap": level.gap,
            "degeneracy": len(level.states),
            "residual": level.residual,
            "splitting": level.splitting,
            "resolution": level.resolution,
        }
    else:
        averages = thermal_averages(
            terms, lambda done, total: report(directory, step="block", done=done, total=total)
        )
        extra = {}
    save_arrays(directory / OUTPUT, **averages, **extra)


if __name__ == "__main__":
    solve_from_command_line("exact", run)
