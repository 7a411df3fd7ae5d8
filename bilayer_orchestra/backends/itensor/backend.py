"""DMRG in ITensorMPS.jl as a backend; its engine half is the Julia package ``backends/itensor``."""

from __future__ import annotations

from pathlib import Path

from bilayer_orchestra.averages import Averages
from bilayer_orchestra.backends.base import Job, Request, settings_of
from bilayer_orchestra.backends.dmrg_progress import Sweeps
from bilayer_orchestra.backends.dmrg_results import averages_from_stages, in_own_units, unit_of
from bilayer_orchestra.backends.itensor.job import JOB, render_job
from bilayer_orchestra.backends.itensor.memory import refuse_if_too_large, write_bond_dimension
from bilayer_orchestra.backends.itensor.numerics import ITensorNumerics
from bilayer_orchestra.engine_io import OUTPUT, load_arrays
from bilayer_orchestra.engines.julia import find_julia
from bilayer_orchestra.engines.julia_half import engine_half, engine_hash
from bilayer_orchestra.engines.juliacall import juliacall_problem
from bilayer_orchestra.errors import MissingEngineError, OrchestraError
from bilayer_orchestra.machine import thread_environment
from bilayer_orchestra.resources import resource
from bilayer_orchestra.terms import Canonical

SCRIPT, ENGINE = "dmrg.jl", "engine.path"
STARTING = "starting Julia, then the first sweep"
COMPILING = "compiling OrchestraITensor for this Julia, once: it takes 2 to 10 minutes"


class ITensorBackend:
    """Ground-state DMRG with conserved numbers of up and down electrons."""

    name = "itensor"
    revision = 4  # all energies in units of the largest coupling
    summary = "DMRG with ITensorMPS.jl (Julia); ground states, long chains"
    state_name: str | None = "checkpoint.jls"
    #: Whether a job got as far as computing, so that machine code is there by now.
    _has_run = False

    def __init__(self) -> None:
        self._sweeps = Sweeps()

    def version(self) -> str:
        """Return the versions of ITensorMPS, ITensors, Julia and of our Julia half."""
        return f"{find_julia().label} + OrchestraITensor {engine_hash()[:8]}"

    def place(self) -> str:
        """Return which Julia and which project are used, who named them, and how sweeps use it."""
        found = find_julia()
        project = found.environment.get("JULIA_PROJECT", "Julia's default environment")
        problem = juliacall_problem(found)
        many = (
            "sweeps: one Julia for all points, through juliacall"
            if problem is None
            else f"sweeps: a Julia for every point, since {problem}"
        )
        return f"{found.binary} ({found.origin}), packages in {project}\n{many}"

    def check(self, request: Request) -> None:
        """Refuse thermal states and single sites."""
        if not isinstance(request.terms.state, Canonical):
            raise OrchestraError(
                "itensor finds ground states (T = 0); for `state: {beta: ...}` use --backend exact "
                "(up to 8 sites) or --backend alf"
            )
        if sum(request.terms.state) == 0:
            raise OrchestraError("itensor needs at least one electron; use --backend exact")
        numerics = request.numerics
        assert isinstance(numerics, ITensorNumerics)
        refuse_if_too_large(request.terms, numerics)

    def render(self, request: Request) -> Job:
        """Return the job."""
        numerics = request.numerics
        assert isinstance(numerics, ITensorNumerics)
        threads = numerics.threads or 1
        settings = settings_of(numerics) | {
            "stages": numerics.bond_dimensions(),
            "threads": threads,
            "write_bond_dimension": write_bond_dimension(request.terms, numerics),
        }
        return Job(
            program="julia",
            arguments=("--startup-file=no", SCRIPT),
            files={
                JOB: render_job(in_own_units(request.terms), request.observables, settings),
                SCRIPT: resource("templates", "itensor", SCRIPT).read_text(encoding="utf-8"),
                ENGINE: f"{engine_half()}\n",
            },
            environment={**thread_environment(threads), "JULIA_NUM_THREADS": "1"},
            engine="julia",
            worker="bilayer_orchestra.backends.itensor.worker",
        )

    def progress(self, directory: Path, request: Request) -> list[str]:
        """Return the new sweeps, or what comes before the first."""
        words = STARTING if self._has_run else _first_words()
        lines = self._sweeps.lines(directory, words, unit_of(request.terms))
        self._has_run = self._has_run or (bool(lines) and lines != [words])
        return lines

    def parse(self, directory: Path, request: Request) -> Averages:
        """Read ``output.npz``."""
        numerics = request.numerics
        assert isinstance(numerics, ITensorNumerics)
        return averages_from_stages(load_arrays(directory / OUTPUT), request.terms, numerics)


def _first_words() -> str:
    """Say what happens before the first sweep; an image holds compiled code and its own Julia."""
    try:
        compiled = find_julia().compiled
    except MissingEngineError:
        compiled = True
    return STARTING if compiled else COMPILING
