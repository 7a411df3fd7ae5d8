"""Averages in closed form where the Hamiltonian falls apart into solvable pieces.

Sites that no hopping connects are independent in a thermal state. A connected piece without any
interaction is a free Fermi gas (Wick's theorem); a single site has four states. This covers U = 0
(one piece, all free) and isolated sites beside free pieces (pairs that no hopping connects to a
metal), at any temperature, and the free ground state with fixed particle numbers. Nothing here
shares code with an engine.
"""

import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.special import expit, softmax

from bilayer_orchestra.terms import Canonical, FloatArray, Terms

#: Levels at the Fermi surface closer than this leave the ground state undetermined.
OPEN_SHELL = 1e-9


def pieces(terms: Terms) -> list[list[int]]:
    """Return the sites of every connected piece of the hopping matrix."""
    count, piece = connected_components(terms.one_body != 0)
    return [np.flatnonzero(piece == k).tolist() for k in range(count)]


def no_closed_form(terms: Terms) -> str | None:
    """Return why there is no closed form, or None."""
    if isinstance(terms.state, Canonical):
        if np.any(terms.interaction):
            return "U is not zero (fixed particle numbers couple even disconnected sites)"
        levels = np.linalg.eigvalsh(terms.one_body - np.diag(terms.chemical_potential))
        for number in terms.state:
            if 0 < number < len(levels) and levels[number] - levels[number - 1] < OPEN_SHELL:
                return "U = 0, but the Fermi level is degenerate: the ground state is not unique"
    elif any(len(piece) > 1 and np.any(terms.interaction[piece]) for piece in pieces(terms)):
        return "U is not zero, and interacting sites are connected to others"
    return None


def averages(terms: Terms) -> dict[str, FloatArray]:
    """Return all observables in site order, as :class:`Averages` has them.

    Raises
    ------
    ValueError
        If there is no closed form.
    """
    if no_closed_form(terms):
        raise ValueError(no_closed_form(terms))
    n, state = terms.n_sites, terms.state
    green, doubly = np.zeros((2, n, n)), np.zeros(n)
    for piece in [list(range(n))] if isinstance(state, Canonical) else pieces(terms):
        block = terms.one_body[np.ix_(piece, piece)] - np.diag(terms.chemical_potential[piece])
        if not np.any(terms.interaction[piece]):
            levels, orbitals = np.linalg.eigh(block)
            if isinstance(state, Canonical):
                occupied = np.arange(n) < np.array(state)[:, None]
            else:
                occupied = np.tile(expit(-state.beta * levels), (2, 1))
            matrices = (orbitals * occupied[:, None]) @ orbitals.T
            double = np.prod(np.diagonal(matrices, axis1=1, axis2=2), axis=0)
        else:  # one site with the states 0, up, down and both
            assert not isinstance(state, Canonical)
            both = 2 * block[0, 0] + terms.interaction[piece[0]]
            energies = np.array([0.0, block[0, 0], block[0, 0], both])
            _, single, _, double = softmax(-state.beta * energies)
            matrices = np.full((2, 1, 1), single + double)
        green[np.ix_((0, 1), piece, piece)], doubly[piece] = matrices, double
    density = np.array(np.diagonal(green, axis1=1, axis2=2))
    total, moment = density.sum(axis=0), (density[0] - density[1]) / 2
    # Wick between different sites; on a site what follows from density and double occupancy
    pair, density_density = green[0] * green[1], -np.sum(green * green.swapaxes(1, 2), axis=0)
    spin_spin = density_density / 4 + np.outer(moment, moment)
    np.fill_diagonal(pair, doubly)
    np.fill_diagonal(density_density, total + 2 * doubly - total**2)
    np.fill_diagonal(spin_spin, (total - 2 * doubly) / 4)
    kinetic = float(np.sum(terms.one_body * green.sum(axis=0)))
    interaction = float(np.sum(terms.interaction * doubly))
    return {
        "energy": np.array(kinetic + interaction),
        "kinetic_energy": np.array(kinetic),
        "interaction_energy": np.array(interaction),
        "density": density,
        "double_occupancy": doubly,
        "pair": pair,
        "green": green,
        "density_density": density_density,
        "spin_spin": spin_spin,
    }
