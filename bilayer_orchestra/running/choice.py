"""Which engine solves a model: the choice that ``--backend auto`` makes, and where it runs."""

import math

from bilayer_orchestra.engines.base import Engine
from bilayer_orchestra.engines.registry import engines, get_engine, refuse_unknown_configuration
from bilayer_orchestra.errors import MissingEngineError, OrchestraError
from bilayer_orchestra.images.use import contained
from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.running.point import checked_request
from bilayer_orchestra.runtimes.base import Runtime

AUTO = "auto"
#: Seconds that nobody minds to wait.
INSTANT = 2.0


def installed(engine: Engine, runtime: Runtime) -> Engine:
    """Return ``engine`` as ``runtime`` has it: in an image, or on this machine."""
    kind = engine.recipe.kind if engine.recipe is not None else None
    return contained(engine, dict(runtime.images)) if runtime.contains(kind) else engine


def engine_for(model: Model, name: str) -> Engine:
    """Return the engine called ``name``; for ``auto`` one that is instant, else the first that can.

    Raises
    ------
    OrchestraError
        If there is no such engine, or nothing that is installed solves the model; with all reasons.
    """
    if name != AUTO:
        return get_engine(name)
    refuse_unknown_configuration()
    able: list[tuple[Engine, float]] = []
    problems: list[OrchestraError] = []
    for engine in engines().values():
        if engine.auto is None:
            continue
        try:
            request = checked_request(model, engine)
            engine.version()
        except OrchestraError as error:
            problems.append(error)
            continue
        seconds = engine.cost(request).seconds
        able.append((engine, math.inf if seconds is None else seconds))
    if able:
        return min(able, key=lambda one: one[1] > INSTANT)[0]
    text = "\n".join(["no engine that is installed solves this model:", *map(str, problems)])
    missing = any(isinstance(error, MissingEngineError) for error in problems)
    raise (MissingEngineError if missing else OrchestraError)(text)
