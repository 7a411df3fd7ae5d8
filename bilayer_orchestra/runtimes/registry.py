"""The runtimes by name."""

from __future__ import annotations

from collections.abc import Callable

from bilayer_orchestra.engines.base import Engine
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.runtimes.base import Runtime

RUNTIME_NAMES = ("local", "apptainer", "slurm")


def get_runtime(name: str, images: dict[str, str] | None = None, many: bool = False) -> Runtime:
    """Return the runtime called ``name`` that runs a job while one waits.

    Parameters
    ----------
    images : dict, optional
        Engine -> image, before what the configuration file says.
    many : bool
        Whether many jobs are to come, so that it pays to keep an engine; ``close`` it then.
    """
    if name == "local":
        from bilayer_orchestra.runtimes.local import LocalRuntime

        return LocalRuntime(many)
    if name == "apptainer":
        from bilayer_orchestra.runtimes.apptainer import ApptainerRuntime

        return ApptainerRuntime(images)
    if name == "slurm":
        raise OrchestraError(
            "slurm runs studies: orchestra sweep study.yaml --runtime slurm (one point is a study "
            "without axes)"
        )
    raise OrchestraError(f"there is no runtime `{name}`; known: {', '.join(RUNTIME_NAMES)}")


def adapter(runtime: Runtime) -> Callable[[Engine], Engine]:
    """Return what ``runtime`` makes of a backend: the one in its image, or the backend itself."""
    adapt: Callable[[Engine], Engine] = getattr(runtime, "adapt", lambda backend: backend)
    return adapt
