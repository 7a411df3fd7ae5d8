"""How much memory a DMRG job takes, before it runs, and the setting that decides about it.

The block structure is that of the starting state: at every bond the bond dimension is shared among
the charges (n_up, n_dn) of the left part in proportion to how many product states have them, and
bounded by how many states there are. Converged states turn out alike (see decision 0006).
"""

from math import comb
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from bilayer_orchestra.engines.dmrg.settings import DMRGNumerics
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.machine import memory_limit
from bilayer_orchestra.terms import FloatArray, Terms

#: What Julia and the packages take before much is computed, in bytes (two rungs: 0.55e9).
BASE = 0.75e9
#: How many times what is alive the garbage collector lets the heap grow. Both from the peak
#: resident set of twelve rungs on a ring, 9 + 9: 1.08e9, 1.63e9, 2.12e9 at bond dimension 400, 600,
#: 800.
GARBAGE = 4.0
#: Vectors that the local solver keeps (subspace and images of 16 each, and a few more).
SOLVER_VECTORS = 36
#: Bond dimension up to which the local operator is written out (DENSE_BOND in local_problem.jl).
DENSE_BOND = 1000
#: More states than any bond dimension asks for.
PLENTY = 1e9


class ITensorNumerics(DMRGNumerics):
    """Settings of DMRG in ITensorMPS.jl."""

    write_bond_dimension: Annotated[
        int | None,
        Field(
            ge=1,
            description="beyond this bond dimension environments go to disk; default: where the "
            "run would take more than half of the memory",
        ),
    ] = None


class Memory(NamedTuple):
    """Estimated peak in bytes, and what of it writing environments to disk saves."""

    total: float
    environments: float


def estimate(terms: Terms, bond_dimension: int) -> Memory:
    """Return the memory of a job that goes up to ``bond_dimension``."""
    n = terms.n_sites
    bonds = [_charges(terms, cut, bond_dimension) for cut in range(n + 1)]
    channels = [_channels(terms, cut) for cut in range(n + 1)]
    # numbers in the tensors between neighbouring bonds, and in one environment of each bond
    states = sum(float(np.sum(_with_site(bonds[k])[:-1, :-1] * bonds[k + 1])) for k in range(n))
    blocks = [float(np.sum(bond**2)) for bond in bonds]
    environments = sum(w * block for w, block in zip(channels, blocks, strict=True))
    local, halves, largest = 0.0, 0.0, 0.0
    for k in range(n - 1):
        left, right = _with_site(bonds[k]), _with_site(bonds[k + 2])
        # a site that comes from the right has taken its charge with it
        local = max(local, float(np.sum(left[:-1, :-1] * right[1:, 1:])))
        halves = max(halves, channels[k + 1] * float(np.sum(left**2) + np.sum(right**2)))
        largest = max(largest, float(bonds[k + 1].sum()))
    # right halves are kept transposed, too; a contraction has intermediate results
    operator = 1.5 * halves if largest <= DENSE_BOND else 2 * max(channels) * local
    measured = 6 * n * max(blocks)  # environments of one operator at every site
    search = environments + operator + SOLVER_VECTORS * local
    total = BASE + GARBAGE * 8 * (3 * states + max(search, environments + measured))
    return Memory(total, GARBAGE * 8 * environments)


def write_bond_dimension(terms: Terms, numerics: ITensorNumerics) -> int:
    """Return the bond dimension beyond which environments are written to disk."""
    stages = numerics.bond_dimensions()
    limit = memory_limit()
    if numerics.write_bond_dimension is not None or limit is None:
        return numerics.write_bond_dimension or stages[-1]
    small = [m for m in stages if estimate(terms, m).total <= limit / 2]
    return small[-1] if small else 1


def refuse_if_too_large(terms: Terms, numerics: ITensorNumerics) -> None:
    """Raise OrchestraError if the job cannot fit into the memory of this machine."""
    limit = memory_limit()
    if limit is None:
        return
    write_beyond = write_bond_dimension(terms, numerics)

    def needed(bond_dimension: int) -> float:
        memory = estimate(terms, bond_dimension)
        return memory.total - (memory.environments if bond_dimension > write_beyond else 0.0)

    largest = numerics.max_bond_dimension
    if (wanted := needed(largest)) <= limit:
        return
    low, high = 0, largest
    while high - low > max(50, low // 20):
        middle = (low + high) // 2
        low, high = (middle, high) if needed(middle) <= limit else (low, middle)
    remedy = f"max_bond_dimension up to {low // 50 * 50} fits" if low >= 50 else "none fits here"
    raise OrchestraError(
        f"itensor needs about {wanted / 2**30:.1f} GiB at bond dimension {largest} on "
        f"{terms.n_sites} sites, and this machine has {limit / 2**30:.1f} GiB; {remedy}"
    )


def _charges(terms: Terms, cut: int, bond_dimension: int) -> FloatArray:
    """Return the dimension of every charge (n_up, n_dn) of the first ``cut`` sites."""
    rooms = []  # per spin: of the left part, of the right part, share of the left
    for total in map(int, terms.state):
        ways = [(comb(cut, k), comb(terms.n_sites - cut, total - k)) for k in range(total + 1)]
        every = comb(terms.n_sites, total)
        rooms.append(np.array([(min(a, PLENTY), min(b, PLENTY), a * b / every) for a, b in ways]).T)
    left, right, share = rooms[0][:, :, None] * rooms[1][:, None, :]
    return np.asarray(np.minimum(np.minimum(left, right), bond_dimension * share))


def _channels(terms: Terms, cut: int) -> int:
    """Bond dimension of H as an operator: two, and four for each independent hopping across."""
    across = terms.one_body[:cut, cut:]
    return 2 + 4 * int(np.linalg.matrix_rank(across)) if across.size else 1


def _with_site(bond: FloatArray) -> FloatArray:
    """Return the dimensions of a bond and a site: the charge of each spin is zero or one more."""
    padded = np.pad(bond, 1)
    return padded[1:, 1:] + padded[:-1, 1:] + padded[1:, :-1] + padded[:-1, :-1]
