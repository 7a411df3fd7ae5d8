"""The ``numerics`` section: one part per installed engine, read by that engine only."""

from __future__ import annotations

from pydantic import create_model

from bilayer_orchestra.engines.registry import engines
from bilayer_orchestra.settings import SpecModel

Numerics: type[SpecModel] = create_model(  # type: ignore[call-overload]
    "Numerics",
    __base__=SpecModel,
    __doc__="Settings per engine.",
    **{name: (engine.settings, engine.settings()) for name, engine in engines().items()},
)
