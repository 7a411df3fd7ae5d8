"""Terms as block2's operators, and averages of its states in the project's convention.

Conversions are made here and nowhere else (checked against exact diagonalization in the tests): in
U(1)xU(1) mode c, d are the spin-up and C, D the spin-down creation and annihilation operators. In
SU(2) mode C, D are spinors; (C+D)_0 = (1/sqrt 2) sum_s c+_s d_s, hence the factor sqrt 2 in front
of one-body terms.

Only two-index slices of the two-body density matrix are measured (``mask`` repeats indices), never
the full O(N^4) object.
"""

from typing import Any

import numpy as np

from bilayer_orchestra.terms import Canonical, FloatArray, Terms


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
    hop, factor, onsite = ["cd", "CD"], 1.0, "cCDd"
    if symmetry == "SU2":
        hop, factor, onsite = ["(C+D)0"], np.sqrt(2), "((C+(C+D)0)1+D)0"
    one_body = terms.one_body - np.diag(terms.chemical_potential)
    result = [
        (expression, [i, j], float(factor * one_body[i, j]))
        for i, j in np.argwhere(one_body).tolist()
        for expression in hop
    ]
    sites = np.flatnonzero(terms.interaction).tolist()
    return result + [(onsite, [i] * 4, float(terms.interaction[i])) for i in sites]


def largest_move(terms: Terms) -> float:
    """Return the most that moving one electron can cost, and so about the largest gap there is.

    The difference of two levels, the interaction on both sites, and the hopping around them.
    """
    levels = terms.one_body.diagonal() - terms.chemical_potential
    hopping = np.abs(terms.hopping).sum(axis=1)
    return float(np.ptp(levels) + 2 * np.abs(terms.interaction).max() + 4 * hopping.max())


def hamiltonian(driver: Any, terms: Terms, symmetry: str) -> Any:
    """Return H as an MPO of ``driver``.

    Parameters
    ----------
    driver
        block2's.
    terms : Terms
        The model.
    symmetry : str
        See :func:`symmetry_of`.
    """
    builder = driver.expr_builder()
    for term in operator_terms(terms, symmetry):
        builder.add_term(*term)
    return driver.get_mpo(builder.finalize(), iprint=0)


def squared_deviation(driver: Any, terms: Terms, symmetry: str, energy: float) -> Any:
    """Return (H - energy)^2 as an MPO.

    Written out as products of terms; its bond dimension stays near 40 on the ladder. Subtracting
    the energy first avoids the cancellation of <H^2> - <H>^2.

    Parameters
    ----------
    driver, terms, symmetry
        See :func:`hamiltonian`.
    energy : float
        <H>.
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


def measure(
    driver: Any, state: Any, symmetry: str, observables: tuple[str, ...]
) -> dict[str, FloatArray]:
    """Return the operator averages that :func:`observables_from_raw` understands.

    ``pair`` is always measured: its diagonal is the double occupancy.

    Parameters
    ----------
    driver, state
        block2's.
    symmetry : str
        See :func:`symmetry_of`.
    observables : tuple of str
        What is wished for; without any, only what tells two states apart.
    """
    products = not {"density_density", "spin_spin"}.isdisjoint(observables)
    raw = (_measure_su2 if symmetry == "SU2" else _measure_sz)(driver, state, products)
    if observables and symmetry == "SZ":  # in SU(2) mode block2 counts a multiplet as one state
        raw["entanglement_entropy"] = driver.get_bipartite_entanglement(state)
    return raw | {"double_occupancy": raw["pair"].diagonal().copy()}


def _slice(
    driver: Any, state: Any, expression: str, mask: tuple[int, ...] = (0, 0, 1, 1)
) -> FloatArray:
    matrices = driver.get_npdm(state, pdm_type=2, npdm_expr=expression, mask=mask, iprint=0)
    return np.asarray(matrices[0] if isinstance(matrices, list) else matrices, dtype=float)


def _measure_sz(driver: Any, state: Any, products: bool) -> dict[str, FloatArray]:
    raw = {
        "green": np.array(driver.get_1pdm(state, iprint=0), dtype=float),
        "pair": _slice(driver, state, "cCDd"),
    }
    if products:
        same = _slice(driver, state, "cdcd") + _slice(driver, state, "CDCD")
        cross = _slice(driver, state, "cdCD")
        raw["density_product"] = same + cross + cross.T
        raw["spin_spin"] = 0.25 * (same - cross - cross.T)
    return raw


def _measure_su2(driver: Any, state: Any, products: bool) -> dict[str, FloatArray]:
    one_body = 0.5 * np.asarray(driver.get_1pdm(state, iprint=0), dtype=float)
    raw = {
        "green": np.stack([one_body, one_body]),  # a singlet does not distinguish the spins
        # (C+C)_0 and (D+D)_0 are spin singlets: their product is -4 times Delta+_i Delta_j
        "pair": -0.25 * _slice(driver, state, "((C+C)0+(D+D)0)0"),
    }
    if products:
        density, double_occupancy = 2.0 * one_body.diagonal(), raw["pair"].diagonal()
        standard = "((C+(C+D)0)1+D)0"
        # sum_st <c+_is c+_jt c_jt c_is> = <n_i n_j> for i != j
        product = _slice(driver, state, standard, (0, 1, 1, 0))
        # sum_st <c+_is c+_jt c_it c_js> = -(<n_i n_j>/2 + 2 <S_i.S_j>) for i != j
        exchange = _slice(driver, state, standard, (0, 1, 0, 1))
        # in a singlet <S^z_i S^z_j> = <S_i.S_j> / 3
        spin = -(exchange + 0.5 * product) / 6.0
        np.fill_diagonal(product, density + 2.0 * double_occupancy)
        np.fill_diagonal(spin, 0.25 * (density - 2.0 * double_occupancy))
        raw |= {"density_product": product, "spin_spin": spin}
    return raw
