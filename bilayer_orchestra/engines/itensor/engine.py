"""DMRG with ITensorMPS.jl; what runs in Julia is the package ``backends/itensor``."""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from bilayer_orchestra.engines.base import ImageRecipe, Job, Request, Tools
from bilayer_orchestra.engines.dmrg.engine import DMRGEngine
from bilayer_orchestra.engines.dmrg.results import in_own_units
from bilayer_orchestra.engines.itensor import julia
from bilayer_orchestra.engines.itensor.job import JOB, render_job
from bilayer_orchestra.engines.itensor.memory import (
    ITensorNumerics,
    refuse_if_too_large,
    write_bond_dimension,
)
from bilayer_orchestra.engines.itensor.package import engine_files, engine_half, engine_hash
from bilayer_orchestra.errors import MissingEngineError, OrchestraError
from bilayer_orchestra.machine import thread_environment
from bilayer_orchestra.resources import resource

SCRIPT, ENGINE = "dmrg.jl", "engine.path"
STARTING = "starting Julia, then the first sweep"
COMPILING = "compiling OrchestraITensor for this Julia, once: it takes 2 to 10 minutes"


class _Recipe(ImageRecipe):
    """Julia with the packages and OrchestraITensor, compiled."""

    def own_files(self) -> tuple[Path, list[Path]]:
        files = engine_files()
        return files[0].parent, sorted(files)

    def replaces_release(self, source: Path) -> bool:
        return (source / "julia").is_dir()

    def arguments(self, source: Path | None, version: str | None) -> dict[str, str]:
        return {"HALF": engine_hash()[:8]}


class ITensorEngine(DMRGEngine[ITensorNumerics]):
    """Ground-state DMRG with conserved numbers of up and down electrons."""

    name = "itensor"
    revision = 4  # all energies in units of the largest coupling
    summary = "DMRG with ITensorMPS.jl (Julia); ground states, long chains"
    settings = ITensorNumerics
    configuration: ClassVar = {"julia": ("binary", "project", "depot")}
    state_name = "checkpoint.jls"
    recipe = _Recipe("itensor", {"julia": "/opt/orchestra/bin/julia"}, minutes="15 to 30")
    auto = 3

    def version(self) -> str:
        """Return the versions of ITensorMPS, ITensors, Julia and of our Julia half."""
        return f"{julia.find_julia().label} + OrchestraITensor {engine_hash()[:8]}"

    def place(self) -> str:
        """Return which Julia and which project are used, who named them, and how sweeps use it."""
        found = julia.find_julia()
        project = found.environment.get("JULIA_PROJECT", "Julia's default environment")
        problem = julia.juliacall_problem(found)
        many = f"a Julia for every point, since {problem}"
        if problem is None:
            many = "one Julia for all points, through juliacall"
        return f"{found.binary} ({found.origin}), packages in {project}\nsweeps: {many}"

    def tools(self) -> Tools:
        """Return Julia, its environment, and what a process that hosts it needs."""
        found = julia.find_julia()
        return Tools({"julia": str(found.binary)}, found.environment, julia.juliacall_environment())

    def install(self, say: Callable[[str], None]) -> None:
        """Have juliapkg install Julia with the packages."""
        say(f"installed {julia.install_managed()}")
        say(f"{self.version()}\n{self.place()}")

    def check(self, request: Request[ITensorNumerics]) -> None:
        """Refuse empty sectors, and more memory than there is."""
        if sum(request.terms.state) == 0:
            raise OrchestraError("itensor needs at least one electron; use --backend exact")
        refuse_if_too_large(request.terms, request.numerics)

    def render(self, request: Request[ITensorNumerics]) -> Job:
        """Return the job."""
        numerics = request.numerics
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

    def first_words(self) -> str:
        """Say what happens before the first sweep.

        Machine code is there once a job got as far as computing; an image holds it, and its own
        Julia.
        """
        try:
            compiled = bool(self._begun) or julia.find_julia().answers.get("compiled") == "true"
        except MissingEngineError:
            compiled = True
        return STARTING if compiled else COMPILING
