"""Tuning at T > 0: all chemical potentials together, with or without statistical noise.

Every run gives the densities n(mu) and, from the fluctuations of the layers' particle numbers, most
of their response. K = dn/dmu is symmetric, and since the total number commutes with H,

    K (1, ..., 1) = (beta / L) <dN_l dN>    exactly,

so that K = S - Q with S_ll' = (beta / L) <dN_l dN_l'> and Q (1, ..., 1) = 0: the part of the
relative fluctuations that is quantum mechanical. It is taken as Q = f R S R, R the projector onto
changes that keep the total number: of two layers exactly so, with one unknown share f, of more on
the average. f follows from pairs of runs. Every run k then predicts where the target is,

    mu*_k = mu_k + K^-1 (n_target - n_k),

and all predictions are averaged with their covariances: statistical error of n_k, and the curvature
of n(mu) over the distance. Runs far away therefore count less and less, those near the target add
up as one long run. This is the feedback with compressibility and memory of C. Miles et al., PRE
105, 045311 (2022), for several densities, with error bars in place of a fixed memory.

Every run follows from the results before it, so a search that was killed repeats itself up to the
run that was interrupted.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.model.spec import Model, ThermalState
from bilayer_orchestra.terms import FloatArray
from bilayer_orchestra.tuning.search import Found, Search, Step

#: Change of the response over a change of mu by the energy scale: what a prediction may be off by.
CURVATURE = 0.5
#: Error of the first estimate of the share. It is worth little, and stops a first noisy pair of
#: runs from being believed blindly.
PRIOR_ERROR = 0.3
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


@dataclass(frozen=True)
class Measurement:
    """One run of n layers: mu (n,), density (n,), its covariance (n, n), and S (n, n)."""

    mu: FloatArray
    density: FloatArray
    covariance: FloatArray
    fluctuations: FloatArray

    def response(self, share: float) -> FloatArray:
        """Return K, shape (n, n), for a quantum mechanical share; its eigenvalues are positive."""
        return _positive(self.fluctuations - share * _relative(_relative(self.fluctuations).T))


@dataclass(frozen=True)
class Prediction:
    """Where the target is: mu (n,), covariance (n, n), and K (n, n) there."""

    mu: FloatArray
    covariance: FloatArray
    response: FloatArray

    @property
    def density_error(self) -> FloatArray:
        """Standard errors of the densities at ``mu``, shape (n,)."""
        spread = self.response @ self.covariance @ self.response.T
        return np.sqrt(np.maximum(np.diagonal(spread), 0.0))


def predict(runs: list[Measurement], target: FloatArray, scale: float, share: float) -> Prediction:
    """Combine all runs.

    Parameters
    ----------
    runs : list of Measurement
        All of the search.
    target : array, shape (n,)
        Wished densities.
    scale : float
        Energy over which responses change.
    share : float
        What part of the relative fluctuations is quantum mechanical, see :func:`quantum_share`.
    """
    measured, missing = np.array([run.mu for run in runs]), [target - run.density for run in runs]
    responses = np.array([run.response(share) for run in runs])
    inverses = np.linalg.inv(responses)
    steps = np.einsum("kij,kj->ki", inverses, missing)
    lengths = np.maximum(np.linalg.norm(steps, axis=1), 1e-12)
    noise = inverses @ [run.covariance for run in runs] @ inverses.transpose(0, 2, 1)
    guess = measured[np.argmin(np.abs(missing).max(axis=1))]
    for _ in range(20):
        distances = np.linalg.norm(guess - measured, axis=1) / scale
        errors = (CURVATURE * distances * lengths) ** 2 + 1e-30
        weights = np.linalg.inv(noise + errors[:, None, None] * np.eye(len(target)))
        covariance = np.linalg.inv(weights.sum(axis=0))
        mu = covariance @ np.einsum("kij,kj->i", weights, measured + steps)
        if np.abs(mu - guess).max() < 1e-12 * max(1.0, float(np.abs(mu).max())):
            break
        guess = mu
    nearest = np.argmax(np.trace(weights, axis1=1, axis2=2))
    return Prediction(mu, covariance, responses[nearest])


def quantum_share(runs: list[Measurement], scale: float, first: float) -> float:
    """Return the part f of the relative fluctuations that is quantum mechanical.

    Parameters
    ----------
    runs : list of Measurement
        All of the search.
    scale : float
        Energy over which responses change.
    first : float
        Estimate before two runs tell.
    """
    shares, weights = [first], [1 / PRIOR_ERROR**2]
    for one, other in itertools.combinations(runs, 2):
        shift = one.mu - other.mu
        relative = _relative(shift)
        mean = 0.5 * (one.fluctuations + other.fluctuations)
        fluctuations = float(relative @ mean @ relative)
        if fluctuations == 0:
            continue
        # what the densities changed by less than fluctuations suggest, along the relative shift
        less = float(relative @ (mean @ shift - (one.density - other.density)))
        noise = float(relative @ (one.covariance + other.covariance) @ relative)
        curved = CURVATURE * float(shift @ shift) / scale**2
        shares.append(less / fluctuations)
        weights.append(1 / (noise / fluctuations**2 + curved**2 + 1e-24))
    return min(max(float(np.average(shares, weights=weights)), 0.0), 1 - 1e-3)


def _relative(change: FloatArray) -> FloatArray:
    """Return the part of changes (first axis: layers) that keeps the total number."""
    return np.asarray(change - change.mean(axis=0))


def _positive(matrix: FloatArray) -> FloatArray:
    """Return the nearest matrix whose eigenvalues are not too small to be inverted."""
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    floor = max(1e-3 * float(values.max()), 1e-6)
    return np.asarray((vectors * np.maximum(values, floor)) @ vectors.T)


class ThermalSearch(Search):
    """Steps in all potentials together, from what every run tells of the response."""

    def find(self) -> Found:
        """Return the run at the wished densities.

        Raises
        ------
        OrchestraError
            If they are not reached within the allowed number of runs.
        """
        assert isinstance(self.model.state, ThermalState)
        self.beta = self.model.state.beta
        self.whole = self.measuring("density", "density_density")
        self.start = np.where(self.given, self.given, self.guesses)
        self.scale = 1 / self.beta + self.coupling
        # until two runs tell: relative fluctuations are quantum mechanical below the hopping scale
        hopping = float(np.abs(self.model.terms().hopping).max())
        self.share = 1 - 1 / (1 + self.beta * hopping)
        self.radius = FIRST_RADIUS * self.scale
        # the response of a small cold system changes within the temperature, of others slower
        self.memory = 2 / self.beta + self.scale / self.length
        self.base: Measurement
        self.measured: list[Measurement] = []
        return self.with_noise() if self.engine.stochastic else self.without_noise()

    def without_noise(self) -> Found:
        """Newton steps within a trust region."""
        tolerance = self.filling.allowed(TOLERANCE)
        mu = self.start
        for _ in range(MAX_RUNS):
            step = self._run(self.whole, mu)
            self._judge()
            shift = self._newton()
            if np.abs(step.density - self.target).max() <= tolerance:
                return Found(step, np.abs(shift), tolerance)
            mu = self.base.mu + self._cut(shift)
        best = min(self.measured, key=lambda run: float(np.abs(self._miss(run)).max()))
        wished = self.named("{}: {:g}", self.target, ", ")
        found = self.named("{}: {:.6g}", best.density, ", ")
        raise OrchestraError(
            f"filling {wished} was not reached in {MAX_RUNS} runs; the nearest, at "
            f"{self.named('mu_{} = {:.8g}', best.mu)}, has {found}. At low temperature the "
            "densities of a small system change in steps: raise the temperature or the length"
        )

    def with_noise(self) -> Found:
        """Short runs until they predict the target well enough, then runs of full length."""
        tolerance = self.filling.allowed(NOISY_TOLERANCE)
        mu, spent, effort = self.start, 0.0, SHORT
        while True:
            cheap = self.cheaper("density", "density_density", effort=effort)
            step = self._run(cheap or self.whole, mu)
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
            worth = noise <= GOOD * tolerance or spent + effort > SHORT_TOTAL
            if (cut is shift and worth) or spent > MOST_SHORT:
                break
            if near <= 3 * float(step.stderr.max()):
                effort *= 2  # noise is what remains: longer runs, not more of them
        for _ in range(MAX_FULL):
            step = self._run(self.whole, mu)
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

    def _run(self, model: Model, mu: FloatArray) -> Step:
        step = self.solve(model, mu)
        correlation = step.dataset["density_density"].sum(["x", "x_"])
        chosen = correlation.sel(layer=self.layers, layer_=self.layers)
        matrix = chosen.transpose("layer", "layer_").values
        # few degrees of freedom: the error itself is uncertain (variance of Student's t)
        inflation = step.degrees / (step.degrees - 2) if 2 < step.degrees < np.inf else 1.0
        fluctuations = self.beta / self.length * 0.5 * (matrix + matrix.T)
        covariance = inflation * step.covariance
        self.measured.append(Measurement(step.mu, step.density, covariance, fluctuations))
        return step

    def _predict(self) -> Prediction:
        return predict(self.measured, self.target, self.memory, self._share())

    def _share(self) -> float:
        return quantum_share(self.measured, self.memory, self.share)
