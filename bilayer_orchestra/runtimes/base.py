"""What a runtime is: where a rendered job runs. It knows no physics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bilayer_orchestra.job import Job, Tools


class Runtime(ABC):
    """A place where jobs run: attached to this process, or in a queue.

    Attributes
    ----------
    name : str
        Names it on the command line and in datasets.
    images : mapping of str to str
        Kind of image -> file, before what the configuration file says.
    """

    name: str
    images: Mapping[str, str] = {}

    def contains(self, kind: str | None) -> bool:
        """Return whether engines of the image ``kind`` (None: that have none) run from it here."""
        return False

    def close(self) -> None:  # noqa: B027 - most keep nothing
        """End what was kept for further jobs."""


class AttachedRuntime(Runtime):
    """Jobs are children of this process, which waits for them."""

    @abstractmethod
    def execute(
        self, job: Job, tools: Tools, directory: Path, lock: int, on_poll: Callable[[], None]
    ) -> dict[str, str]:
        """Run ``job`` in ``directory`` until it ends.

        Parameters
        ----------
        job : Job
            Already written to ``directory``.
        tools : Tools
            Where its programs are.
        lock : int
            File descriptor of the run's lock; the engine inherits it.
        on_poll : callable
            Called several times per second while the engine runs.

        Returns
        -------
        dict
            Facts about where it ran, for the dataset's attributes.

        Raises
        ------
        EngineError
            If the engine ends with an error; carries its last lines.
        """


@dataclass(frozen=True)
class PlacedJob:
    """A job for a queue.

    Parameters
    ----------
    run : Path
        The run directory in whose ``job/`` it runs.
    job, tools
        What runs.
    watch : tuple of str
        Arguments of a Python, started in the run directory beside the job, that leaves the file
        ``job/stop`` once the job has done enough; empty: there is nothing to watch.
    """

    run: Path
    job: Job
    tools: Tools
    watch: tuple[str, ...] = ()


@dataclass(frozen=True)
class Submitted:
    """A job that a queue was given.

    Parameters
    ----------
    run : Path
        Its run directory.
    job : str
        The scheduler's name of it.
    folder : Path or None
        Directory of the submission, with its logs.
    foreign : bool
        Whether another user submitted it.
    """

    run: Path
    job: str
    folder: Path | None
    foreign: bool


def image_facts(tools: Tools) -> dict[str, str]:
    """Return what the dataset says about the image; nothing if there is none."""
    if tools.image is None:
        return {}
    return {"image": tools.image.name, "image_digest": tools.image_digest}
