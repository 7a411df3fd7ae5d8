"""The search at T > 0: where to run next, how long, and when to stop.

Every run follows from the results before it, so a search that was killed repeats itself up to the
run that was interrupted. What is learnt from the runs is in
:mod:`bilayer_orchestra.tuning.response`.
"""

from __future__ import annotations

import numpy as np

from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.model.bilayer import BilayerModel
from bilayer_orchestra.model.state import ThermalState
from bilayer_orchestra.terms import FloatArray
from bilayer_orchestra.tuning.cheap import cheaper_model
from bilayer_orchestra.tuning.guess import energy_scale, layer_guess
from bilayer_orchestra.tuning.response import Measurement, Prediction, predict, response_at
from bilayer_orchestra.tuning.steps import Step, Steps

#: Of a layer's density, if the model file says nothing: without and with statistical noise.
TOLERANCE, NOISY_TOLERANCE = 1e-5, 2e-3
#: A short run's part of the effort of the last one; short runs together may take SHORT_TOTAL.
SHORT, SHORT_TOTAL = 0.05, 1.0
#: Predicted error of the densities, over the tolerance, at which the last run is worth its cost.
GOOD = 0.5
#: Runs without noise, and full runs with noise, that a search may take.
MAX_RUNS, MAX_FULL = 40, 3
#: Most effort of short runs if they do not come near at all.
MOST_SHORT = 3.0
#: Long steps are cut to this part of the energy scale at first.
FIRST_RADIUS = 0.5
#: A step has gone too far if the missing density along it is turned round by more than this part.
OVERSHOT = 0.3


def tune_thermal(model: BilayerModel, steps: Steps) -> tuple[Step, FloatArray, float]:
    """Return the run at the wished densities, the uncertainty of mu (2,), and the tolerance.

    Raises
    ------
    OrchestraError
        If the densities are not reached within the allowed number of runs.
    """
    search = _Search(model, steps)
    if steps.engine.stochastic:
        return search.with_noise()
    return search.without_noise()


class _Search:
    def __init__(self, model: BilayerModel, steps: Steps) -> None:
        assert model.filling is not None
        assert isinstance(model.state, ThermalState)
        self.steps, self.beta, self.length = steps, model.state.beta, model.length
        needed = ["density", "density_density"]
        self.model = model.model_copy(
            update={"observables": tuple(dict.fromkeys([*model.observables, *needed]))}
        )
        self.filling = model.filling
        self.target = np.array([model.filling.P, model.filling.M])
        layers = (model.layers.P, model.layers.M)
        self.scale = 1 / self.beta + energy_scale(
            (*(layer.hopping for layer in layers), model.t_perp),
            tuple(layer.interaction for layer in layers),
        )
        self.start = np.array(
            [
                layer.chemical_potential
                or layer_guess(layer.hopping, layer.interaction, wished, self.beta)
                for layer, wished in zip(layers, self.target, strict=True)
            ]
        )
        # until two runs tell: relative fluctuations are quantum mechanical below the hopping scale
        kinetic = 2 * max(abs(model.t_perp), *(abs(layer.hopping) for layer in layers))
        self.ratio = 1 / (1 + self.beta * kinetic / 2)
        self.radius = FIRST_RADIUS * self.scale
        # the response of a small cold system changes within the temperature, of others slower
        self.memory = 2 / self.beta + self.scale / self.length
        self.base: Measurement
        self.measured: list[Measurement] = []

    def without_noise(self) -> tuple[Step, FloatArray, float]:
        """Newton steps within a trust region."""
        tolerance = self.filling.tolerance or TOLERANCE
        mu = self.start
        for _ in range(MAX_RUNS):
            step = self._run(self.model, mu, final=True)
            self._judge()
            shift = self._newton()
            if np.abs(step.density - self.target).max() <= tolerance:
                return step, np.abs(shift), tolerance
            mu = self.base.mu + self._cut(shift)
        raise OrchestraError(self._failure())

    def with_noise(self) -> tuple[Step, FloatArray, float]:
        """Short runs until they predict the target well enough, then runs of full length."""
        tolerance = self.filling.tolerance or NOISY_TOLERANCE
        mu, spent, effort = self.start, 0.0, SHORT
        while True:
            cheap = cheaper_model(self.model, self.steps.engine, effort, ("density_density",))
            step = self._run(cheap or self.model, mu, final=False)
            spent += effort
            self._judge()
            prediction = self._predict()
            shift = prediction.mu - self.base.mu
            if shift @ self._miss(self.base) <= 0:  # noise of runs far away: not even downhill
                shift = self._newton()
            cut = self._cut(shift)
            mu = self.base.mu + cut
            near = np.abs(prediction.response @ (mu - step.mu)).max()
            noise = float(prediction.density_error.max())
            if cut is shift and (noise <= GOOD * tolerance or spent + effort > SHORT_TOTAL):
                break
            if spent > MOST_SHORT:
                break
            if near <= 3 * float(step.stderr.max()):
                effort *= 2  # noise is what remains: longer runs, not more of them
        for _ in range(MAX_FULL):
            step = self._run(self.model, mu, final=True)
            prediction = self._predict()
            miss = np.abs(step.density - self.target)
            # where the error of the run exceeds the tolerance, another one would not do better
            if miss.max() <= tolerance or (miss <= 2 * step.stderr).all():
                break
            mu = step.mu + self._cut(prediction.mu - step.mu)
        spread = np.diagonal(prediction.covariance)
        uncertainty = np.sqrt(spread + (prediction.mu - step.mu) ** 2)
        return step, uncertainty, tolerance

    def _judge(self) -> None:
        """Take the newest run as the new base, or shorten the steps that start from the old one.

        T log Z is convex in mu, so the component of the missing density along a step can only fall
        along it. A step that turns it round has gone too far.
        """
        newest = self.measured[-1]
        if len(self.measured) == 1:
            self.base = newest
            return
        shift = newest.mu - self.base.mu
        before = float(shift @ self._miss(self.base))
        after = float(shift @ self._miss(newest))
        noise = 2 * float(np.sqrt(shift @ newest.covariance @ shift))
        if after < -OVERSHOT * before - noise:
            fraction = min(max(before / (before - after), 0.1), 0.5)
            self.radius = fraction * float(np.linalg.norm(shift))
            return
        if after > 0.5 * before:
            self.radius = min(2 * self.radius, 4 * self.scale)
        self.base = newest

    def _miss(self, run: Measurement) -> FloatArray:
        return self.target - run.density

    def _newton(self) -> FloatArray:
        response = response_at(self.base, self.measured, self.memory, self.ratio)
        return np.asarray(np.linalg.solve(response, self._miss(self.base)))

    def _cut(self, shift: FloatArray) -> FloatArray:
        """Return the step, cut to the trust region (the very same object if it lies inside)."""
        length = float(np.linalg.norm(shift))
        return shift if length <= self.radius else shift * (self.radius / length)

    def _run(self, model: BilayerModel, mu: FloatArray, final: bool) -> Step:
        step = self.steps.run(model, mu, final)
        correlation = step.dataset["density_density"].sum(["x", "x_"])
        layers = ["P", "M"]
        matrix = correlation.sel(layer=layers, layer_=layers).transpose("layer", "layer_").values
        # few degrees of freedom: the error itself is uncertain (variance of Student's t)
        degrees = step.degrees
        inflation = degrees / (degrees - 2) if 2 < degrees < np.inf else 1.0
        self.measured.append(
            Measurement(
                step.mu,
                step.density,
                inflation * step.covariance,
                self.beta / self.length * 0.5 * (matrix + matrix.T),
            )
        )
        return step

    def _predict(self) -> Prediction:
        return predict(self.measured, self.target, self.memory, self.ratio)

    def _failure(self) -> str:
        best = min(self.measured, key=lambda run: float(np.abs(self._miss(run)).max()))
        return (
            f"filling P: {self.target[0]:g}, M: {self.target[1]:g} was not reached in {MAX_RUNS} "
            f"runs; the nearest, at mu_P = {best.mu[0]:.8g} and mu_M = {best.mu[1]:.8g}, has P: "
            f"{best.density[0]:.6g}, M: {best.density[1]:.6g}. At low temperature the densities of "
            "a small system change in steps: raise the temperature or the length"
        )
