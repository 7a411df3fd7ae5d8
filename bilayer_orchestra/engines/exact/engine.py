"""Exact diagonalization: the project's independent truth on small systems."""

from dataclasses import replace
from math import comb
from pathlib import Path

from bilayer_orchestra.averages import Averages, observables_from_raw
from bilayer_orchestra.engine_side.files import OUTPUT, load_arrays, new_events
from bilayer_orchestra.engines.base import Cost, Engine, Job, Request, installed_version, python_job
from bilayer_orchestra.engines.block2.image import RECIPE
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.machine import available_cores
from bilayer_orchestra.settings import Seed, SpecModel, Threads
from bilayer_orchestra.terms import Canonical, Terms

#: Largest canonical sector: half an hour, and seven vectors of 160 MB.
MAX_DIMENSION = 20_000_000
#: Largest number of sites: the occupation of a spin is the bits of a signed 64-bit integer.
MAX_SITES = 62
#: Most sites of a thermal state: the largest block of 8 sites has 4900 states, of 10 sites 63504.
MAX_THERMAL_SITES = 8

#: glibc gives large arrays back to the system at once and gets them as empty pages the next time:
#: half of the time of a product with H (docs/decisions/0008). Other C libraries ignore these.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**33), "MALLOC_TRIM_THRESHOLD_": str(2**34)}


#: How far a job is: an event's step -> what is said of it.
_LINES = {
    "level": "Lanczos in {dimension:,} states, step {steps}  lowest level {energy:.10f}",
    "vector": (
        "Lanczos in {dimension:,} states, second pass, step {steps}  lowest level {energy:.10f}"
    ),
    "measure": "measuring, lowest level {energy:.10f}",
    "block": "sector {done} of {total}",
}


class ExactNumerics(SpecModel):
    """Settings of exact diagonalization; there is nothing to tune but the start vector."""

    seed: Seed = 1
    threads: Threads = None


class ExactEngine(Engine[ExactNumerics]):
    """Sparse Lanczos at T = 0, full diagonalization of every sector at T > 0."""

    name = "exact"
    revision = 2  # independent of a constant in H; closer levels are told apart
    summary = "exact diagonalization (scipy); small systems, T = 0 and T > 0"
    ensembles = ("canonical", "thermal")
    stochastic = False
    systematics = ()  # rounding only: bounded by the residual over the gap
    settings = ExactNumerics
    recipe = replace(RECIPE, label="orchestra.scipy")  # Python, scipy and us: block2's has them
    auto = 2

    def __init__(self) -> None:
        self._places: dict[Path, int] = {}

    def version(self) -> str:
        """Return the version of scipy, which does the linear algebra."""
        return installed_version("scipy", "scipy")

    def check(self, request: Request[ExactNumerics]) -> None:
        """Refuse what does not fit into memory."""
        reason = out_of_reach(request.terms)
        if reason:
            raise OrchestraError(f"exact: {reason}")

    def render(self, request: Request[ExactNumerics]) -> Job:
        """Return the job."""
        # Lanczos waits for memory, where more threads only spin; full diagonalization computes
        threads = 1 if isinstance(request.terms.state, Canonical) else available_cores()
        threads = request.numerics.threads or threads
        job = python_job(request, "bilayer_orchestra.engines.exact.process", threads)
        return replace(job, environment=job.environment | KEEP_MEMORY)

    def cost(self, request: Request[ExactNumerics]) -> Cost:
        """Return seconds and memory, fitted to sectors of 1e3 to 2e7 states on a 2020s core."""
        terms = request.terms
        if isinstance(terms.state, Canonical):
            states = canonical_dimension(terms)
            return Cost(1.0 + 5e-5 * states, 7 * 8.0 * states)
        largest = comb(terms.n_sites, terms.n_sites // 2) ** 2
        return Cost(1.0 + 4e-10 * largest**3, 3 * 8.0 * largest**2)

    def progress(self, directory: Path, request: Request[ExactNumerics]) -> list[str]:
        """Return one line on how far the job is: steps are too many and too quick to show all."""
        newest = new_events(directory, self._places)[-1:]
        return [_LINES[event["step"]].format(**event) for event in newest]

    def parse(self, directory: Path, request: Request[ExactNumerics]) -> Averages:
        """Read ``output.npz``."""
        raw = load_arrays(directory / OUTPUT)
        raw["double_occupancy"] = raw["pair"].diagonal().copy()
        names = ("gap", "degeneracy", "residual", "log_partition")
        diagnostics = {name: float(raw.pop(name)) for name in names if name in raw}
        splitting, resolution = (float(raw.pop(k, 0.0)) for k in ("splitting", "resolution"))
        values = observables_from_raw(raw, request.terms)
        states, reason = round(diagnostics.get("degeneracy", 1)), "exact"
        if splitting > 0:  # more than rounding
            reason = (
                f"the lowest {states} levels lie within {splitting:.1e}, a gap too small to "
                f"resolve (tolerance {resolution:.1e}): the energy holds, correlators are not "
                "determined"
            )
        elif states > 1:
            reason += (
                f"; the ground level has {states} states (closer than {resolution:.1e} is not told "
                "apart), averaged with equal weights"
            )
        # what is left is rounding, amplified by the gap; it is not estimated element by element
        return Averages(values, diagnostics=diagnostics, converged=splitting == 0, reason=reason)


def canonical_dimension(terms: Terms) -> int:
    """Return the number of states of the canonical sector."""
    assert isinstance(terms.state, Canonical)
    return comb(terms.n_sites, terms.state.n_up) * comb(terms.n_sites, terms.state.n_down)


def out_of_reach(terms: Terms) -> str | None:
    """Return why exact diagonalization cannot do this, or None."""
    if isinstance(terms.state, Canonical):
        if terms.n_sites > MAX_SITES:
            return (
                f"{terms.n_sites} sites are out of reach ({MAX_SITES} are: occupations are bits of "
                "one integer); use --backend block2"
            )
        dimension = canonical_dimension(terms)
        if dimension > MAX_DIMENSION:
            return (
                f"this sector has {dimension:.3g} states, {MAX_DIMENSION:.3g} are in reach; "
                "use --backend block2"
            )
    elif terms.n_sites > MAX_THERMAL_SITES:
        return (
            f"a thermal state on {terms.n_sites} sites is out of reach "
            f"({MAX_THERMAL_SITES} sites are); use --backend alf (quantum Monte Carlo)"
        )
    return None
