"""The runtimes by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.runtimes.base import Runtime, RuntimeName
from bilayer_orchestra.runtimes.local import ApptainerRuntime, LocalRuntime
from bilayer_orchestra.runtimes.slurm.runtime import SlurmRuntime
from bilayer_orchestra.runtimes.slurm.site import load_site


def get_runtime(
    name: str,
    images: Mapping[str, str] | None = None,
    many: bool = False,
    site: str | None = None,
    beside: Path = Path(),
) -> Runtime:
    """Return the runtime called ``name``.

    Parameters
    ----------
    name : str
        One of :data:`bilayer_orchestra.runtimes.base.RuntimeName`.
    images : mapping, optional
        Kind of image -> file, before what the configuration file or the site profile says.
    many : bool
        Whether many jobs are to come, so that it pays to keep an engine; ``close`` it then.
    site : str, optional
        Site profile of the queue.
    beside : Path
        Directory in which a site profile is looked for first.
    """
    if name == "local":
        return LocalRuntime(many)
    if name == "apptainer":
        return ApptainerRuntime(images or {})
    if name == "slurm":
        return SlurmRuntime(load_site(site, beside, dict(images or {})), site)
    raise OrchestraError(f"there is no runtime `{name}`; known: {', '.join(get_args(RuntimeName))}")
