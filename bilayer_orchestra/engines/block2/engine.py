"""DMRG with block2."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from bilayer_orchestra.engine_side.files import JOB, render_job
from bilayer_orchestra.engines.base import Job, Request, settings_of
from bilayer_orchestra.engines.block2.image import RECIPE
from bilayer_orchestra.engines.block2.settings import Block2Numerics
from bilayer_orchestra.engines.dmrg.engine import DMRGEngine
from bilayer_orchestra.engines.dmrg.results import in_own_units
from bilayer_orchestra.errors import MissingEngineError, OrchestraError
from bilayer_orchestra.machine import available_cores, memory_limit, thread_environment
from bilayer_orchestra.terms import Canonical

#: Up to this bond dimension the blocks are so small that a second thread only costs.
SERIAL_BOND_DIMENSION = 400


class Block2Engine(DMRGEngine):
    """Ground-state DMRG in SU(2) or U(1)xU(1) symmetry."""

    name = "block2"
    revision = 4  # all energies in units of the largest coupling
    summary = "DMRG with block2 (PyPI); ground states, long chains"
    settings = Block2Numerics
    state_name = "checkpoint"
    recipe = RECIPE
    auto = 1

    def version(self) -> str:
        """Return block2's version without importing it."""
        try:
            return f"block2 {version('block2')}"
        except PackageNotFoundError as error:
            raise MissingEngineError(
                "block2 is not installed; `pip install block2` brings it"
            ) from error

    def check(self, request: Request) -> None:
        """Refuse trivial sectors, and more memory than there is."""
        state = request.terms.state
        assert isinstance(state, Canonical)
        numerics, limit = request.numerics, memory_limit()
        assert isinstance(numerics, Block2Numerics)
        if limit is not None and numerics.stack_memory_gib * 2**30 > limit:
            raise OrchestraError(
                f"block2: numerics.block2.stack_memory_gib = {numerics.stack_memory_gib:g} is "
                f"reserved at the start, and this machine allows {limit / 2**30:.1f} GiB; take less"
            )
        n_sites = request.terms.n_sites
        if n_sites < 4 or sum(state) < 1 or sum(state) > 2 * n_sites - 1:
            raise OrchestraError(
                "block2 needs at least 4 sites, one electron and one hole; use --backend exact"
            )
        energies = ("one_body", "interaction", "chemical_potential")
        if not any(getattr(request.terms, name).any() for name in energies):
            raise OrchestraError("H is zero: every state is a ground state; use --backend exact")

    def render(self, request: Request) -> Job:
        """Return the job."""
        numerics = request.numerics
        assert isinstance(numerics, Block2Numerics)
        settings = settings_of(numerics) | {"stages": numerics.bond_dimensions()}
        serial = numerics.max_bond_dimension <= SERIAL_BOND_DIMENSION
        threads = numerics.threads or (1 if serial else available_cores())
        return Job(
            program="python",
            arguments=("-P", "-m", "bilayer_orchestra.engines.block2.process", "."),
            files={JOB: render_job(in_own_units(request.terms), request.observables, settings)},
            environment=thread_environment(threads),
        )
