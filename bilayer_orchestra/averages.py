"""What every backend's ``parse`` returns: averages in site order, with their uncertainties."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bilayer_orchestra.errors import EngineError
from bilayer_orchestra.terms import FloatArray, Terms


@dataclass
class Averages:
    """Measured values in site order and in the project's convention.

    Parameters
    ----------
    values : dict
        Observable name -> array: scalar, (N,), (2, N), (N, N) or (2, N, N), spins (up, down);
        (N - 1,) for what belongs to a cut of the chain.
    bias : dict
        Same shapes: size of the systematic error that may be left, never negative. A missing name
        means "not estimated" and becomes NaN.
    stderr : dict
        Same shapes: statistical standard error; only for stochastic engines.
    deviations : dict
        Shape (block, ...): the covariance of any two elements X, Y of any observables is
        sum_block dX dY; only for stochastic engines.
    attributes : dict
        Observable name -> what belongs beside it, such as its autocorrelation time; a
        ``definition`` here replaces that of the table of observables.
    diagnostics : dict
        Scalars that describe the run, by name; see
        :data:`bilayer_orchestra.dataset.schema.DIAGNOSTICS`.
    converged : bool
        Whether the requested accuracy was reached.
    reason : str
        Why, or why not.

    Raises
    ------
    ValueError
        If a bias or an error is negative.
    """

    values: dict[str, FloatArray]
    bias: dict[str, FloatArray] = field(default_factory=dict)
    stderr: dict[str, FloatArray] = field(default_factory=dict)
    deviations: dict[str, FloatArray] = field(default_factory=dict)
    attributes: dict[str, dict[str, Any]] = field(default_factory=dict)
    diagnostics: dict[str, Any] = field(default_factory=dict)
    converged: bool = False
    reason: str = ""

    def __post_init__(self) -> None:
        """Refuse signed sizes, which plots and fits would take for something else."""
        for name, size in [*self.bias.items(), *self.stderr.items()]:
            if np.any(size < 0):
                raise ValueError(f"the bias or error of {name} is negative: it is a size")


def observables_from_raw(raw: dict[str, FloatArray], terms: Terms) -> dict[str, FloatArray]:
    """Return all observables from the operator averages that ground-state engines measure.

    Parameters
    ----------
    raw : dict
        ``green`` (2, N, N) and ``double_occupancy`` (N,); optionally ``pair`` (N, N),
        ``density_product`` = ``<n_i n_j>`` (N, N), ``spin_spin`` (N, N) and
        ``entanglement_entropy`` (N - 1,) of the first 1, 2, ... sites.
    terms : Terms
        The model, for the energies.

    Raises
    ------
    EngineError
        If a number is not finite.
    """
    for name, array in raw.items():
        if not np.isfinite(array).all():
            raise EngineError(f"the engine returned NaN or infinity in {name}")
    green, double_occupancy = raw["green"], raw["double_occupancy"]
    density = np.diagonal(green, axis1=1, axis2=2).copy()
    kinetic = np.sum(terms.one_body * green.sum(axis=0))
    interaction = np.sum(terms.interaction * double_occupancy)
    values = {
        "energy": kinetic + interaction,
        "kinetic_energy": kinetic,
        "interaction_energy": interaction,
        "density": density,
        "double_occupancy": double_occupancy,
        "green": green,
    }
    if "density_product" in raw:
        total = density.sum(axis=0)
        values["density_density"] = raw["density_product"] - np.outer(total, total)
    as_they_are = ("pair", "spin_spin", "entanglement_entropy")
    values |= {name: raw[name] for name in as_they_are if name in raw}
    return {name: np.asarray(value, dtype=float) for name, value in values.items()}
