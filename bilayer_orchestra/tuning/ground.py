"""Tuning at T = 0: particle number fixed, mu of the first layer fixed, the others moved.

Only the differences to the first layer's mu matter at fixed total number, and only these are
searched for: tolerances and rounding do not depend on where the energies have their zero.

With several layers one search runs inside the other. The number of particles of a layer is taken as
a function of its own mu: later layers keep theirs, that of every earlier one is such that it has
its density. The energy stays concave in what is left, so that each search is that of
:mod:`bilayer_orchestra.tuning.monotone`.
"""

import contextlib

import numpy as np

from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.terms import FloatArray
from bilayer_orchestra.tuning.monotone import JumpError, OutOfRangeError, Point, monotone_root
from bilayer_orchestra.tuning.search import Found, Search

#: Of a layer's density, if the model file says nothing.
TOLERANCE = 1e-5
#: Cheap runs are not worth more accuracy than this.
CHEAP_TOLERANCE = 3e-5
#: Chemical potentials further from the guess than this, over the largest coupling, leave a layer
#: empty or full.
REACH = 20
#: How much closer each search inside another one comes to its target, for the outer one to see a
#: smooth curve.
INNER = 0.25


class CrossingError(OrchestraError):
    """Two levels cross where the density would be the wished one."""


class GroundSearch(Search):
    """Potentials of all layers relative to the first one's, and where the next search begins."""

    def find(self) -> Found:
        """Return the run with the wished densities.

        Raises
        ------
        OrchestraError
            If they cannot be reached: a jump, with its two sides, or the end of the range.
        """
        tolerance = self.filling.allowed(TOLERANCE)
        self.base, self.guessed = self.given[0], self.guesses - self.guesses[0]
        self.mu = np.where(self.given, self.given - self.base, self.guessed)
        self.starts = [[float(mu)] for mu in self.mu]
        self.mu[0] = 0.0
        self.slopes = np.full(len(self.layers), self.length / (4 * self.coupling))  # dN/dmu
        if (cheap := self.cheaper("density")) is not None:
            with contextlib.suppress(CrossingError):  # accurate runs confirm, or refute, it
                self._search(cheap, max(tolerance, CHEAP_TOLERANCE))
        self._search(self.measuring("density"), tolerance)
        last = self.done[-1]
        # what the remaining miss is in mu; that of the first layer is fixed
        uncertainty = np.abs(last.density - self.target) / (self.slopes / self.length)
        uncertainty[0] = 0.0
        return Found(last, uncertainty, tolerance)

    def _search(self, variant: Model, tolerance: float) -> None:
        """Find the densities with one variant of the model; the last run has them."""
        # the first layer misses its density by what all others miss theirs by
        self.allowed = self.length * tolerance / max(1, len(self.layers) - 1)
        self._tune(variant, len(self.layers) - 1)

    def _tune(self, variant: Model, layer: int) -> tuple[float, float]:
        """Give all layers up to this one their densities by their potentials.

        Returns the energy, with -mu N of the later layers only, and its error.
        """
        if layer == 0:
            step = self.solve(variant, self.base + self.mu)
            self.numbers = self.length * step.density
            error = np.nan_to_num(float(step.dataset.get("energy_truncation", 0.0)))
            energy = float(step.dataset["energy"]) - self.mu[1:] @ self.numbers[1:]
            return float(energy), float(error)
        seen = {}

        def evaluate(mu: float) -> Point:
            self.mu[layer] = mu
            energy, error = self._tune(variant, layer - 1)
            seen[mu] = self.numbers / self.length
            return Point(mu, float(self.numbers[layer]), energy, error)

        target, guess = self.length * float(self.target[layer]), float(self.guessed[layer])
        try:
            point, self.slopes[layer] = monotone_root(
                evaluate,
                target,
                self.allowed * INNER ** (len(self.layers) - 1 - layer),
                self.starts[layer],
                float(self.slopes[layer]),
                (guess - REACH * self.coupling, guess + REACH * self.coupling),
                self.coupling / 2,
            )
        except JumpError as jump:
            self.starts[layer] = [jump.below.mu, jump.above.mu]
            sides = [seen[side.mu] for side in (jump.below, jump.above)]
            raise CrossingError(self._crossing(layer, jump.mu, sides)) from jump
        except OutOfRangeError as end:
            name, density = self.layers[layer], end.point.number / self.length
            raise OrchestraError(
                f"filling: {name}: {self.target[layer]:g} is not reached even at "
                f"{self._place(layer, end.point.mu)}, where {name} has {density:g} electrons per "
                "site"
            ) from end
        self.starts[layer] = [point.mu]
        return point.energy + point.mu * target, point.energy_error

    def _place(self, layer: int, mu: float) -> str:
        """Say mu of a layer, and of those that were kept fixed meanwhile."""
        form = f"mu_{{}} - mu_{self.layers[0]} = {{:.8g}}"
        return self.named(form, [mu, *self.mu[layer + 1 :]], first=layer)

    def _crossing(self, layer: int, mu: float, sides: list[FloatArray]) -> str:
        """Say that densities jump: for the last layer those in between do not exist at all."""
        wished = self.named("{}: {:g}", self.target, ", ")
        # rounding must not show as -0.000000
        below, above = (self.named("{}: {:.6f}", np.maximum(side, 0.0), ", ") for side in sides)
        verdict = "does not exist" if layer == len(self.layers) - 1 else "was not found"
        return (
            f"filling {wished} {verdict} in the ground state of {self.length} rungs: at "
            f"{self._place(layer, mu)} two levels cross, and the densities jump from ({below}) to "
            f"({above}). Take one of these, another length, a larger coupling between the layers, "
            "or a thermal state"
        )
