"""The files of an ALF job: terms, trial state, parameters, seeds, and the script that runs it.

Only numbers and names of our own enter these texts; nothing from a model file that could mean
something to a shell or to a Fortran namelist.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import Any

from bilayer_orchestra.engines.alf.input.effort import ENOUGH_BINS, StepPlan, plan_effort
from bilayer_orchestra.engines.alf.input.seeds import chain_seeds
from bilayer_orchestra.engines.alf.input.steps import time_steps
from bilayer_orchestra.engines.alf.input.trial import probe_orbitals, trial_orbitals
from bilayer_orchestra.engines.alf.settings import REPRODUCIBLE_CHAINS, ALFNumerics
from bilayer_orchestra.resources import fill, resource
from bilayer_orchestra.terms import Canonical, FloatArray, Terms

FORMAT = 1
#: Imaginary time between two stabilizations; up to twice this, 13 digits were kept (|U| = 8).
STABILIZATION_TIME, MOST_SLICES = 1.0, 20
#: Measurement window of the projector, in units of theta: a tenth of the work, many measurements.
WINDOW = 0.5
#: Part of the time for a second trial state, where one is needed.
PROBE_SHARE = 0.15


def render_files(
    terms: Terms, observables: tuple[str, ...], numerics: ALFNumerics, cores: int
) -> dict[str, str]:
    """Return relative file name -> text of the whole job."""
    projector = isinstance(terms.state, Canonical)
    steps = time_steps(terms, numerics)
    chains = numerics.chains or (REPRODUCIBLE_CHAINS if numerics.sweeps else cores)
    lengths = [_lengths(terms, numerics, step) for step in steps]  # (beta or window, theta)
    slices = [
        round((beta + 2 * theta) / step) for step, (beta, theta) in zip(steps, lengths, strict=True)
    ]
    measured = measurements(observables, numerics)
    plans, target = plan_effort(terms.n_sites, steps, slices, numerics, sum(measured.values()))
    probe = needs_probe(terms)
    if probe:
        coarsest = steps.index(max(steps))
        plans = [replace(plan, share=round((1 - PROBE_SHARE) * plan.share)) for plan in plans]
        plans.append(replace(plans[coarsest], share=round(1000 * PROBE_SHARE)))
    seeds = chain_seeds(numerics.seed, len(plans), chains, numerics.ranks)
    job = {
        "format": FORMAT,
        "terms": terms.to_dict(),
        "observables": list(observables),
        "settings": numerics.model_dump(mode="json"),
        "projector": projector,
        "dtau": list(steps),
        "chains": chains,
        "ranks": numerics.ranks,
        "seeds": seeds,
        "sweeps_per_bin": [plan.sweeps_per_bin for plan in plans],
        "bins": [plan.bins for plan in plans],
        "time_slices": slices,
    }
    if projector:
        job |= {"theta": numerics.projection_time, "window": [beta for beta, _ in lengths]}
    else:
        job["beta"] = terms.state.beta  # type: ignore[union-attr]
    files = {
        "job.json": json.dumps(job, indent=1) + "\n",
        "terms.dat": terms_text(terms),
        "run.sh": _script(terms, numerics, chains, plans, target),
    }
    if isinstance(terms.state, Canonical):
        files["trial.dat"] = trial_text(trial_orbitals(terms, terms.state.n_up))
        if probe:
            orbitals = probe_orbitals(terms, terms.state.n_up)
            files[f"dtau-{len(steps)}/trial.dat"] = trial_text(orbitals)
            job["probe"] = {"step": len(steps), "compare": coarsest}
            files["job.json"] = json.dumps(job, indent=1) + "\n"
            steps, lengths = (*steps, steps[coarsest]), [*lengths, lengths[coarsest]]
    for k, (step, (beta, theta), plan) in enumerate(zip(steps, lengths, plans, strict=True)):
        files[f"dtau-{k}/parameters"] = _parameters(
            numerics, measured, step, beta, theta, projector, plan
        )
        for c in range(chains):
            text = "".join(f"{value}\n" for value in seeds[k][c])
            files[f"dtau-{k}/chain-{c}/seeds"] = text
    return files


def needs_probe(terms: Terms) -> bool:
    """Whether a second trial state has to show that the projection is long enough.

    Where the sector is small, that is computed exactly instead.
    """
    if not isinstance(terms.state, Canonical):
        return False
    # imported here, and only for these: it takes as long as a tenth of a short run
    from bilayer_orchestra.engines.alf.estimate.projection_exact import in_reach

    return not in_reach(terms)


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


def _lengths(terms: Terms, numerics: ALFNumerics, step: float) -> tuple[float, float]:
    """Return (beta, theta): the temperature, or the window and the projection time."""
    if not isinstance(terms.state, Canonical):
        return terms.state.beta, 0.0
    theta = numerics.projection_time
    return step * max(1, round(WINDOW * theta / step)), theta


def _parameters(
    numerics: ALFNumerics,
    measured: dict[str, bool],
    step: float,
    beta: float,
    theta: float,
    projector: bool,
    plan: StepPlan,
) -> str:
    # measurements closer to the trial state show whether theta is long enough; time-displaced ones
    # need the window alone
    edge = projector and round(theta / step) >= 2 and not numerics.pair_displaced
    interval = max(1, min(round(STABILIZATION_TIME / step), MOST_SLICES))
    values = {
        "DTAU": _real(step),
        "BETA": _real(beta),
        "THETA": _real(theta),
        "PROJECTOR": _logical(projector),
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


def _real(value: Any) -> str:
    """Return the shortest decimal that reads back as the same number."""
    return repr(float(value))


def _logical(value: bool) -> str:
    return ".true." if value else ".false."
