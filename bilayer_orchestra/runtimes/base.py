"""What a runtime is: where a rendered job runs. It knows no physics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from bilayer_orchestra.engines.base import Job


class Runtime(Protocol):
    """Executes jobs."""

    name: str

    def execute(
        self, job: Job, directory: Path, lock: int, on_poll: Callable[[], None]
    ) -> dict[str, str]:
        """Run ``job`` in ``directory`` until it ends.

        Parameters
        ----------
        job : Job
            Already written to ``directory``.
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
        ...

    def close(self) -> None:
        """End what was kept for further jobs."""
        ...
