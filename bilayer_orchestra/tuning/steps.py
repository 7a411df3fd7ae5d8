"""The runs of a search: ordinary run directories, so that none is ever computed twice."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from bilayer_orchestra.engines.base import Engine
from bilayer_orchestra.files import write_text_atomic
from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.running.directory import RunDirectory
from bilayer_orchestra.running.point import run_point
from bilayer_orchestra.runtimes.base import AttachedRuntime
from bilayer_orchestra.terms import FloatArray

STEPS, SECONDS = "steps", "seconds.json"


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
    final : bool
        Whether it was made with the accuracy of the result.
    dataset : Dataset
        The whole result.
    """

    mu: FloatArray
    density: FloatArray
    covariance: FloatArray
    degrees: float
    seconds: float
    final: bool
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


class Steps:
    """Runs variants of one model and remembers them in their order.

    Parameters
    ----------
    directory : Path
        Of the search; its runs are below ``steps``.
    engine : Engine
        Who solves them.
    runtime : AttachedRuntime
        Where.
    on_progress : callable
        Receives one line whenever there is something new to say.
    wait : bool
        Whether to wait for another process that computes the same step.
    """

    def __init__(
        self,
        directory: Path,
        engine: Engine,
        runtime: AttachedRuntime,
        on_progress: Callable[[str], None],
        wait: bool,
    ) -> None:
        self.directory, self.engine, self.runtime = directory / STEPS, engine, runtime
        self.on_progress, self.wait = on_progress, wait
        self.done: list[Step] = []
        self._last: RunDirectory | None = None

    def run(self, model: Model, mu: FloatArray, final: bool) -> Step:
        """Solve ``model`` at ``mu``, or take the stored result, and remember the step.

        Parameters
        ----------
        model : Model
            A variant of the model, by its settings and observables.
        mu : array, shape (layers,)
            Chemical potentials.
        final : bool
            Whether its accuracy is that of the result.
        """
        layers = list(model.potentials())
        where = f"step {len(self.done) + 1} ({named('mu_{} = {:.6g}', layers, mu, ', ')})"
        begin = time.monotonic()
        outcome = run_point(
            model.at(*mu),
            self.engine,
            self.runtime,
            self.directory,
            lambda line: self.on_progress(f"{where}  {line}"),
            self.wait,
            start=self._last,
        )
        self._last = outcome.run
        seconds = self._seconds(outcome.run, time.monotonic() - begin, outcome.reused)
        densities = layer_densities(outcome.dataset, layers)
        step = Step(np.array(mu, float), *densities, seconds, final, outcome.dataset)
        self.done.append(step)
        error = f" +- {step.stderr[0]:.1e}" if step.stderr[0] > 0 else ""
        first, *others = (named("n_{} = {:.6f}", layers, step.density, "\n")).splitlines()
        self.on_progress("  ".join([where, first + error, *others]))
        return step

    def _seconds(self, run: RunDirectory, elapsed: float, reused: bool) -> float:
        """Return what the run cost when it was computed, which survives a kill of the search."""
        path = run.path / SECONDS
        if reused:
            try:
                return float(json.loads(path.read_text()))
            except (OSError, ValueError, TypeError):
                return float("nan")
        write_text_atomic(path, json.dumps(round(elapsed, 3)) + "\n")
        return elapsed


def named(form: str, layers: Iterable[str], values: Iterable[float], between: str = " and ") -> str:
    """Return values with their layers' names.

    Parameters
    ----------
    form : str
        Of one of them, as in ``"mu_{} = {:.6g}"``.
    layers, values : iterable
        The names and the numbers.
    between : str
        What stands between two of them.
    """
    return between.join(form.format(*pair) for pair in zip(layers, values, strict=True))


def measuring(model: Model, *observables: str) -> Model:
    """Return the model that measures these observables, too."""
    return model.model_copy(
        update={"observables": tuple(dict.fromkeys([*model.observables, *observables]))}
    )


def cheaper_model(
    model: Model, engine: Engine, effort: float = 0.0, observables: Sequence[str] = ()
) -> Model | None:
    """Return the model with the engine's cheaper settings, measuring densities only.

    The beginning of a search only has to come near.

    Parameters
    ----------
    model : Model
        The model with its accurate settings.
    engine : Engine
        Whose settings become cheaper.
    effort : float
        Wished part of the accurate run's effort, for engines with noise.
    observables : sequence of str
        What the search needs besides densities.

    Returns
    -------
    Model or None
        None if the engine knows nothing cheaper.
    """
    cheap = engine.cheaper(getattr(model.numerics, engine.name), effort)
    if cheap is None:
        return None
    few = model.model_copy(update={"observables": ("density", *observables)})
    return few.with_settings(engine.name, cheap)


def layer_densities(dataset: xr.Dataset, layers: list[str]) -> tuple[FloatArray, FloatArray, float]:
    """Return electrons per site of each layer, their covariance and its degrees of freedom."""
    density = dataset["density"].sum("spin").mean("x").sel(layer=layers).values
    if "density_deviation" not in dataset:
        return density, np.zeros((len(layers), len(layers))), np.inf
    blocks = dataset["density_deviation"].astype(float).sum("spin").mean("x").sel(layer=layers)
    deviations = blocks.transpose("block", "layer").values
    degrees = float(dataset["density"].attrs.get("covariance_degrees_of_freedom", np.inf))
    return density, deviations.T @ deviations, degrees
