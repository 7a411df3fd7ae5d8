"""What a backend is: it renders a job, reports its progress, and parses what came out.

``render`` and ``parse`` are pure: files in, files out, no engine. A runtime (see
:mod:`bilayer_orchestra.runtimes`) executes the job in between and knows no physics.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bilayer_orchestra.averages import Averages
from bilayer_orchestra.settings import SpecModel
from bilayer_orchestra.terms import Terms


@dataclass(frozen=True)
class Job:
    """A rendered job: files, and the command that runs in the directory that holds them.

    Parameters
    ----------
    program : str
        ``"python"``, ``"julia"`` or ``"sh"``; the runtime knows where that program is.
    arguments : tuple of str
        Passed to the program as they are; never through a shell.
    files : dict of str to str
        Relative file name -> text.
    environment : dict of str to str
        Set in addition to the inherited environment, before the program starts.
    engine : str or None
        Name of a user-installed engine (``"alf"``) whose path the runtime puts into the variable
        ``ORCHESTRA_<NAME>``, since only the runtime knows where it is.
    ranks : int
        MPI processes of every program that the job starts through a launcher.
    worker : str or None
        Python module that solves such jobs one after the other in one process (see
        :mod:`bilayer_orchestra.engine_side.worker`); a runtime may use it instead of the
        program, whose files it leaves.
    """

    program: str
    arguments: tuple[str, ...]
    files: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict)
    engine: str | None = None
    ranks: int = 1
    worker: str | None = None


@dataclass(frozen=True)
class Request:
    """Everything a backend needs to know about one point."""

    terms: Terms
    observables: tuple[str, ...]
    numerics: SpecModel
    label: str


class Engine(Protocol):
    """One engine. Instances are cheap and import nothing heavy."""

    name: str
    #: Raised when this backend's numbers change for the same input, so that old results are not
    #: taken for new ones.
    revision: int
    #: Short description for tables and help.
    summary: str
    #: Name, in the job's directory, of the state that a finished search leaves and that another
    #: one of the same sector may begin from (copied to ``start``); None if there is no such thing.
    state_name: str | None

    def version(self) -> str:
        """Return the engine's version.

        Raises
        ------
        MissingEngineError
            If the engine is not installed; the message says how to get it.
        """
        ...

    def check(self, request: Request) -> None:
        """Raise OrchestraError if this backend cannot solve the request, with the remedy."""
        ...

    def render(self, request: Request) -> Job:
        """Return the job's files and command."""
        ...

    def progress(self, directory: Path, request: Request) -> list[str]:
        """Return what there is to say on how far the job in ``directory`` is.

        Called before the job starts, so that what is left of an earlier attempt is not taken for
        news, and then several times per second; a line that was said last is not said again. A
        stochastic backend may ask its engine to stop here, by a file that the engine looks for,
        once the requested error is reached.
        """
        ...

    def parse(self, directory: Path, request: Request) -> Averages:
        """Read the finished job in ``directory``.

        Raises
        ------
        EngineError
            If the output is missing, incomplete or not finite.
        """
        ...


def settings_of(numerics: SpecModel) -> dict[str, Any]:
    """Return the settings as plain data."""
    return numerics.model_dump(mode="json")
