"""Auxiliary-field quantum Monte Carlo with ALF."""

from pathlib import Path
from typing import ClassVar

import numpy as np

from bilayer_orchestra.averages import Averages
from bilayer_orchestra.configuration import config_file, engine_settings, set_engine_setting
from bilayer_orchestra.engines.alf import installation
from bilayer_orchestra.engines.alf.build import RECIPE, Options, Say, build_alf
from bilayer_orchestra.engines.alf.effort import sweep_seconds
from bilayer_orchestra.engines.alf.monitor import Monitor
from bilayer_orchestra.engines.alf.settings import ALFNumerics
from bilayer_orchestra.engines.alf.steps import duration, round_time, time_steps
from bilayer_orchestra.engines.base import Engine, Job, Request, Sampling, Tools
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.files import variable
from bilayer_orchestra.machine import available_cores, thread_environment
from bilayer_orchestra.terms import Canonical

#: Shortest runs in sweeps: below, starting and warming up costs more than sampling.
LEAST_SWEEPS = 200
#: Shortest runs in seconds, for the same reason.
LEAST_SECONDS = 3.0


class ALFEngine(Engine):
    """Finite temperature (grand canonical) and projector (canonical ground state)."""

    name = "alf"
    revision = 4  # degenerate ground levels are recognized; biases are sizes
    summary = "auxiliary-field quantum Monte Carlo with ALF; T > 0 and T = 0, attractive models"
    ensembles = ("canonical", "thermal")
    stochastic = True
    systematics = ("Trotter",)
    settings = ALFNumerics
    configuration: ClassVar = {"alf": ("binary", "source", "launcher")}
    recipe = RECIPE
    auto = 4

    def __init__(self) -> None:
        self._monitors: dict[Path, Monitor] = {}

    def version(self) -> str:
        """Return ALF's version, our Hamiltonian's and the build."""
        return installation.find_alf().label

    def place(self) -> str:
        """Return which binary is used and who named it."""
        used = installation.find_alf()
        return f"{used.binary} ({used.origin})"

    def tools(self) -> Tools:
        """Return the binary and how several ranks of it are started."""
        binary = installation.find_alf().binary
        configured = engine_settings(self.name).get("launcher", "mpiexec -n {ranks}")
        environment = {
            installation.VARIABLE: str(binary),
            installation.LAUNCHER_VARIABLE: variable(installation.LAUNCHER_VARIABLE) or configured,
        }
        return Tools(environment=environment, binaries=(binary,))

    def sampling(self, request: Request) -> Sampling:
        """Return what a sweep at the finest time step costs, and the sweeps of the whole run."""
        numerics: ALFNumerics = request.numerics
        terms = request.terms
        total = duration(terms, numerics)[1]
        slices = max(round(total / step) for step in time_steps(terms, numerics))
        seconds = sweep_seconds(terms.n_sites, slices, displaced=False)
        chains = numerics.chains or available_cores()
        if numerics.effective_budget is None:
            return Sampling(seconds, float((numerics.sweeps or 0) * chains))
        side_by_side = min(chains, available_cores())
        return Sampling(seconds, numerics.effective_budget / seconds * side_by_side)

    def round_time(self, settings: ALFNumerics, needed: float) -> float:
        """Return a time whose half and quarter are whole numbers of all time steps."""
        if settings.dtau == "auto":
            return super().round_time(settings, needed)
        return round_time(settings, needed)

    def projection_time(self, settings: ALFNumerics) -> float:
        """Return theta."""
        return settings.projection_time

    def with_projection_time(self, settings: ALFNumerics, time: float) -> ALFNumerics:
        """Return the settings with another theta."""
        data = settings.model_dump(mode="python", exclude_unset=True)
        return ALFNumerics.model_validate(data | {"projection_time": time})

    def cheaper(self, settings: ALFNumerics, effort: float) -> ALFNumerics:
        """Return a run of ``effort`` times the length.

        The time steps stay: their error moves the densities, and chemical potentials with them.
        """
        update: dict[str, object] = {"target_stderr": {}, "pair_susceptibility": False}
        if settings.sweeps is not None:
            update["sweeps"] = max(LEAST_SWEEPS, round(effort * settings.sweeps))
        budget = settings.effective_budget
        if budget is not None:
            update["time_budget"] = max(LEAST_SECONDS, round(effort * budget, 1))
        return settings.model_copy(update=update)

    def self_test(self) -> str | None:
        """Run a tiny model; return what is wrong, or None."""
        used = installation.find_alf()
        if used.stale:
            return "it was built with an older Hamiltonian; run `orchestra engines build alf` again"
        return installation.probe(used.binary)

    def build(self, source: Path | None, options: Options, rebuild: bool, say: Say) -> None:
        """Compile ALF with our Hamiltonian; the parameters are those of every engine."""
        named = source or engine_settings(self.name).get("source")
        if named is None:
            raise OrchestraError(
                "name your ALF source tree: orchestra engines build alf --source DIR "
                "(git clone https://github.com/ALF-QMC/ALF brings one)"
            )
        tree = Path(named).resolve()
        made = build_alf(tree, options, say, rebuild)
        set_engine_setting(self.name, "source", str(tree))
        say(f"{made.label}\nbinary   {made.binary}\nsettings {config_file()}")
        used = installation.find_alf()
        if used.binary != made.binary:
            say(f"note: runs still use {used.binary}, named by {used.origin}")

    def installations(self) -> list[str]:
        """Return two lines for every build, the one in use marked, or why there is none."""
        used, lines = None, []
        try:
            used = installation.find_alf()
        except OrchestraError as error:
            lines.append(str(error))
        builds = installation.finished_builds()
        if used and used.binary not in [build.binary for build in builds]:
            builds.append(used)
        for build in builds:
            marks = ["in use"] if used and build.binary == used.binary else []
            marks += ["older Hamiltonian"] if build.stale else []
            mark = f"  [{', '.join(marks)}]" if marks else ""
            lines += [f"{build.label}{mark}", f"{build.binary}  ({build.origin})"]
        return lines

    def check(self, request: Request) -> None:
        """Refuse what has a sign problem, and time steps that do not divide."""
        numerics: ALFNumerics = request.numerics
        terms, state = request.terms, request.terms.state
        repulsive = np.flatnonzero(terms.interaction > 0)
        if repulsive.size:
            site, value = terms.sites[int(repulsive[0])], terms.interaction[repulsive[0]]
            raise OrchestraError(
                f"alf: the interaction {value:g} at site ({', '.join(map(str, site))}) is "
                "repulsive: with any doping this has a sign problem, and only U <= 0 is free of "
                "it. At half filling on a bipartite lattice a particle-hole transformation of one "
                "spin maps it to U < 0: `model: anderson` does that. For other ground states use "
                "--backend block2"
            )
        if isinstance(state, Canonical):
            if state.n_up != state.n_down:
                raise OrchestraError(
                    f"alf: n_up = {state.n_up} and n_down = {state.n_down} differ; the weight of "
                    "this method is the square of one spin's determinant, positive only for equal "
                    "numbers of both spins. Use --backend block2"
                )
            if state.n_up in (0, terms.n_sites):  # a full lattice has no stable projection
                what = "every site is full" if state.n_up else "there are no electrons"
                raise OrchestraError(f"alf: {what}: there is one state; use --backend exact")
            if numerics.pair_susceptibility:
                raise OrchestraError(
                    "alf: numerics.alf.pair_susceptibility is an integral over imaginary time up "
                    "to beta; it needs a thermal state (`state: {beta: ...}`)"
                )
        time_steps(terms, numerics)
        for name in numerics.target_stderr:
            if not name.endswith("energy") and name not in request.observables:
                raise OrchestraError(
                    f"alf: numerics.alf.target_stderr names `{name}`, which is not among the "
                    "observables of the model; add it there"
                )

    def render(self, request: Request) -> Job:
        """Return the job: ``sh run.sh`` and its files."""
        from bilayer_orchestra.engines.alf.render import render_files

        numerics: ALFNumerics = request.numerics
        cores = max(1, available_cores() // numerics.ranks)
        return Job(
            program="sh",
            arguments=("run.sh",),
            files=render_files(request, cores),
            environment=thread_environment(1),
            launcher=installation.LAUNCHER_VARIABLE,
            ranks=numerics.ranks,
        )

    def progress(self, directory: Path, request: Request) -> list[str]:
        """Return bins, errors and the time that is left."""
        return self._monitor(directory, request).lines()

    def has_target(self, request: Request) -> bool:
        """Return whether a target for errors is set."""
        return bool(request.numerics.target_stderr)

    def enough(self, directory: Path, request: Request) -> bool:
        """Return whether the errors of all targets are small enough."""
        return self._monitor(directory, request).reached()

    def _monitor(self, directory: Path, request: Request) -> Monitor:
        if directory not in self._monitors:
            self._monitors[directory] = Monitor(directory, request)
        return self._monitors[directory]

    def parse(self, directory: Path, request: Request) -> Averages:
        """Read the bins of all chains and time steps."""
        from bilayer_orchestra.engines.alf.results import averages_from_job

        self._monitors.pop(directory, None)
        averages = averages_from_job(directory, request)
        if isinstance(request.terms.state, Canonical):
            from bilayer_orchestra.engines.alf.projection import judge_projection

            judge_projection(directory, request, averages)
        return averages
