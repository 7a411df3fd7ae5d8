"""DMRG with block2."""

from typing import Annotated

from pydantic import Field

from bilayer_orchestra.engines.base import Job, Request, installed_version, python_job
from bilayer_orchestra.engines.block2.image import RECIPE
from bilayer_orchestra.engines.dmrg.engine import DMRGEngine
from bilayer_orchestra.engines.dmrg.results import in_own_units
from bilayer_orchestra.engines.dmrg.settings import DMRGNumerics
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.machine import available_cores, memory_limit

#: Up to this bond dimension the blocks are so small that a second thread only costs.
SERIAL_BOND_DIMENSION = 400


class Block2Numerics(DMRGNumerics):
    """Settings of the embedded DMRG (block2)."""

    stack_memory_gib: Annotated[float, Field(gt=0, le=4096)] = 1.0
    """working memory that block2 reserves, in GiB"""


class Block2Engine(DMRGEngine[Block2Numerics]):
    """Ground-state DMRG in SU(2) or U(1)xU(1) symmetry."""

    name = "block2"
    revision = 4  # all energies in units of the largest coupling
    summary = "DMRG with block2 (PyPI); ground states, long chains"
    settings = Block2Numerics
    state_name = "checkpoint.zip"
    recipe = RECIPE
    auto = 1

    def version(self) -> str:
        """Return block2's version without importing it."""
        return installed_version("block2", "block2")

    def check(self, request: Request[Block2Numerics]) -> None:
        """Refuse trivial sectors, and more memory than there is."""
        state, n_sites = request.terms.state, request.terms.n_sites
        memory, limit = request.numerics.stack_memory_gib, memory_limit()
        if limit is not None and memory * 2**30 > limit:
            raise OrchestraError(
                f"block2: numerics.block2.stack_memory_gib = {memory:g} is reserved at the start, "
                f"and this machine allows {limit / 2**30:.1f} GiB; take less"
            )
        if n_sites < 4 or sum(state) < 1 or sum(state) > 2 * n_sites - 1:
            raise OrchestraError(
                "block2 needs at least 4 sites, one electron and one hole; use --backend exact"
            )
        energies = ("one_body", "interaction", "chemical_potential")
        if not any(getattr(request.terms, name).any() for name in energies):
            raise OrchestraError("H is zero: every state is a ground state; use --backend exact")

    def render(self, request: Request[Block2Numerics]) -> Job:
        """Return the job."""
        numerics = request.numerics
        serial = numerics.max_bond_dimension <= SERIAL_BOND_DIMENSION
        threads = numerics.threads or (1 if serial else available_cores())
        return python_job(
            request,
            "bilayer_orchestra.engines.block2.process",
            threads,
            terms=in_own_units(request.terms),
            stages=numerics.bond_dimensions(),
        )
