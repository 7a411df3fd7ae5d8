"""What both searches for chemical potentials share: their runs, and where they begin.

Runs are ordinary run directories, so that none is ever computed twice. A search starts from layers
taken apart, interactions in mean field. That is only a start: what is found does not depend on it.
"""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.optimize import brentq

from bilayer_orchestra.dataset.schema import append_history
from bilayer_orchestra.engines.base import Engine
from bilayer_orchestra.files import write_text_atomic
from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.observables import COMPANION, ENERGY_UNITS
from bilayer_orchestra.running.directory import RunDirectory, request_hash
from bilayer_orchestra.running.point import Runner, run_point
from bilayer_orchestra.terms import FloatArray

#: Directory, in that of the search, of its runs.
STEPS = "steps"
#: File in the directory of a run: the seconds that it took when it was computed.
SECONDS = "seconds.json"
#: Smallest energy, in the unit of the model file, that a search takes for a coupling.
SMALLEST = 1e-3
#: Temperature that rounds the levels of a cold chain off, over its hopping.
SMEARING = 0.02
_PER_SITE = "electrons per site, both spins"
#: What a search adds to a dataset -> units, long name, definition.
DESCRIPTIONS = {
    "target_density": ("1", "target density", f"wished {_PER_SITE}"),
    "chemical_potential": (ENERGY_UNITS, "tuned chemical potential", "mu of -mu n"),
    "chemical_potential_uncertainty": (
        ENERGY_UNITS,
        "uncertainty of the tuned chemical potential",
        "deviation and statistical error of the densities over the slope dn/dmu",
    ),
    "tuning_chemical_potential": (ENERGY_UNITS, "chemical potentials of the search", "in order"),
    "tuning_density": ("1", "densities of the search", _PER_SITE),
    "tuning_density_stderr": (
        "1",
        "standard error of the densities of the search",
        "statistical standard error; 0 for engines without noise",
    ),
    "tuning_seconds": ("s", "wall time of a run", "of the search"),
    "tuning_cost": ("1", "cost of the search", "wall time of all runs over that of the last one"),
}


@dataclass(frozen=True)
class Step:
    """One run of the search; arrays are over the layers.

    Parameters
    ----------
    mu, density : array, shape (layers,)
        Chemical potentials, and electrons per site (both spins).
    covariance : array, shape (layers, layers)
        Statistical covariance of the densities; zero for engines without noise.
    degrees : float
        Degrees of freedom of the covariance.
    seconds : float
        Wall time that the run took when it was computed.
    dataset : Dataset
        The whole result.
    """

    mu: FloatArray
    density: FloatArray
    covariance: FloatArray
    degrees: float
    seconds: float
    dataset: xr.Dataset

    @property
    def stderr(self) -> FloatArray:
        """Standard errors of the densities, shape (layers,)."""
        return np.sqrt(np.diagonal(self.covariance))


class Found(NamedTuple):
    """The run at the wished densities, the uncertainty of its mu (layers,), and the tolerance."""

    step: Step
    uncertainty: FloatArray
    tolerance: float


@dataclass
class Search:
    """Runs variants of one model and remembers them in their order.

    Parameters
    ----------
    model : Model
        With the wished densities.
    engine : Engine
        Who solves it.
    run : RunDirectory
        Of the search; its runs are below ``steps``.
    runner : Runner
        How the search is run.
    """

    model: Model
    engine: Engine
    run: RunDirectory
    runner: Runner

    def __post_init__(self) -> None:
        assert self.model.wished is not None
        terms, self.filling = self.model.terms(), self.model.wished
        densities = self.filling.densities()
        self.layers, self.target = list(densities), np.array(list(densities.values()))
        self.length = terms.n_sites // len(densities)
        largest = max(np.abs(terms.hopping).max(), np.abs(terms.interaction).max())
        #: The largest hopping or interaction, which sets how far mu can matter.
        self.coupling = max(float(largest), SMALLEST)
        self.given, beta = self.model.chemical_potentials(), getattr(terms.state, "beta", math.inf)
        guesses = []
        for layer, density in densities.items():
            sites = [k for k, site in enumerate(terms.sites) if site.layer == layer]
            hopping = float(np.abs(terms.hopping[np.ix_(sites, sites)]).max())
            guesses.append(layer_guess(hopping, float(terms.interaction[sites[0]]), density, beta))
        self.guesses = np.array(guesses)
        self.done: list[Step] = []
        self._last: RunDirectory | None = None

    def find(self) -> Found:
        """Return the run with the wished densities.

        Raises
        ------
        OrchestraError
            If the densities are not reached.
        """
        raise NotImplementedError

    def solve(self, model: Model, mu: FloatArray) -> Step:
        """Solve a variant of the model at ``mu``, or take the stored result; remember the step.

        Parameters
        ----------
        model : Model
            A variant by its settings and observables.
        mu : array, shape (layers,)
            Chemical potentials.
        """
        tell = self.runner.tell
        where = f"step {len(self.done) + 1} ({self.named('mu_{} = {:.6g}', mu, ', ')})"
        runner = replace(
            self.runner,
            root=self.run.path / STEPS,
            any_version=False,  # it was chosen for the whole search
            tell=lambda line: tell(f"{where}  {line}"),
        )
        begin = time.monotonic()
        outcome = run_point(model.at(*mu), self.engine, runner, self._last)
        seconds = self._seconds(outcome.run, time.monotonic() - begin, outcome.reused)
        self._last = outcome.run
        densities = layer_densities(outcome.dataset, self.layers)
        step = Step(np.array(mu, float), *densities, seconds, outcome.dataset)
        self.done.append(step)
        error = f" +- {step.stderr[0]:.1e}" if step.stderr[0] > 0 else ""
        first, *others = self.named("n_{} = {:.6f}", step.density, "\n").splitlines()
        tell("  ".join([where, first + error, *others]))
        return step

    def _seconds(self, run: RunDirectory, elapsed: float, reused: bool) -> float:
        """Return what the run cost when it was computed, which survives a kill of the search."""
        path = run.path / SECONDS
        if not reused:
            write_text_atomic(path, f"{elapsed:.3f}\n")
            return elapsed
        try:
            return float(path.read_text())
        except (OSError, ValueError):
            return math.nan

    def label(self, found: Found) -> xr.Dataset:
        """Return the last run's dataset with the tuned values and the history of the search."""
        last, uncertainty, tolerance = found
        dataset = last.dataset.copy()
        if "density" not in self.model.observables:
            unasked = [name for name in dataset if COMPANION.sub("", str(name)) == "density"]
            dataset = dataset.drop_vars(unasked)
        seconds = [step.seconds for step in self.done]
        steps, history = np.arange(1, len(seconds) + 1), ("step", "layer")
        search = xr.Dataset(
            {
                "target_density": ("layer", self.target),
                "chemical_potential": ("layer", last.mu),
                "chemical_potential_uncertainty": ("layer", uncertainty),
                "tuning_chemical_potential": (history, [step.mu for step in self.done]),
                "tuning_density": (history, [step.density for step in self.done]),
                "tuning_density_stderr": (history, [step.stderr for step in self.done]),
                "tuning_seconds": ("step", seconds),
                "tuning_cost": sum(seconds) / last.seconds if last.seconds > 0 else math.nan,
            }
        )
        dataset = dataset.assign_coords(layer=self.layers, step=steps).assign(search.astype(float))
        for name, words in DESCRIPTIONS.items():
            dataset[name].attrs = dict(
                zip(("units", "long_name", "definition"), words, strict=True)
            )
        missed = ", ".join(
            f"n_{name} {value:.6g} (target {target:g})"
            for name, value, target in zip(self.layers, last.density, self.target, strict=True)
        )
        reason = f"{missed} after {len(steps)} runs; {dataset.attrs['converged_reason']}"
        reached = False
        if np.abs(last.density - self.target).max() > tolerance:
            reason = f"densities miss their targets by more than {tolerance:g}: {reason}"
        elif (last.stderr > tolerance).any():
            reason = (
                f"error of the densities {last.stderr.max():.1e} exceeds the tolerance "
                f"{tolerance:g} (raise the time_budget or the tolerance): {reason}"
            )
        else:
            reached = True
        dataset.attrs |= {
            "model": self.model.to_yaml(),
            "tuned_model": dataset.attrs["model"],
            "request_hash": request_hash(self.model, self.engine),
            "converged": int(bool(dataset.attrs["converged"]) and reached),
            "converged_reason": reason,
        }
        append_history(dataset, f"chemical potentials tuned in {len(steps)} runs")
        return dataset

    def named(
        self, form: str, values: Iterable[float], between: str = " and ", first: int = 0
    ) -> str:
        """Return values with their layers' names.

        Parameters
        ----------
        form : str
            Of one of them, as in ``"mu_{} = {:.6g}"``.
        values : iterable
            The numbers.
        between : str
            What stands between two of them.
        first : int
            The layer of the first one.
        """
        pairs = zip(self.layers[first:], values, strict=True)
        return between.join(form.format(*pair) for pair in pairs)

    def measuring(self, *observables: str) -> Model:
        """Return the model that measures these observables, too."""
        wished = tuple(dict.fromkeys([*self.model.observables, *observables]))
        return self.model.model_copy(update={"observables": wished})

    def cheaper(self, *observables: str, effort: float = 0.0) -> Model | None:
        """Return the model with the engine's cheaper settings, measuring these alone.

        The beginning of a search only has to come near.

        Parameters
        ----------
        *observables : str
            What the search needs.
        effort : float
            Wished part of the accurate run's effort, for engines with noise.

        Returns
        -------
        Model or None
            None if the engine knows nothing cheaper.
        """
        cheap = self.engine.cheaper(getattr(self.model.numerics, self.engine.name), effort)
        if cheap is None:
            return None
        few = self.model.model_copy(update={"observables": observables})
        return few.with_settings(self.engine.name, cheap)


def layer_densities(dataset: xr.Dataset, layers: list[str]) -> tuple[FloatArray, FloatArray, float]:
    """Return electrons per site of each layer, their covariance and its degrees of freedom."""
    density = dataset["density"].sum("spin").mean("x").sel(layer=layers).values
    if "density_deviation" not in dataset:
        return density, np.zeros((len(layers), len(layers))), np.inf
    blocks = dataset["density_deviation"].astype(float).sum("spin").mean("x").sel(layer=layers)
    deviations = blocks.transpose("block", "layer").values
    degrees = float(dataset["density"].attrs.get("covariance_degrees_of_freedom", np.inf))
    return density, deviations.T @ deviations, degrees


def layer_guess(hopping: float, interaction: float, density: float, beta: float) -> float:
    """Return mu of one isolated chain.

    An attractive site binds pairs: each electron gains U/2. A repulsive one feels U n / 2. The free
    chain has levels -2 t cos k; a chain without hopping follows the Fermi function.

    Parameters
    ----------
    hopping, interaction : float
        t and U, in units of energy.
    density : float
        Electrons per site, both spins.
    beta : float
        Inverse temperature, in 1/energy; may be infinite.
    """
    shift = interaction / 2 * (1.0 if interaction < 0 else density)
    levels = -2 * hopping * np.cos(np.pi * (np.arange(200) + 0.5) / 200)
    temperature = max(1 / beta, SMEARING * max(hopping, SMALLEST))
    edge = 2 * hopping + 50 * temperature

    def excess(mu: float) -> float:
        return float(np.mean(2 / (1 + np.exp((levels - mu) / temperature)))) - density

    return float(brentq(excess, -edge, edge)) + shift
