"""What symmetry says about a ground state: the only state of its level has all of H's.

Two searches that freeze in the same pattern agree with each other, and the next state that they
find may lie far above; their density gives them away.
"""

from __future__ import annotations

import numpy as np

from bilayer_orchestra.terms import FloatArray, Terms


def broken_symmetry(terms: Terms, density: FloatArray, allowed: FloatArray) -> float:
    """Return by how much the density breaks a symmetry of H that it should have, or zero.

    Looked at are the reflection x -> L - 1 - x, the translation x -> x + 1 of a ring, and isolated
    sites: they keep their electrons, and two of the same kind may be exchanged.

    Parameters
    ----------
    density, allowed : array, shape (2, N)
        <n_is>, and the size of its error: deviations within the errors of both sites are none.
    """
    worst = 0.0
    place = {site: k for k, site in enumerate(terms.sites)}
    along = ((-1, terms.length - 1), (1, 1)) if "x" in terms.dims else ()
    for sign, shift in along:
        moved = [site._replace(x=(sign * site.x + shift) % terms.length) for site in terms.sites]
        order = [place.get(site, -1) for site in moved]
        if -1 in order or not _invariant(terms, order):
            continue
        difference = np.abs(density - density[:, order])
        beyond = difference > allowed + allowed[:, order]
        worst = max(worst, float(difference[beyond].max(initial=0.0)))
    hopping = terms.one_body - np.diag(terms.one_body.diagonal())
    kinds: dict[tuple[float, float], list[int]] = {}
    for k in np.flatnonzero(~hopping.any(axis=1)).tolist():
        level = float(terms.one_body[k, k] - terms.chemical_potential[k])
        kinds.setdefault((level, float(terms.interaction[k])), []).append(k)
    for sites in kinds.values():
        found = density[:, sites]
        difference = np.abs(found - np.round(found.mean(axis=1, keepdims=True)))
        beyond = difference > allowed[:, sites]
        worst = max(worst, float(difference[beyond].max(initial=0.0)))
    return worst


def _invariant(terms: Terms, order: list[int]) -> bool:
    moved = terms.permuted(order)
    return all(
        np.array_equal(getattr(moved, name), getattr(terms, name))
        for name in ("one_body", "interaction", "chemical_potential")
    )
