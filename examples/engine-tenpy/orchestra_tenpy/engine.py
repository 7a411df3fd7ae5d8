"""What the orchestrator needs to know of TeNPy. Nothing of TeNPy is imported here."""

from __future__ import annotations

from math import comb
from pathlib import Path
from typing import Annotated

from pydantic import Field

from bilayer_orchestra.averages import Averages
from bilayer_orchestra.engines.base import Job, Request, installed_version, python_job
from bilayer_orchestra.engines.dmrg.engine import DMRGEngine
from bilayer_orchestra.engines.dmrg.settings import DMRGNumerics
from bilayer_orchestra.errors import OrchestraError


class TenpyNumerics(DMRGNumerics):
    """Settings of the DMRG with TeNPy."""

    lanczos_vectors: Annotated[
        int, Field(ge=2, le=200, description="most Lanczos vectors of one bond's local problem")
    ] = 40
    contamination: Annotated[
        float,
        Field(gt=0, le=1, description="largest weight of other states, variance / gap^2"),
    ] = 1e-2


class TenpyEngine(DMRGEngine):
    """Ground states with conserved numbers of up and down electrons."""

    contract = 1
    name = "tenpy"
    summary = "two-site DMRG with TeNPy (PyPI); ground states"
    settings = TenpyNumerics

    def version(self) -> str:
        """Return TeNPy's version without importing it."""
        return installed_version("TeNPy", "physics-tenpy")

    def check(self, request: Request) -> None:
        """Refuse what has no two-site problem, and sectors with nothing to search."""
        terms = request.terms
        states = comb(terms.n_sites, terms.state.n_up) * comb(terms.n_sites, terms.state.n_down)
        if terms.n_sites < 3 or states < 4:
            raise OrchestraError(
                f"tenpy needs at least 3 sites and a sector of 4 states; this one has {states} "
                f"on {terms.n_sites} sites; use --backend exact"
            )

    def render(self, request: Request) -> Job:
        """Return the job: a Python process that reads ``job.json``."""
        numerics = request.numerics
        return python_job(
            request,
            "orchestra_tenpy.process",
            threads=numerics.threads or 1,
            stages=numerics.bond_dimensions(),
        )

    def parse(self, directory: Path, request: Request) -> Averages:
        """Read the stages; the state has to be proven by its variance as well."""
        averages = super().parse(directory, request)
        found, allowed = averages.diagnostics, request.numerics.contamination
        share = found["energy_variance"] / found["gap"] ** 2 if found["gap"] > 0 else 1.0
        if averages.converged and not share <= allowed:
            averages.converged = False
            averages.reason = (
                f"variance {found['energy_variance']:.1e} at gap {found['gap']:.1e} allows other "
                f"states a weight of {share:.1e}, more than contamination = {allowed:.0e} (raise "
                "max_bond_dimension)"
            )
        return averages
