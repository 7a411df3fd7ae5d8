"""The files of an ALF job: terms, trial state, parameters, seeds, and the script that runs it.

Only numbers and names of our own enter these texts; nothing from a model file that could mean
something to a shell or to a Fortran namelist.
"""

import json
import math
import re
from dataclasses import replace

import numpy as np

from bilayer_orchestra.engines.alf.effort import ENOUGH_BINS, StepPlan, plan_effort
from bilayer_orchestra.engines.alf.settings import REPRODUCIBLE_CHAINS, ALFNumerics
from bilayer_orchestra.engines.alf.steps import time_steps
from bilayer_orchestra.engines.alf.trial import needs_probe, probe_orbitals, trial_orbitals
from bilayer_orchestra.engines.base import Request
from bilayer_orchestra.resources import fill, resource
from bilayer_orchestra.terms import Canonical, FloatArray, Terms

FORMAT = 1
#: Imaginary time between two stabilizations, in 1/energy; up to twice this, 13 digits were kept
#: (|U| = 8).
STABILIZATION_TIME = 1.0
#: Slices between them at most.
MOST_SLICES = 20
#: Measurement window of the projector, in units of theta: a tenth of the work, many measurements.
WINDOW = 0.5
#: Part of the time for a second trial state, where one is needed.
PROBE_SHARE = 0.15
#: ALF reads seeds as signed 32-bit integers and takes 0 as "none given".
LARGEST_SEED = 2**31 - 1


def render_files(request: Request, cores: int) -> dict[str, str]:
    """Return relative file name -> text of the whole job, for as many chains as ``cores``."""
    terms, numerics = request.terms, request.numerics
    steps = time_steps(terms, numerics)
    chains = numerics.chains or (REPRODUCIBLE_CHAINS if numerics.sweeps else cores)
    state, theta = terms.state, 0.0
    if isinstance(state, Canonical):
        theta = numerics.projection_time
        # ALF calls the measurement window beta
        betas = [step * max(1, round(WINDOW * theta / step)) for step in steps]
    else:
        betas = [state.beta] * len(steps)
    slices = [round((beta + 2 * theta) / step) for step, beta in zip(steps, betas, strict=True)]
    measured = measurements(request.observables, numerics)
    plans, target = plan_effort(terms.n_sites, steps, slices, numerics, sum(measured.values()))
    files = {"terms.dat": terms_text(terms)}
    more: dict[str, object] = {"beta": betas[0]}
    if isinstance(state, Canonical):
        more = {"theta": theta, "window": betas.copy()}
        files["trial.dat"] = trial_text(trial_orbitals(terms, state.n_up))
        if needs_probe(terms):
            last, coarsest = len(steps), steps.index(max(steps))
            more["probe"] = {"step": last, "compare": coarsest}
            files[f"dtau-{last}/trial.dat"] = trial_text(probe_orbitals(terms, state.n_up))
            plans = [replace(plan, share=round((1 - PROBE_SHARE) * plan.share)) for plan in plans]
            plans.append(replace(plans[coarsest], share=round(1000 * PROBE_SHARE)))
            betas.append(betas[coarsest])
    seeds = chain_seeds(numerics.seed, len(plans), chains, numerics.ranks)
    job = {
        "format": FORMAT,
        "terms": terms.to_dict(),
        "observables": list(request.observables),
        "settings": numerics.model_dump(mode="json"),
        "projector": theta > 0,
        "dtau": list(steps),
        "chains": chains,
        "ranks": numerics.ranks,
        "seeds": seeds,
        "sweeps_per_bin": [plan.sweeps_per_bin for plan in plans],
        "bins": [plan.bins for plan in plans],
        "time_slices": slices,
        **more,
    }
    files["job.json"] = json.dumps(job, indent=1) + "\n"
    files["run.sh"] = _script(terms, numerics, chains, plans, target)
    for k, (plan, beta) in enumerate(zip(plans, betas, strict=True)):
        files[f"dtau-{k}/parameters"] = _parameters(numerics, measured, plan, beta, theta)
        for c in range(chains):
            files[f"dtau-{k}/chain-{c}/seeds"] = "".join(f"{seed}\n" for seed in seeds[k][c])
    return files


def chain_seeds(seed: int, steps: int, chains: int, ranks: int) -> list[list[list[int]]]:
    """Return distinct seeds, indexed [time step][chain][MPI rank].

    A chain keeps its seed when chains or time steps are added.

    Parameters
    ----------
    seed : int
        Of the whole run.
    steps, chains, ranks : int
        How many there are.
    """
    used: set[int] = set()
    table: list[list[list[int]]] = []
    for step in range(steps):
        table.append([])
        for chain in range(chains):
            generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(step, chain)))
            row: list[int] = []
            while len(row) < ranks:
                value = int(generator.integers(1, LARGEST_SEED, endpoint=True))
                if value not in used:
                    used.add(value)
                    row.append(value)
            table[-1].append(row)
    return table


def measurements(observables: tuple[str, ...], numerics: ALFNumerics) -> dict[str, bool]:
    """Return which of the Hamiltonian's matrices are needed; diagonals come from them too."""
    return {
        "PAIR": bool({"pair", "double_occupancy"} & set(observables)),
        "GREEN": bool({"green", "density"} & set(observables)),
        "DENSITY": "density_density" in observables,
        "SPIN": "spin_spin" in observables,
        "SUSCEPTIBILITY": numerics.pair_susceptibility,
    }


def terms_text(terms: Terms) -> str:
    """Return ``terms.dat``, in the format that backends/alf/orchestra_input.F90 describes."""
    onsite = zip(terms.interaction, terms.chemical_potential, strict=True)
    lines = [
        "orchestra-terms 1",
        f"sites {terms.n_sites}",
        "onsite",
        *(f"{i} {_real(u)} {_real(mu)}" for i, (u, mu) in enumerate(onsite, start=1)),
        "hopping",
        *_rows(terms.one_body),
        "end",
    ]
    return "\n".join(lines) + "\n"


def trial_text(orbitals: FloatArray) -> str:
    """Return ``trial.dat`` with the orbitals as columns."""
    sites, particles = orbitals.shape
    header = ["orchestra-trial 1", f"sites {sites}", f"particles {particles}", "orbitals"]
    return "\n".join([*header, *_rows(orbitals), "end"]) + "\n"


def _parameters(
    numerics: ALFNumerics, measured: dict[str, bool], plan: StepPlan, beta: float, theta: float
) -> str:
    step = plan.dtau
    # measurements closer to the trial state show whether theta is long enough; time-displaced ones
    # need the window alone
    edge = round(theta / step) >= 2 and not numerics.pair_displaced
    interval = max(1, min(round(STABILIZATION_TIME / step), MOST_SLICES))
    values = {
        "DTAU": _real(step),
        "BETA": _real(beta),
        "THETA": _real(theta),
        "PROJECTOR": _logical(theta > 0),
        **{name: _logical(wanted) for name, wanted in measured.items()},
        "EDGE": _logical(edge),
        "DISPLACED": _logical(numerics.pair_displaced),
        "LTAU": "1" if numerics.pair_susceptibility or numerics.pair_displaced else "0",
        "NWRAP": str(numerics.stabilization_interval or interval),
        "NSWEEP": str(plan.sweeps_per_bin),
    }
    return _filled("parameters", values)


def _script(
    terms: Terms, numerics: ALFNumerics, chains: int, plans: list[StepPlan], target: int
) -> str:
    budget = numerics.effective_budget
    plan = [
        f"first_{k}={p.first} share_{k}={p.share} wanted_{k}={p.bins}" for k, p in enumerate(plans)
    ]
    values = {
        "CHAINS": str(chains),
        "STEPS": str(len(plans)),
        "RANKS": str(numerics.ranks),
        "SITES": str(terms.n_sites),
        "BUDGET": str(max(1, round(budget)) if budget else 0),
        "TARGET": str(target),
        "ENOUGH": str(math.ceil(ENOUGH_BINS / chains)),
        "PLAN": "\n".join(plan),
    }
    return _filled("run.sh", values)


def _filled(template: str, values: dict[str, str]) -> str:
    """Return a template with harmless values; run.sh itself fills in the bins of a segment."""
    for name, value in values.items():
        if not re.fullmatch(r"[A-Za-z0-9_=.+\n -]*", value):
            raise AssertionError(f"{name} = {value!r} does not belong into {template}")
    text = resource("templates", "alf", template).read_text(encoding="utf-8")
    return fill(text, values, leave=["NBIN"])


def _rows(matrix: FloatArray) -> list[str]:
    return [" ".join(_real(value) for value in row) for row in matrix]


def _real(value: float) -> str:
    """Return the shortest decimal that reads back as the same number."""
    return repr(float(value))


def _logical(value: bool) -> str:
    return ".true." if value else ".false."
