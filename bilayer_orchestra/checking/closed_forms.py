"""Averages in closed form where the Hamiltonian falls apart into solvable pieces.

Sites that no hopping connects are independent in a thermal state. A connected piece without any
interaction is a free Fermi gas (Wick's theorem); a single site has four states. This covers U = 0
(one piece, all free) and t_perp = 0 (isolated P sites and a free M chain), at any temperature, and
the free ground state with fixed particle numbers. Nothing here shares code with an engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

from bilayer_orchestra.terms import Canonical, FloatArray, GrandCanonical, Terms

#: Levels at the Fermi surface closer than this leave the ground state undetermined.
OPEN_SHELL = 1e-9


def pieces(terms: Terms) -> list[list[int]]:
    """Return the sites of every connected piece of the hopping matrix."""
    count, piece = connected_components(terms.one_body != 0)
    return [np.flatnonzero(piece == k).tolist() for k in range(count)]


def no_closed_form(terms: Terms) -> str | None:
    """Return why there is no closed form, or None."""
    free = not np.any(terms.interaction)
    if isinstance(terms.state, Canonical):
        if not free:
            return "U is not zero (fixed particle numbers couple even disconnected sites)"
        levels = np.linalg.eigvalsh(terms.one_body - np.diag(terms.chemical_potential))
        for number in terms.state:
            if 0 < number < len(levels) and levels[number] - levels[number - 1] < OPEN_SHELL:
                return "U = 0, but the Fermi level is degenerate: the ground state is not unique"
        return None
    for piece in pieces(terms):
        if len(piece) > 1 and np.any(terms.interaction[piece]):
            return "neither U = 0 nor t_perp = 0: interacting sites are connected"
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
    green = np.zeros((2, n, n))
    if isinstance(state, Canonical):
        everywhere = list(range(n))
        green[0] = _free(terms, everywhere, lambda levels: np.arange(n) < state.n_up)
        green[1] = _free(terms, everywhere, lambda levels: np.arange(n) < state.n_down)
    else:
        for piece in pieces(terms):
            if not np.any(terms.interaction[piece]):
                block = np.ix_(piece, piece)
                green[:, block[0], block[1]] = _free(
                    terms, piece, lambda levels: expit(-state.beta * levels)
                )
    up, down = green
    one = np.eye(n)
    doubly = np.diagonal(up) * np.diagonal(down)
    pair = up * down
    same = up * (one - up.T) + down * (one - down.T)
    polarization = (np.diagonal(up) - np.diagonal(down)) / 2
    density_density, spin_spin = same, same / 4 + np.outer(polarization, polarization)
    for piece in pieces(terms):
        (site, *others) = piece
        if others or terms.interaction[site] == 0:
            continue
        assert isinstance(terms.state, GrandCanonical)
        single, double = _atom(
            terms.state.beta,
            terms.chemical_potential[site] - terms.one_body[site, site],
            terms.interaction[site],
        )
        green[:, site, site] = single
        doubly[site] = pair[site, site] = double
        density_density[site, site] = 2 * single + 2 * double - (2 * single) ** 2
        spin_spin[site, site] = (single - double) / 2
    kinetic = float(np.sum(terms.one_body * green.sum(axis=0)))
    interaction = float(np.sum(terms.interaction * doubly))
    return {
        "energy": np.array(kinetic + interaction),
        "kinetic_energy": np.array(kinetic),
        "interaction_energy": np.array(interaction),
        "density": np.stack([np.diagonal(g) for g in green]),
        "double_occupancy": doubly,
        "pair": pair,
        "green": green,
        "density_density": density_density,
        "spin_spin": spin_spin,
    }


def _free(
    terms: Terms, sites: list[int], occupation: Callable[[FloatArray], NDArray[Any]]
) -> FloatArray:
    """Return the density matrix of one spin where ``sites`` have no interaction.

    Parameters
    ----------
    terms : Terms
        The model.
    sites : list of int
        What no hopping connects to the others.
    occupation : callable
        Energies of the levels, in rising order, shape (n,) -> how far they are occupied.
    """
    block = terms.one_body[np.ix_(sites, sites)] - np.diag(terms.chemical_potential[sites])
    levels, orbitals = np.linalg.eigh(block)
    return np.asarray((orbitals * occupation(levels)) @ orbitals.T)


def _atom(beta: float, mu: float, interaction: float) -> tuple[float, float]:
    """Return <n_s> and <n_up n_dn> of a site with states 0, up, down and both."""
    exponents = [0.0, beta * mu, beta * mu, beta * (2 * mu - interaction)]
    largest = max(exponents)
    empty, up, _, both = (math.exp(e - largest) for e in exponents)
    partition = empty + 2 * up + both
    return (up + both) / partition, both / partition
