"""Cheaper runs for the beginning of a search, which only has to come near."""

from __future__ import annotations

from bilayer_orchestra.engines.base import Engine
from bilayer_orchestra.model.bilayer import BilayerModel


def cheaper_model(
    model: BilayerModel, engine: Engine, effort: float = 0.0, observables: tuple[str, ...] = ()
) -> BilayerModel | None:
    """Return the model with the engine's cheaper settings, measuring densities only.

    Parameters
    ----------
    effort : float
        Wished part of the accurate run's effort, for engines with noise.
    observables : tuple of str
        What the search needs besides densities.

    Returns
    -------
    BilayerModel or None
        None if the engine knows nothing cheaper.
    """
    cheap = engine.cheaper(getattr(model.numerics, engine.name), effort)
    if cheap is None:
        return None
    return model.with_settings(engine.name, cheap).model_copy(
        update={"observables": ("density", *observables)}
    )
