"""Direct diagonalization of the repulsive Anderson lattice in the full Fock space.

Written from the Hamiltonian in the model's own words; nothing of the particle-hole map, of Terms
or of any backend is used. Up to two rungs (256 states) in a moment.
"""

from __future__ import annotations

import numpy as np

from tests.support.brute_force import FockSpace


def anderson_oracle(model) -> dict[str, np.ndarray]:
    """Return all observables of an Anderson model; sites ordered f0 c0 f1 c1 ..."""
    length, n_sites = model.length, 2 * model.length
    space = FockSpace(n_sites)
    c, n = space.c, space.n
    f_site, c_site = (lambda x: 2 * x), (lambda x: 2 * x + 1)
    f_layer, c_layer = model.layers.f, model.layers.c
    bonds = [(f_site(x), c_site(x), model.hybridization) for x in range(length)]
    for x in range(length if model.boundary == "periodic" and length > 1 else length - 1):
        following = (x + 1) % length
        bonds.append((f_site(x), f_site(following), f_layer.hopping))
        bonds.append((c_site(x), c_site(following), c_layer.hopping))
    kinetic = sum(
        -t * (c[i][s].T @ c[j][s] + c[j][s].T @ c[i][s]) for i, j, t in bonds for s in (0, 1)
    )
    u = [(f_layer, c_layer)[i % 2].interaction for i in range(n_sites)]
    h = [(f_layer, c_layer)[i % 2].field for i in range(n_sites)]
    sz = [0.5 * (n[i][0] - n[i][1]) for i in range(n_sites)]
    interaction = sum(u[i] * (n[i][0] @ n[i][1]) for i in range(n_sites))
    level = sum(-0.5 * u[i] * (n[i][0] + n[i][1]) for i in range(n_sites))
    field = sum(-h[i] * sz[i] for i in range(n_sites))
    full = kinetic + interaction + level + field
    extra = {}
    if hasattr(model.state, "beta"):
        values, vectors = np.linalg.eigh(full.toarray())
        weights = np.exp(-model.state.beta * (values - values[0]))
        extra["log_partition"] = np.log(weights.sum()) - model.state.beta * values[0]
        weights /= weights.sum()

        def mean(operator) -> float:
            return float(np.sum(weights * np.sum(vectors * (operator @ vectors), axis=0)))
    else:
        counts = [sum(n[i][s] for i in range(n_sites)).diagonal() for s in (0, 1)]
        wanted = (counts[0] == model.state.n_up) & (counts[1] == model.state.n_down)
        sector = np.flatnonzero(wanted)
        values, vectors = np.linalg.eigh(full.tocsr()[sector][:, sector].toarray())
        assert values[1] - values[0] > 1e-8, "degenerate: no oracle"
        state = np.zeros(full.shape[0])
        state[sector] = vectors[:, 0]

        def mean(operator) -> float:
            return float(state @ (operator @ state))

    def matrix(left, right):
        return np.array([[mean(a @ b) for b in right] for a in left])

    raising = [c[i][0].T @ c[i][1] for i in range(n_sites)]
    total = [a + b for a, b in n]
    density = np.array([[mean(n[i][s]) for i in range(n_sites)] for s in (0, 1)])
    sums = density.sum(axis=0)
    return extra | {
        "energy": mean(kinetic + interaction),
        "kinetic_energy": mean(kinetic),
        "interaction_energy": mean(interaction),
        "level_energy": mean(level),
        "field_energy": mean(field),
        "total_energy": mean(full),
        "density": density,
        "magnetization": np.array([mean(one) for one in sz]),
        "double_occupancy": np.array([mean(a @ b) for a, b in n]),
        "spin_flip": matrix(raising, [one.T for one in raising]),
        "green": np.array(
            [
                matrix([c[i][s].T for i in range(n_sites)], [c[j][s] for j in range(n_sites)])
                for s in (0, 1)
            ]
        ),
        "density_density": matrix(total, total) - np.outer(sums, sums),
        "spin_spin": matrix(sz, sz),
    }
