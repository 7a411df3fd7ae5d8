"""DMRG with ITensorMPS.jl; what runs in Julia is the package ``backends/itensor``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from bilayer_orchestra.engines.base import Job, Request, Tools
from bilayer_orchestra.engines.dmrg.engine import DMRGEngine
from bilayer_orchestra.engines.dmrg.results import in_own_units, unit_of
from bilayer_orchestra.engines.itensor.image import RECIPE
from bilayer_orchestra.engines.itensor.job import JOB, render_job
from bilayer_orchestra.engines.itensor.julia import find_julia
from bilayer_orchestra.engines.itensor.juliacall import juliacall_environment, juliacall_problem
from bilayer_orchestra.engines.itensor.memory import refuse_if_too_large, write_bond_dimension
from bilayer_orchestra.engines.itensor.package import engine_half, engine_hash
from bilayer_orchestra.engines.itensor.settings import ITensorNumerics
from bilayer_orchestra.errors import MissingEngineError, OrchestraError
from bilayer_orchestra.machine import thread_environment
from bilayer_orchestra.resources import resource

SCRIPT, ENGINE = "dmrg.jl", "engine.path"
STARTING = "starting Julia, then the first sweep"
COMPILING = "compiling OrchestraITensor for this Julia, once: it takes 2 to 10 minutes"


class ITensorEngine(DMRGEngine):
    """Ground-state DMRG with conserved numbers of up and down electrons."""

    name = "itensor"
    revision = 4  # all energies in units of the largest coupling
    summary = "DMRG with ITensorMPS.jl (Julia); ground states, long chains"
    settings = ITensorNumerics
    configuration: ClassVar = {"julia": ("binary", "project", "depot")}
    state_name = "checkpoint.jls"
    recipe = RECIPE
    auto = 3
    #: Whether a job got as far as computing, so that machine code is there by now.
    _has_run = False

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

    def tools(self) -> Tools:
        """Return Julia, its environment, and what a process that hosts it needs."""
        found = find_julia()
        return Tools({"julia": str(found.binary)}, found.environment, juliacall_environment())

    def install(self, say: Callable[[str], None]) -> None:
        """Have juliapkg install Julia with the packages."""
        from bilayer_orchestra.engines.itensor.managed import install_managed

        say(f"installed {install_managed()}")
        say(f"{self.version()}\n{self.place()}")

    def check(self, request: Request) -> None:
        """Refuse empty sectors, and more memory than there is."""
        if sum(request.terms.state) == 0:
            raise OrchestraError("itensor needs at least one electron; use --backend exact")
        refuse_if_too_large(request.terms, request.numerics)

    def render(self, request: Request) -> Job:
        """Return the job."""
        numerics: ITensorNumerics = request.numerics
        threads = numerics.threads or 1
        settings = numerics.model_dump(mode="json") | {
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
            worker="bilayer_orchestra.engines.itensor.worker",
        )

    def progress(self, directory: Path, request: Request) -> list[str]:
        """Return the new sweeps, or what comes before the first."""
        words = STARTING if self._has_run else _first_words()
        lines = self._sweeps.lines(directory, words, unit_of(request.terms))
        self._has_run = self._has_run or (bool(lines) and lines != [words])
        return lines


def _first_words() -> str:
    """Say what happens before the first sweep; an image holds compiled code and its own Julia."""
    try:
        compiled = find_julia().compiled
    except MissingEngineError:
        compiled = True
    return STARTING if compiled else COMPILING
