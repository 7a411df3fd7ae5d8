"""O(N^2) measurements with block2, converted to the project's convention here and nowhere else.

Only two-index slices of the two-body density matrix are computed (``mask`` repeats indices), never
the full O(N^4) object.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bilayer_orchestra.terms import FloatArray


def measure(
    driver: Any, state: Any, symmetry: str, observables: tuple[str, ...]
) -> dict[str, FloatArray]:
    """Return the operator averages that :func:`observables_from_raw` understands.

    ``pair`` is always measured: its diagonal is the double occupancy.
    """
    return (_measure_su2 if symmetry == "SU2" else _measure_sz)(driver, state, observables)


def _slice(driver: Any, state: Any, expression: str, mask: tuple[int, ...]) -> FloatArray:
    matrices = driver.get_npdm(state, pdm_type=2, npdm_expr=expression, mask=mask, iprint=0)
    return np.asarray(matrices[0] if isinstance(matrices, list) else matrices, dtype=float)


def _measure_sz(driver: Any, state: Any, observables: tuple[str, ...]) -> dict[str, FloatArray]:
    pair = _slice(driver, state, "cCDd", (0, 0, 1, 1))
    raw = {
        "green": np.array(driver.get_1pdm(state, iprint=0), dtype=float),
        "pair": pair,
        "double_occupancy": pair.diagonal().copy(),
    }
    if {"density_density", "spin_spin"} & set(observables):
        same = sum(_slice(driver, state, e, (0, 0, 1, 1)) for e in ("cdcd", "CDCD"))
        cross = _slice(driver, state, "cdCD", (0, 0, 1, 1))
        raw["density_product"] = same + cross + cross.T
        raw["spin_spin"] = 0.25 * (same - cross - cross.T)
    if observables:
        # not in SU(2) mode, where block2 counts a multiplet as one state
        raw["entanglement_entropy"] = driver.get_bipartite_entanglement(state)
    return raw


def _measure_su2(driver: Any, state: Any, observables: tuple[str, ...]) -> dict[str, FloatArray]:
    # (C+C)_0 and (D+D)_0 are spin singlets: their product is -4 times Delta+_i Delta_j.
    pair = -0.25 * _slice(driver, state, "((C+C)0+(D+D)0)0", (0, 0, 1, 1))
    one_body = 0.5 * np.asarray(driver.get_1pdm(state, iprint=0), dtype=float)
    raw = {
        "green": np.stack([one_body, one_body]),  # a singlet does not distinguish the spins
        "pair": pair,
        "double_occupancy": pair.diagonal().copy(),
    }
    if {"density_density", "spin_spin"} & set(observables):
        density = 2.0 * one_body.diagonal()
        standard = "((C+(C+D)0)1+D)0"
        # sum_st <c+_is c+_jt c_jt c_is> = <n_i n_j> for i != j
        product = _slice(driver, state, standard, (0, 1, 1, 0))
        # sum_st <c+_is c+_jt c_it c_js> = -(<n_i n_j>/2 + 2 <S_i.S_j>) for i != j
        exchange = _slice(driver, state, standard, (0, 1, 0, 1))
        # in a singlet <S^z_i S^z_j> = <S_i.S_j> / 3
        spin = -(exchange + 0.5 * product) / 6.0
        np.fill_diagonal(product, density + 2.0 * raw["double_occupancy"])
        np.fill_diagonal(spin, 0.25 * (density - 2.0 * raw["double_occupancy"]))
        raw |= {"density_product": product, "spin_spin": spin}
    return raw
