"""The search at T > 0: where to run next, how long, and when to stop.

Every run follows from the results before it, so a search that was killed repeats itself up to the
run that was interrupted. What is learnt from the runs is in
:mod:`bilayer_orchestra.tuning.response`.
"""

from __future__ import annotations

import numpy as np

from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.model.spec import Model, ThermalState
from bilayer_orchestra.terms import FloatArray
from bilayer_orchestra.tuning.guess import largest_coupling, layer_guesses
from bilayer_orchestra.tuning.response import Measurement, Prediction, predict, quantum_share
from bilayer_orchestra.tuning.steps import Found, Step, Steps, cheaper_model, measuring, named

#: What a layer's density may miss its target by (electrons per site), if the file says nothing.
TOLERANCE = 1e-5
#: The same with statistical noise, where another digit costs a hundred times the work.
NOISY_TOLERANCE = 2e-3
#: A short run's part of the effort of the last one.
SHORT = 0.05
#: What all short runs together may take, in units of the last one's effort.
SHORT_TOTAL = 1.0
#: Predicted error of the densities, over the tolerance, at which the last run is worth its cost.
GOOD = 0.5
#: Runs that a search without noise may take; it usually takes less than ten.
MAX_RUNS = 40
#: Runs of full length that a search with noise may take.
MAX_FULL = 3
#: Most effort of short runs if they do not come near at all.
MOST_SHORT = 3.0
#: Long steps are cut to this part of the energy scale at first.
FIRST_RADIUS = 0.5
#: A step has gone too far if the missing density along it is turned round by more than this part.
OVERSHOT = 0.3


def tune_thermal(model: Model, steps: Steps) -> Found:
    """Return the run at the wished densities.

    Raises
    ------
    OrchestraError
        If the densities are not reached within the allowed number of runs.
    """
    search = _Search(model, steps)
    return search.with_noise() if steps.engine.stochastic else search.without_noise()


class _Search:
    def __init__(self, model: Model, steps: Steps) -> None:
        assert model.wished is not None
        assert isinstance(model.state, ThermalState)
        terms, densities = model.terms(), model.wished.densities()
        self.steps, self.beta = steps, model.state.beta
        self.length = terms.n_sites // len(densities)
        self.model = measuring(model, "density", "density_density")
        self.filling, self.layers = model.wished, list(densities)
        self.target = np.array(list(densities.values()))
        self.scale = 1 / self.beta + largest_coupling(terms)
        given = model.chemical_potentials()
        self.start = np.where(given, given, layer_guesses(terms, densities))
        # until two runs tell: relative fluctuations are quantum mechanical below the hopping scale
        self.share = 1 - 1 / (1 + self.beta * float(np.abs(terms.hopping).max()))
        self.radius = FIRST_RADIUS * self.scale
        # the response of a small cold system changes within the temperature, of others slower
        self.memory = 2 / self.beta + self.scale / self.length
        self.base: Measurement
        self.measured: list[Measurement] = []

    def without_noise(self) -> Found:
        """Newton steps within a trust region."""
        tolerance = self.filling.allowed(TOLERANCE)
        mu = self.start
        for _ in range(MAX_RUNS):
            step = self._run(self.model, mu, final=True)
            self._judge()
            shift = self._newton()
            if np.abs(step.density - self.target).max() <= tolerance:
                return Found(step, np.abs(shift), tolerance)
            mu = self.base.mu + self._cut(shift)
        raise OrchestraError(self._failure())

    def with_noise(self) -> Found:
        """Short runs until they predict the target well enough, then runs of full length."""
        tolerance = self.filling.allowed(NOISY_TOLERANCE)
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
        return Found(step, uncertainty, tolerance)

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
        response = self.base.response(self._share())
        return np.asarray(np.linalg.solve(response, self._miss(self.base)))

    def _cut(self, shift: FloatArray) -> FloatArray:
        """Return the step, cut to the trust region (the very same object if it lies inside)."""
        length = float(np.linalg.norm(shift))
        return shift if length <= self.radius else shift * (self.radius / length)

    def _run(self, model: Model, mu: FloatArray, final: bool) -> Step:
        step = self.steps.run(model, mu, final)
        correlation = step.dataset["density_density"].sum(["x", "x_"])
        chosen = correlation.sel(layer=self.layers, layer_=self.layers)
        matrix = chosen.transpose("layer", "layer_").values
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
        return predict(self.measured, self.target, self.memory, self._share())

    def _share(self) -> float:
        return quantum_share(self.measured, self.memory, self.share)

    def _failure(self) -> str:
        best = min(self.measured, key=lambda run: float(np.abs(self._miss(run)).max()))
        wished = named("{}: {:g}", self.layers, self.target, ", ")
        found = named("{}: {:.6g}", self.layers, best.density, ", ")
        return (
            f"filling {wished} was not reached in {MAX_RUNS} runs; the nearest, at "
            f"{named('mu_{} = {:.8g}', self.layers, best.mu)}, has {found}. At low temperature the "
            "densities of a small system change in steps: raise the temperature or the length"
        )
