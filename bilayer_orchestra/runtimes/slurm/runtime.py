"""A Slurm cluster as a runtime: it takes jobs, and says later what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bilayer_orchestra.runtimes.base import PlacedJob, Runtime
from bilayer_orchestra.runtimes.slurm.markers import read_marker
from bilayer_orchestra.runtimes.slurm.site import Site
from bilayer_orchestra.runtimes.slurm.submit import Chunk, plan, submit


class SlurmRuntime(Runtime):
    """Array jobs of one site."""

    name = "slurm"

    def __init__(self, site: Site) -> None:
        self.site, self.images = site, site.images

    def contains(self, kind: str | None) -> bool:
        """Engines run from the images that the site names, others are native."""
        return kind in self.site.images

    def plan(self, jobs: Sequence[PlacedJob], root: Path, name: str) -> list[Chunk]:
        """Return the array jobs that compute ``jobs``; writes nothing."""
        return plan(jobs, self.site, root, name)

    def submit(self, chunk: Chunk) -> str:
        """Submit one array job; return its number."""
        return submit(chunk, self.site)


def computed(run: Path) -> dict[str, str] | None:
    """Return facts about where the job of ``run`` ended well, for the dataset; None: it did not."""
    marker = read_marker(run)
    if marker is None or not marker.done:
        return None
    return {"runtime": SlurmRuntime.name, "host": marker.host, "job": marker.job}
