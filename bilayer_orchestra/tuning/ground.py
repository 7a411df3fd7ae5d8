"""Tuning at T = 0: particle number fixed, mu_P fixed, mu_M moved until the layers have their share.

Only the difference mu = mu_M - mu_P matters at fixed total number, and only that is searched for:
tolerances and rounding do not depend on where the energies have their zero.
"""

from __future__ import annotations

import numpy as np

from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.model.bilayer import BilayerModel
from bilayer_orchestra.tuning.cheap import cheaper_model
from bilayer_orchestra.tuning.guess import energy_scale, layer_guess, limits
from bilayer_orchestra.tuning.monotone import (
    JumpError,
    OutOfRangeError,
    Point,
    Solution,
    monotone_root,
)
from bilayer_orchestra.tuning.steps import Step, Steps

#: Of a layer's density, if the model file says nothing.
TOLERANCE = 1e-5
#: Cheap runs are not worth more accuracy than this.
CHEAP_TOLERANCE = 3e-5


def tune_ground(model: BilayerModel, steps: Steps) -> tuple[Step, float]:
    """Return the run with the wished densities, and dn_M/dmu_M there.

    Raises
    ------
    OrchestraError
        If the densities cannot be reached: a jump, with its two sides, or the end of the range.
    """
    filling = model.filling
    assert filling is not None
    length, mu_p = model.length, model.layers.P.chemical_potential
    tolerance = filling.tolerance or TOLERANCE
    scale = energy_scale(
        (model.layers.P.hopping, model.layers.M.hopping, model.t_perp),
        (model.layers.P.interaction, model.layers.M.interaction),
    )

    def evaluated(variant: BilayerModel, final: bool) -> Evaluate:
        return Evaluate(variant, steps, mu_p, final)

    wished = model.layers.M.chemical_potential
    start = wished - mu_p if wished else _guess(model)
    bounds = limits(_guess(model), scale, np.inf)
    starts, slope = [start], length / (4 * scale)
    target = length * filling.M
    try:
        cheap = cheaper_model(model, steps.engine)
        if cheap is not None:
            allowed = length * max(tolerance, CHEAP_TOLERANCE)
            try:
                near = monotone_root(
                    evaluated(cheap, False), target, allowed, starts, slope, bounds, scale / 2
                )
                starts, slope = [near.point.mu], near.slope
            except JumpError as jump:  # to be confirmed, or refuted, by accurate runs
                starts = [jump.below.mu, jump.above.mu]
        with_density = model.model_copy(
            update={"observables": tuple(dict.fromkeys([*model.observables, "density"]))}
        )
        solution: Solution = monotone_root(
            evaluated(with_density, True),
            target,
            length * tolerance,
            starts,
            slope,
            bounds,
            scale / 2,
        )
    except JumpError as jump:
        raise OrchestraError(_jump_message(model, jump)) from jump
    except OutOfRangeError as end:
        raise OrchestraError(
            f"filling: M: {filling.M:g} is not reached even at mu_M - mu_P = {end.point.mu:g}, "
            f"where M has {end.point.number / length:g} electrons per site"
        ) from end
    return steps.done[-1], solution.slope / length


class Evaluate:
    """One run as a point of N_M(mu_M)."""

    def __init__(self, model: BilayerModel, steps: Steps, mu_p: float, final: bool) -> None:
        self.model, self.steps, self.mu_p, self.final = model, steps, mu_p, final

    def __call__(self, mu: float) -> Point:
        """Solve at ``mu``."""
        step = self.steps.run(self.model, self.mu_p + np.array([0.0, mu]), self.final)
        number = self.model.length * float(step.density[1])
        energy = float(step.dataset["energy"]) - mu * number
        error = np.nan_to_num(float(step.dataset.get("energy_truncation", 0.0)))
        return Point(mu, number, energy, float(error))


def _guess(model: BilayerModel) -> float:
    assert model.filling is not None
    metal, pairs = (
        layer_guess(layer.hopping, layer.interaction, wished, np.inf)
        for layer, wished in (
            (model.layers.M, model.filling.M),
            (model.layers.P, model.filling.P),
        )
    )
    return metal - pairs


def _jump_message(model: BilayerModel, jump: JumpError) -> str:
    assert model.filling is not None
    total = model.filling.P + model.filling.M
    metal = [side.number / model.length for side in (jump.below, jump.above)]
    # rounding must not show as -0.000000
    sides = [f"P: {max(total - m, 0.0):.6f}, M: {max(m, 0.0):.6f}" for m in metal]
    return (
        f"filling P: {model.filling.P:g}, M: {model.filling.M:g} does not exist in the ground "
        f"state of {model.length} rungs: at mu_M - mu_P = "
        f"{jump.mu:.8g} two levels cross, and the densities "
        f"jump from ({sides[0]}) to ({sides[1]}). Take one of these, another length, a larger "
        "t_perp, or a thermal state"
    )
