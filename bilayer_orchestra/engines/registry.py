"""The backends by name, and the choice that ``--backend auto`` makes."""

from __future__ import annotations

from bilayer_orchestra.engines.alf.engine import ALFEngine
from bilayer_orchestra.engines.base import Engine
from bilayer_orchestra.engines.block2.engine import Block2Engine
from bilayer_orchestra.engines.exact.engine import (
    MAX_THERMAL_SITES,
    ExactEngine,
    canonical_dimension,
    out_of_reach,
)
from bilayer_orchestra.engines.itensor.engine import ITensorEngine
from bilayer_orchestra.errors import MissingEngineError, OrchestraError
from bilayer_orchestra.terms import Canonical, Terms

BACKENDS: dict[str, Engine] = {
    backend.name: backend
    for backend in (ExactEngine(), Block2Engine(), ITensorEngine(), ALFEngine())
}

#: Sectors up to this size are diagonalized within a second or two.
INSTANT_DIMENSION = 20_000


def get_engine(name: str) -> Engine:
    """Return the backend called ``name``."""
    if name not in BACKENDS:
        raise OrchestraError(f"there is no backend `{name}`; known: auto, {', '.join(BACKENDS)}")
    return BACKENDS[name]


def choose(terms: Terms) -> str:
    """Return the backend for ``auto``: exact where it is instant, else DMRG or quantum Monte Carlo.

    Raises
    ------
    OrchestraError
        If nothing that is installed can solve the model; the message names what is needed.
    """
    if isinstance(terms.state, Canonical):
        if out_of_reach(terms) is None and canonical_dimension(terms) <= INSTANT_DIMENSION:
            return "exact"
        try:
            BACKENDS["block2"].version()
        except MissingEngineError:
            if out_of_reach(terms) is None:
                return "exact"
            raise
        return "block2"
    if out_of_reach(terms) is None:
        return "exact"
    try:
        BACKENDS["alf"].version()
    except MissingEngineError as error:
        raise MissingEngineError(
            f"a thermal state (beta) on {terms.n_sites} sites is beyond exact diagonalization "
            f"({MAX_THERMAL_SITES} sites); it needs auxiliary-field quantum Monte Carlo: {error}"
        ) from error
    return "alf"
