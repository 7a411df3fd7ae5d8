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

import math
from collections.abc import Callable

import numpy as np

from bilayer_orchestra.engines.alf.bins import Bins
from bilayer_orchestra.errors import EngineError
from bilayer_orchestra.observables import OBSERVABLES
from bilayer_orchestra.terms import FloatArray

Arrays = dict[str, FloatArray]

SIGN, BACKGROUND = "sign", "Den_background"

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


def pack(matrices: FloatArray) -> FloatArray:
    """Return the upper triangles of (M + M^T) / 2, shape (k, N (N + 1) / 2), of (k, N, N)."""
    n = matrices.shape[-1]
    i, j = np.triu_indices(n)
    flat = matrices.reshape(len(matrices), -1)
    packed = (np.take(flat, i * n + j, axis=1) + np.take(flat, j * n + i, axis=1)) * 0.5
    return np.asarray(packed)


def unpack(packed: FloatArray) -> FloatArray:
    """Return symmetric matrices (k, N, N) from their upper triangles."""
    n = _sites(packed)
    i, j = np.triu_indices(n)
    matrices = np.empty((len(packed), n, n))
    matrices[:, i, j] = matrices[:, j, i] = packed
    return matrices


def raw_matrices(name: str, chunk: Bins) -> Arrays:
    """Return raw name -> bins (b, ...) of what a chunk of the file ``name`` holds, packed."""
    raw = {name: pack(chunk.values)}
    return raw | {BACKGROUND: chunk.beside} if name == "Den_eq" else raw


def needed_files(observables: tuple[str, ...], measured: Callable[[str], bool]) -> dict[str, str]:
    """Return observable -> the file it is read from: the first of its sources that was measured.

    Raises
    ------
    EngineError
        If there is none.
    """
    chosen = {}
    for name in observables:
        sources = SOURCES.get(name, ())
        present = [source for source in sources if measured(source)]
        if not present:
            missing = " or ".join(sources) or "anything"
            raise EngineError(f"the ALF run did not write {missing} for `{name}`")
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
    per_sign = {
        name: array / sign.reshape(-1, *(1,) * (array.ndim - 1)) for name, array in raw.items()
    }
    values = _without_copies(per_sign, files)
    for name in files:
        if OBSERVABLES[name].two_point:
            values[name] = unpack(values[name])
        if "spin" in OBSERVABLES[name].dims:
            values[name] = np.repeat(values[name][:, None], 2, axis=1)
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
    return [
        {name: one.reshape(len(one), -1) for name, one in series.items()}
        for series in (_without_copies(chain, files, density) for chain in chains)
    ]


def _without_copies(
    raw: Arrays, files: dict[str, str], density: FloatArray | None = None
) -> Arrays:
    """Return every observable for one spin, (k,) or (k, N) or packed (k, M).

    With the average ``density`` the connected density correlator is linearized.
    """
    kinetic, interaction = raw["Kin_scal"], raw["Pot_scal"]
    values = {
        "energy": kinetic + interaction,
        "kinetic_energy": kinetic,
        "interaction_energy": interaction,
    }
    for name, file in files.items():
        packed = raw[file]
        i, j = np.triu_indices(_sites(packed))
        diagonal = packed[:, i == j]
        if name == "density":
            values[name] = diagonal if file == "Green_eq" else raw[BACKGROUND] / 2
        elif name == "double_occupancy":
            values[name] = diagonal if file == "Pair_eq" else (diagonal - raw[BACKGROUND]) / 2
        elif name == "density_density":
            n = raw[BACKGROUND]
            if density is None:
                values[name] = packed - n[:, i] * n[:, j]
            else:
                values[name] = packed - n[:, i] * density[j] - density[i] * n[:, j]
        else:
            values[name] = packed
    return values


def _sites(packed: FloatArray) -> int:
    """Return N of matrices that are packed into N (N + 1) / 2 numbers."""
    return math.isqrt(2 * packed.shape[1])
