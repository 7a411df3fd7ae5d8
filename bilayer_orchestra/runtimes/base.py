"""What a runtime is: where a rendered job runs. It knows no physics."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from bilayer_orchestra.job import Job, Tools

RuntimeName = Literal["local", "apptainer", "slurm"]


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
        directory : Path
            Where it runs.
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
