"""Independent random seeds for every Markov chain."""

from __future__ import annotations

import numpy as np

#: ALF reads signed 32-bit integers and takes 0 as "none given".
LARGEST = 2**31 - 1


def chain_seeds(seed: int, steps: int, chains: int, ranks: int) -> list[list[list[int]]]:
    """Return distinct seeds, indexed [time step][chain][MPI rank].

    A chain keeps its seed when chains or time steps are added.
    """
    used: set[int] = set()
    table: list[list[list[int]]] = []
    for step in range(steps):
        rows = []
        for chain in range(chains):
            generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(step, chain)))
            row: list[int] = []
            while len(row) < ranks:
                value = int(generator.integers(1, LARGEST, endpoint=True))
                if value not in used:
                    used.add(value)
                    row.append(value)
            rows.append(row)
        table.append(rows)
    return table
