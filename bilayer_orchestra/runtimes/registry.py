"""The runtimes by name."""

from __future__ import annotations

from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.runtimes.base import Runtime
from bilayer_orchestra.runtimes.local import LocalRuntime

RUNTIMES: dict[str, Runtime] = {runtime.name: runtime for runtime in (LocalRuntime(),)}


def get_runtime(name: str) -> Runtime:
    """Return the runtime called ``name``."""
    if name not in RUNTIMES:
        raise OrchestraError(f"there is no runtime `{name}`; known: {', '.join(RUNTIMES)}")
    return RUNTIMES[name]
