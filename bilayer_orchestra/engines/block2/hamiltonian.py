"""Terms as block2 matrix-product operators: H, and (H - E)^2 for the variance.

Conventions of block2 (checked against exact diagonalization in the tests): in U(1)xU(1) mode c, d
are the spin-up and C, D the spin-down creation and annihilation operators. In SU(2) mode C, D are
spinors; (C+D)_0 = (1/sqrt 2) sum_s c+_s d_s, hence the factor sqrt 2 in front of one-body terms.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bilayer_orchestra.terms import Canonical, Terms

#: Reserved by block2 for symbols of operators; large enough for thousands of terms.
_ALGEBRA = {"SU2": "su2", "SZ": "sz"}


def symmetry_of(terms: Terms) -> str:
    """Return ``"SU2"`` where the ground state is known to be a singlet, else ``"SZ"``.

    For n_up = n_dn and U_i <= 0 on every site a ground state with S = 0 exists (Lieb, PRL 62,
    1201 (1989)). With repulsion it may have higher spin, and a singlet calculation would silently
    return an excited state; then only n_up and n_dn are conserved.
    """
    assert isinstance(terms.state, Canonical)
    balanced = terms.state.n_up == terms.state.n_down
    return "SU2" if balanced and bool((terms.interaction <= 0).all()) else "SZ"


def operator_terms(terms: Terms, symmetry: str) -> list[tuple[str, list[int], float]]:
    """Return H (with -mu N) as (expression, site indices, coefficient)."""
    one_body = terms.one_body - np.diag(terms.chemical_potential)
    result: list[tuple[str, list[int], float]] = []
    for i, j in zip(*(k.tolist() for k in np.nonzero(one_body)), strict=True):
        if symmetry == "SU2":
            result.append(("(C+D)0", [i, j], float(np.sqrt(2) * one_body[i, j])))
        else:
            result.append(("cd", [i, j], float(one_body[i, j])))
            result.append(("CD", [i, j], float(one_body[i, j])))
    for i in np.flatnonzero(terms.interaction).tolist():
        expression = "((C+(C+D)0)1+D)0" if symmetry == "SU2" else "cCDd"
        result.append((expression, [i] * 4, float(terms.interaction[i])))
    return result


def largest_move(terms: Terms) -> float:
    """Return the most that moving one electron can cost, and so about the largest gap there is.

    The difference of two levels, the interaction on both sites, and the hopping around them.
    """
    levels = terms.one_body.diagonal() - terms.chemical_potential
    hopping = np.abs(terms.one_body - np.diag(terms.one_body.diagonal())).sum(axis=1)
    bound = np.ptp(levels) + 2 * np.abs(terms.interaction).max() + 4 * hopping.max()
    return float(bound)


def hamiltonian(driver: Any, terms: Terms, symmetry: str) -> Any:
    """Return H as an MPO of ``driver``."""
    builder = driver.expr_builder()
    for expression, sites, value in operator_terms(terms, symmetry):
        builder.add_term(expression, sites, value)
    return driver.get_mpo(builder.finalize(), iprint=0)


def squared_deviation(driver: Any, terms: Terms, symmetry: str, energy: float) -> Any:
    """Return (H - energy)^2 as an MPO.

    Written out as products of terms; its bond dimension stays near 40 on the ladder. Subtracting
    the energy first avoids the cancellation of <H^2> - <H>^2.
    """
    factors = operator_terms(terms, symmetry)
    builder = driver.expr_builder()
    for left, left_sites, left_value in factors:
        builder.add_term(left, left_sites, -2.0 * energy * left_value)
        for right, right_sites, right_value in factors:
            product = f"({left}+{right})0" if symmetry == "SU2" else left + right
            builder.add_term(product, left_sites + right_sites, left_value * right_value)
    builder.add_const(energy**2)
    return driver.get_mpo(builder.finalize(), iprint=0)
