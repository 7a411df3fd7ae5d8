"""The engine process: ``python -m bilayer_orchestra.engines.exact.process JOB_DIRECTORY``."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from scipy.linalg import eigh
from scipy.special import logsumexp

from bilayer_orchestra.engine_side import files
from bilayer_orchestra.engines.exact.fock import Sector
from bilayer_orchestra.engines.exact.ground import ground_level
from bilayer_orchestra.engines.exact.measure import measure_density_matrix, measure_states
from bilayer_orchestra.terms import Canonical, FloatArray, GrandCanonical, Terms

#: States of a smaller share of their block cannot contribute in double precision.
SMALLEST_SHARE = 1e-18


def run(directory: Path) -> None:
    """Solve the job in ``directory``."""
    terms, _, settings = files.read_job(directory)
    say = partial(files.report, directory)
    if isinstance(terms.state, Canonical):
        sector = Sector(terms, terms.state.n_up, terms.state.n_down)
        level = ground_level(
            sector, settings["seed"], partial(say, dimension=sector.potential.size)
        )
        say(step="measure", energy=level.energy)
        names = ("gap", "residual", "splitting", "resolution")
        about = {"degeneracy": len(level.states)} | {name: getattr(level, name) for name in names}
        averages = measure_states(sector, level.states)
    else:
        averages, about = thermal_averages(terms, say), {}
    files.save_arrays(directory / files.OUTPUT, **averages, **about)


def thermal_averages(
    terms: Terms, report: Callable[..., None] = lambda **event: None
) -> dict[str, FloatArray]:
    """Return all raw averages of :mod:`measure` in the state exp(-beta (H - mu N)) / Z.

    Every (n_up, n_down) block is diagonalized in full. H does not distinguish the spins and there
    is no field, so the blocks (a, b) and (b, a) are mirror images: one is diagonalized, and the
    spin-resolved averages are symmetrized.

    Returns
    -------
    dict
        The averages, and ``log_partition`` = log Z.
    """
    assert isinstance(terms.state, GrandCanonical)
    beta, n = terms.state.beta, terms.n_sites
    blocks = [(a, b) for a in range(n + 1) for b in range(a + 1)]
    log_weights, measured = [], []
    for done, (n_up, n_down) in enumerate(blocks, 1):
        sector = Sector(terms, n_up, n_down)
        values, vectors = _spectrum(sector)
        boltzmann = np.exp(-beta * (values - values.min()))
        partition = boltzmann.sum()
        kept = boltzmann > SMALLEST_SHARE * partition
        weighted = vectors[:, kept] * np.sqrt(boltzmann[kept] / partition)
        measured.append(measure_density_matrix(sector, weighted @ weighted.T))
        images = 1 if n_up == n_down else 2
        log_weights.append(np.log(images * partition) - beta * values.min())
        report(step="block", done=done, total=len(blocks))
    log_partition = logsumexp(log_weights)
    weights = np.exp(log_weights - log_partition)
    averages = {
        name: np.tensordot(weights, [block[name] for block in measured], 1) for name in measured[0]
    }
    for name in ("density", "green"):  # half of them are those of the mirror images
        averages[name] = 0.5 * (averages[name] + averages[name][::-1])
    return averages | {"log_partition": np.array(log_partition)}


def _spectrum(sector: Sector) -> tuple[FloatArray, FloatArray]:
    """Return all levels, shape (D,), and states, shape (D, D), of one sector."""
    matrix, levels, states = sector.matrix(), [], []
    for basis in sector.exchange_bases():
        block = (basis.T @ matrix @ basis).toarray()
        values, vectors = eigh(block, overwrite_a=True, check_finite=False)
        levels.append(values)
        states.append(basis @ vectors)
    return np.concatenate(levels), np.hstack(states)


if __name__ == "__main__":
    files.solve_from_command_line("exact", run)
