"""Auxiliary-field quantum Monte Carlo with ALF as a backend."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bilayer_orchestra.averages import Averages
from bilayer_orchestra.engines.alf.settings import ALFNumerics
from bilayer_orchestra.engines.alf.watch.monitor import Monitor
from bilayer_orchestra.engines.base import Job, Request
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.machine import available_cores, thread_environment
from bilayer_orchestra.terms import Canonical, Terms


class ALFEngine:
    """Finite temperature (grand canonical) and projector (canonical ground state)."""

    name = "alf"
    revision = 4  # degenerate ground levels are recognized; biases are sizes
    summary = "auxiliary-field quantum Monte Carlo with ALF; T > 0 and T = 0, attractive models"
    state_name: str | None = None

    def __init__(self) -> None:
        self._monitors: dict[Path, Monitor] = {}

    def version(self) -> str:
        """Return ALF's version, our Hamiltonian's and the build."""
        from bilayer_orchestra.engines.alf.install.installation import find_alf

        return find_alf().label

    def place(self) -> str:
        """Return which binary is used and who named it."""
        from bilayer_orchestra.engines.alf.install.installation import find_alf

        installation = find_alf()
        return f"{installation.binary} ({installation.origin})"

    def self_test(self) -> str | None:
        """Run a tiny model; return what is wrong, or None."""
        from bilayer_orchestra.engines.alf.install.installation import find_alf
        from bilayer_orchestra.engines.alf.install.probe import probe

        installation = find_alf()
        if installation.stale:
            return "it was built with an older Hamiltonian; run `orchestra engines build alf` again"
        return probe(installation.binary)

    def check(self, request: Request) -> None:
        """Refuse what has a sign problem, and time steps that do not divide."""
        from bilayer_orchestra.engines.alf.input.steps import time_steps

        numerics = request.numerics
        assert isinstance(numerics, ALFNumerics)
        _check_signs(request.terms)
        if isinstance(request.terms.state, Canonical):
            _check_projector(request.terms.state, numerics)
        time_steps(request.terms, numerics)
        for name in numerics.target_stderr:
            if not name.endswith("energy") and name not in request.observables:
                raise OrchestraError(
                    f"alf: numerics.alf.target_stderr names `{name}`, which is not among the "
                    "observables of the model; add it there"
                )

    def render(self, request: Request) -> Job:
        """Return the job: ``sh run.sh`` and its files."""
        from bilayer_orchestra.engines.alf.input.render import render_files

        numerics = request.numerics
        assert isinstance(numerics, ALFNumerics)
        cores = max(1, available_cores() // numerics.ranks)
        return Job(
            program="sh",
            arguments=("run.sh",),
            files=render_files(request.terms, request.observables, numerics, cores),
            environment=thread_environment(1),
            engine="alf",
            ranks=numerics.ranks,
        )

    def progress(self, directory: Path, request: Request) -> list[str]:
        """Return bins, errors and the time that is left; stops the run at its target."""
        if directory not in self._monitors:
            from bilayer_orchestra.engines.alf.estimate.results import quick_error

            self._monitors[directory] = Monitor(directory, request, quick_error)
        return self._monitors[directory].lines()

    def parse(self, directory: Path, request: Request) -> Averages:
        """Read the bins of all chains and time steps."""
        from bilayer_orchestra.engines.alf.estimate.results import averages_from_job

        numerics = request.numerics
        assert isinstance(numerics, ALFNumerics)
        self._monitors.pop(directory, None)
        averages = averages_from_job(directory, request.terms, request.observables, numerics)
        if isinstance(request.terms.state, Canonical):
            _judge_projection(directory, request, averages)
        return averages


def _judge_projection(directory: Path, request: Request, averages: Averages) -> None:
    """Add to the verdict whether the projection time was long enough, and to the bias what is left.

    See docs/decisions/0010.
    """
    from bilayer_orchestra.engines.alf.estimate import projection
    from bilayer_orchestra.engines.alf.input.steps import time_steps
    from bilayer_orchestra.engines.alf.output.segments import read_job

    terms, numerics = request.terms, request.numerics
    assert isinstance(numerics, ALFNumerics)
    theta = numerics.projection_time
    steps = time_steps(terms, numerics)
    finest = steps.index(min(steps))  # has most of the bins
    problem = projection.not_projected(directory / f"dtau-{finest}", terms.n_sites, theta)
    passed = "half the projection time gives the same within errors"
    if projection.in_reach(terms):
        worse, errors = projection.not_yet_ground_state(terms, theta, averages)
        problem = worse or problem
        for name in errors.keys() & averages.bias.keys():
            averages.bias[name] = averages.bias[name] + np.abs(errors[name])
        passed += " and what is left of the trial state, computed exactly, is below the errors"
    elif "probe" in read_job(directory):
        problem = problem or projection.depends_on_trial(
            directory, terms, request.observables, theta
        )
        passed += " and so does another trial state"
    if problem is None:
        averages.reason += f"; {passed}"
        return
    averages.reason = f"{averages.reason}; {problem}" if not averages.converged else problem
    averages.converged = False


def _check_signs(terms: Terms) -> None:
    repulsive = np.flatnonzero(terms.interaction > 0)
    if repulsive.size == 0:
        return
    site, value = terms.sites[int(repulsive[0])], terms.interaction[repulsive[0]]
    raise OrchestraError(
        f"alf: the interaction {value:g} at site ({site.layer}, {site.x}) "
        "is repulsive: with any doping this has a sign problem, and only U <= 0 is free of it. At "
        "half filling on a bipartite lattice a particle-hole transformation of one spin maps it to "
        "U < 0: `model: anderson` does that. For other ground states use --backend block2"
    )


def _check_projector(state: Canonical, numerics: ALFNumerics) -> None:
    if state.n_up != state.n_down:
        raise OrchestraError(
            f"alf: n_up = {state.n_up} and n_down = {state.n_down} differ; the weight of this "
            "method is the square of one spin's determinant, positive only for equal numbers of "
            "both spins. Use --backend block2"
        )
    if state.n_up == 0:
        raise OrchestraError("alf: there are no electrons; use --backend exact")
    if numerics.pair_susceptibility:
        raise OrchestraError(
            "alf: numerics.alf.pair_susceptibility is an integral over imaginary time up to beta; "
            "it needs a thermal state (`state: {beta: ...}`)"
        )
