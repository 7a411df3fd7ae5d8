"""The runs of a search: ordinary run directories, so that none is ever computed twice."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from bilayer_orchestra.engines.base import Engine
from bilayer_orchestra.files import write_text_atomic
from bilayer_orchestra.model.bilayer import BilayerModel
from bilayer_orchestra.running.directory import RunDirectory
from bilayer_orchestra.runtimes.base import AttachedRuntime
from bilayer_orchestra.terms import FloatArray

LAYERS = ("P", "M")
STEPS, SECONDS = "steps", "seconds.json"


@dataclass(frozen=True)
class Step:
    """One run of the search; pairs are (P, M).

    Parameters
    ----------
    mu, density : array, shape (2,)
        Chemical potentials, and electrons per site (both spins).
    covariance : array, shape (2, 2)
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
        """Standard errors of the densities, shape (2,)."""
        return np.sqrt(np.diagonal(self.covariance))


class Steps:
    """Runs variants of one model and remembers them in their order."""

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

    def run(self, model: BilayerModel, mu: FloatArray, final: bool) -> Step:
        """Solve ``model`` at ``mu``, or take the stored result, and remember the step."""
        from bilayer_orchestra.running.point import run_point

        variant = model.at(float(mu[0]), float(mu[1]))
        number = len(self.done) + 1
        where = f"step {number} (mu_P = {mu[0]:.6g}, mu_M = {mu[1]:.6g})"
        begin = time.monotonic()
        outcome = run_point(
            variant,
            self.engine,
            self.runtime,
            self.directory,
            lambda line: self.on_progress(f"{where}  {line}"),
            self.wait,
            start=self._last,
        )
        self._last = outcome.run
        seconds = self._seconds(outcome.run, time.monotonic() - begin, outcome.reused)
        density, covariance, degrees = layer_densities(outcome.dataset)
        step = Step(
            np.array(mu, float), density, covariance, degrees, seconds, final, outcome.dataset
        )
        self.done.append(step)
        errors = "".join(f" +- {error:.1e}" if error > 0 else "" for error in step.stderr[:1])
        self.on_progress(f"{where}  n_P = {density[0]:.6f}{errors}  n_M = {density[1]:.6f}")
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


def layer_densities(dataset: xr.Dataset) -> tuple[FloatArray, FloatArray, float]:
    """Return electrons per site (P, M), their covariance and its degrees of freedom."""
    layers = list(LAYERS)
    density = dataset["density"].sum("spin").mean("x").sel(layer=layers).values
    if "density_deviation" not in dataset:
        return density, np.zeros((2, 2)), np.inf
    blocks = dataset["density_deviation"].astype(float).sum("spin").mean("x").sel(layer=layers)
    deviations = blocks.transpose("block", "layer").values
    degrees = float(dataset["density"].attrs.get("covariance_degrees_of_freedom", np.inf))
    return density, deviations.T @ deviations, degrees
