"""From ALF's averages to the project's convention: every conversion, each with its reason.

What the Orchestra Hamiltonian accumulates (``backends/alf/orchestra_observables.F90``), and what
is reported:

=====================  ==========================  ==============================================
reported               from                        conversion and reason
=====================  ==========================  ==============================================
everything             O and sign per bin          <O sign> / <sign>: ALF stores weighted sums.
                                                   The sign is 1 in this formulation.
kinetic_energy         Kin_scal                    none: sum h_ij <c+_i c_j> without -mu N, unlike
                                                   ALF's stock models, whose Kin contains it
interaction_energy     Pot_scal                    none: plain U n_up n_dn; the shift U/2 of mu
                                                   from the decoupling stays inside the engine
energy                 Kin_scal + Pot_scal         the sum bin by bin, so that its error knows
                                                   their correlation
green                  Green_eq                    twice, for both spins: the file holds the mean
                                                   over spins of <c+_i c_j>, equal without a field
                                                   (ALF's stock Green sums over them)
density                Green_eq diagonal, or       <n_is> = <c+_is c_is>; Den's background is the
                       Den_eq background / 2       sum over both spins
double_occupancy       Pair_eq diagonal, or        Delta+_i Delta_i = n_up n_dn;
                       (Den_eq - background) / 2   n_i^2 = n_i + 2 n_up n_dn
pair                   Pair_eq                     none
density_density        Den_eq - n_i n_j            the file holds <n_i n_j>; the background is
                                                   subtracted after averaging, by jackknife
spin_spin              SpinXY_eq                   <S^x S^x> = <S^z S^z> without a field (spin
                                                   SU(2)); its noise is 4 to 13 times smaller
pair_susceptibility    PairSus_eq                  none: integral over tau from 0 to beta
all matrices           (i, j), i <= j              (M + M^T) / 2: h is real, so both are equal in
                                                   the mean but not in a bin
=====================  ==========================  ==============================================

Matrices arrive packed: the upper triangle of the symmetrized matrix, row by row (:func:`pack`).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bilayer_orchestra.engines.alf.output.bins import Matrices
from bilayer_orchestra.errors import EngineError
from bilayer_orchestra.terms import FloatArray

Arrays = dict[str, FloatArray]

SIGN, BACKGROUND = "sign", "Den_background"
SCALARS = ("Kin_scal", "Pot_scal")

#: Observable -> matrix files it can be computed from, the best first.
SOURCES = {
    "green": ("Green_eq",),
    "density": ("Green_eq", "Den_eq"),
    "pair": ("Pair_eq",),
    "double_occupancy": ("Pair_eq", "Den_eq"),
    "density_density": ("Den_eq",),
    "spin_spin": ("SpinXY_eq",),
    "pair_susceptibility": ("PairSus_eq",),
}


@lru_cache(maxsize=8)
def _triangle(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Flat indices of (i, j) and (j, i) for i <= j, and packed positions of the diagonal."""
    i, j = np.triu_indices(n)
    return i * n + j, j * n + i, np.flatnonzero(i == j)


def pack(matrices: FloatArray) -> FloatArray:
    """Return the upper triangles of (M + M^T) / 2, shape (k, N (N + 1) / 2), of (k, N, N)."""
    upper, lower, _ = _triangle(matrices.shape[-1])
    flat = matrices.reshape(len(matrices), -1)
    packed = np.take(flat, upper, axis=1)
    packed += np.take(flat, lower, axis=1)
    packed *= 0.5
    return packed


def unpack(packed: FloatArray) -> FloatArray:
    """Return symmetric matrices (k, N, N) from their upper triangles."""
    n = _sites(packed)
    upper, lower, _ = _triangle(n)
    flat = np.empty((len(packed), n * n))
    flat[:, upper] = packed
    flat[:, lower] = packed
    return flat.reshape(-1, n, n)


def raw_matrices(name: str, chunk: Matrices) -> Arrays:
    """Return raw name -> bins (b, ...) of what a chunk of the file ``name`` holds, packed."""
    raw = {name: pack(chunk.values)}
    return raw | {BACKGROUND: chunk.background} if name == "Den_eq" else raw


def needed_files(observables: tuple[str, ...], measured: set[str]) -> dict[str, str]:
    """Return observable -> the file it is read from.

    Raises
    ------
    EngineError
        If none of its sources was measured.
    """
    chosen = {}
    for name in observables:
        sources = SOURCES.get(name)
        if sources is None:
            raise EngineError(f"ALF does not measure `{name}`")
        present = [source for source in sources if source in measured]
        if not present:
            raise EngineError(f"the ALF run did not write {' or '.join(sources)} for `{name}`")
        chosen[name] = present[0]
    return chosen


def observables_of(raw: Arrays, files: dict[str, str]) -> Arrays:
    """Return all observables in the project's convention.

    Parameters
    ----------
    raw : dict
        Averages with one leading axis k: ``sign`` (k,), scalars (k,), packed matrices (k, M),
        ``Den_background`` (k, N).
    files : dict
        Observable -> file, from :func:`needed_files`.

    Returns
    -------
    dict
        Observable -> (k, ...).
    """
    sign = raw[SIGN]
    of = {
        name: array / sign.reshape(-1, *(1,) * (array.ndim - 1))
        for name, array in raw.items()
        if name != SIGN
    }
    values = _energies(of)
    for name, file in files.items():
        packed = of[file]
        if name == "green":
            values[name] = np.repeat(unpack(packed)[:, None], 2, axis=1)
        elif name == "density":
            per_spin = _diagonal(packed) if file == "Green_eq" else of[BACKGROUND] / 2
            values[name] = np.repeat(per_spin[:, None], 2, axis=1)
        elif name == "double_occupancy":
            values[name] = _double_occupancy(of, file)
        elif name == "density_density":
            n = of[BACKGROUND]
            values[name] = unpack(packed) - n[:, :, None] * n[:, None, :]
        else:
            values[name] = unpack(packed)
    return values


def linearized(chains: list[Arrays], files: dict[str, str]) -> list[Arrays]:
    """Return per chain and step what each observable responds to, to first order.

    Autocorrelation times and the tests of stationarity belong to these series, (k, elements). The
    connected density correlator is quadratic in averages; its variation is that of
    n_i n_j - n_i <n_j> - <n_i> n_j, with the averages over all chains.
    """
    density: FloatArray | None = None
    if BACKGROUND in chains[0]:
        density = np.concatenate([chain[BACKGROUND] for chain in chains]).mean(axis=0)
    return [_linearized(chain, files, density) for chain in chains]


def _linearized(raw: Arrays, files: dict[str, str], density: FloatArray | None) -> Arrays:
    series = {name: array[:, None] for name, array in _energies(raw).items()}
    for name, file in files.items():
        packed = raw[file]
        if name == "density":
            series[name] = _diagonal(packed) if file == "Green_eq" else raw[BACKGROUND]
        elif name == "double_occupancy":
            series[name] = _double_occupancy(raw, file)
        elif name == "density_density":
            assert density is not None
            n = raw[BACKGROUND]
            i, j = np.triu_indices(n.shape[1])
            series[name] = packed - n[:, i] * density[j] - density[i] * n[:, j]
        else:
            series[name] = packed
    return series


def _energies(raw: Arrays) -> Arrays:
    kinetic, interaction = raw["Kin_scal"], raw["Pot_scal"]
    return {
        "energy": kinetic + interaction,
        "kinetic_energy": kinetic,
        "interaction_energy": interaction,
    }


def _double_occupancy(raw: Arrays, file: str) -> FloatArray:
    if file == "Pair_eq":
        return _diagonal(raw[file])
    return np.asarray((_diagonal(raw[file]) - raw[BACKGROUND]) / 2)


def _diagonal(packed: FloatArray) -> FloatArray:
    return packed[:, _triangle(_sites(packed))[2]]


def _sites(packed: FloatArray) -> int:
    return int((np.sqrt(8 * packed.shape[1] + 1) - 1) / 2 + 0.5)
