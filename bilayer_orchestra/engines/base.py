"""The contract between this program and an engine: what it declares, and what it does.

An engine is a class that derives from :class:`Engine` and is named in the entry-point group
``bilayer_orchestra.engines``; docs/engine.md builds one line by line. ``render`` and ``parse`` are
pure: files in, files out, no engine. A runtime executes the job in between.

A declaration imports no library of its engine: modules that do are imported in the methods.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Literal

from typing_extensions import TypeVar

from bilayer_orchestra.averages import Averages
from bilayer_orchestra.engine_side.files import JOB, render_job
from bilayer_orchestra.errors import MissingEngineError, OrchestraError
from bilayer_orchestra.files import files_sha256
from bilayer_orchestra.job import Job, Tools
from bilayer_orchestra.machine import thread_environment
from bilayer_orchestra.resources import resource
from bilayer_orchestra.settings import SpecModel
from bilayer_orchestra.terms import Canonical, Terms

__all__ = ["CONTRACT", "Cost", "Engine", "Job", "Request", "Tools"]

#: Version of this contract; an engine that was written for another one is left out.
CONTRACT = 1
#: Label in which our definitions write the engine's version.
ENGINE_LABEL = "orchestra.engine"

Ensemble = Literal["canonical", "thermal"]
#: An engine's section of the model file.
Settings = TypeVar("Settings", bound=SpecModel, default=Any)


@dataclass(frozen=True)
class Request(Generic[Settings]):
    """Everything an engine needs to know about one point.

    Parameters
    ----------
    terms : Terms
        The model and its state.
    observables : tuple of str
        What is wished for; energies always are.
    numerics
        The engine's section of the model file: an instance of its ``settings``.
    label : str
        Name of the model, for people.
    """

    terms: Terms
    observables: tuple[str, ...]
    numerics: Settings
    label: str

    @property
    def ensemble(self) -> Ensemble:
        """Whether a ground state of fixed particle numbers or a thermal state is asked for."""
        return "canonical" if isinstance(self.terms.state, Canonical) else "thermal"


@dataclass(frozen=True)
class Cost:
    """What a request is expected to take.

    Parameters
    ----------
    seconds : float or None
        Processor time in seconds; None if nobody can say before.
    memory : float or None
        Main memory in bytes.
    """

    seconds: float | None = None
    memory: float | None = None


@dataclass(frozen=True)
class Sampling:
    """Effort of a Monte Carlo run.

    Parameters
    ----------
    seconds : float
        Processor time of one sweep.
    sweeps : float
        Sweeps that the settings allow, all chains together.
    """

    seconds: float
    sweeps: float


@dataclass(frozen=True)
class ImageRecipe:
    """One kind of container image, which may hold several engines.

    Parameters
    ----------
    kind : str
        Names it on the command line and in the configuration file.
    programs : mapping of str to str
        Name of a job's program -> its path inside.
    label : str
        Label that says the engine's version.
    launched : mapping of str to str
        Variables that a job needs where an MPI launcher outside starts every rank in a container of
        its own: paths inside.
    minutes : str
        How long building usually takes.
    """

    kind: str
    programs: Mapping[str, str] = field(default_factory=dict)
    label: str = ENGINE_LABEL
    launched: Mapping[str, str] = field(default_factory=dict)
    minutes: str = "2 to 10"

    def definition(self) -> Path:
        """Return the definition file."""
        return resource("containers", f"{self.kind}.def")

    def own_files(self) -> tuple[Path, list[Path]]:
        """Return (root, files) of what this program puts into the image."""
        raise NotImplementedError

    def own_hash(self) -> str:
        """Return the hash of :meth:`own_files`: an image of another one is out of date."""
        root, files = self.own_files()
        return files_sha256(files, root)[:16]

    def replaces_release(self, source: Path) -> bool:
        """Return whether ``source`` takes the place of the release that would be fetched."""
        return False

    def left_out(self, source: Path) -> tuple[str, ...]:
        """Return the patterns of files of ``source`` that are not copied.

        Raises
        ------
        MissingEngineError
            If it is no source tree of this engine.
        """
        return (".git",)

    def arguments(self, source: Path | None, version: str | None) -> dict[str, str]:
        """Return further arguments of the definition.

        Parameters
        ----------
        source : Path or None
            The local source tree.
        version : str or None
            The release that is fetched without one; None: the definition's own.
        """
        return {}


class Engine(ABC, Generic[Settings]):
    """One engine: declarations as class attributes, a handful of methods.

    Attributes
    ----------
    contract : int
        Version of the contract that it was written for.
    name : str
        Names it on the command line, its section of the model file and its results.
    revision : int
        Raised when its numbers change for the same input, so that old results are not taken for
        new ones.
    summary : str
        Short description for tables and help.
    ensembles : tuple
        States that it can solve: ``"canonical"`` (T = 0, fixed particle numbers), ``"thermal"``.
    stochastic : bool
        Whether its averages have statistical errors.
    systematics : tuple of str
        Names of the systematic errors whose size, all together, is the ``bias`` of its averages;
        empty if there are none but rounding.
    settings : type
        Its section of the model file.
    auto : int or None
        Place in the order in which ``auto`` tries engines where none is instant; None: it is asked
        for by its name.
    configuration : mapping
        Table of the user's configuration file -> its keys.
    state_name : str or None
        Name, in the job's directory, of the state that a finished search leaves and that another
        one of the same sector may begin from (copied to ``start``); None if there is none.
    recipe : ImageRecipe or None
        The container image that holds it; None if there is none.
    """

    contract: ClassVar[int] = CONTRACT
    name: ClassVar[str]
    revision: ClassVar[int] = 1
    summary: ClassVar[str]
    ensembles: ClassVar[tuple[Ensemble, ...]]
    stochastic: ClassVar[bool]
    systematics: ClassVar[tuple[str, ...]]
    settings: type[Settings]
    auto: ClassVar[int | None] = None
    configuration: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType({})
    state_name: ClassVar[str | None] = None
    recipe: ClassVar[ImageRecipe | None] = None

    @abstractmethod
    def version(self) -> str:
        """Return the engine's version: everything of the installation that can change a number.

        Raises
        ------
        MissingEngineError
            If the engine is not installed; the message says how to get it.
        """

    def check(self, request: Request[Settings]) -> None:
        """Raise OrchestraError if this engine cannot solve the request, with the remedy."""

    @abstractmethod
    def render(self, request: Request[Settings]) -> Job:
        """Return the job's files and command. Writes nothing, and needs no engine."""

    @abstractmethod
    def parse(self, directory: Path, request: Request[Settings]) -> Averages:
        """Read the finished job in ``directory``.

        Raises
        ------
        EngineError
            If the output is missing, incomplete or not finite.
        """

    def tools(self) -> Tools:
        """Return where the programs of its jobs are on this machine.

        Raises
        ------
        MissingEngineError
            As :meth:`version`.
        """
        return Tools()

    def progress(self, directory: Path, request: Request[Settings]) -> list[str]:
        """Return what there is to say on how far the job in ``directory`` is; changes nothing.

        Called before the job starts, so that what is left of an earlier attempt is not taken for
        news, and then several times per second; a line that was said last is not said again.
        """
        return []

    def has_target(self, request: Request[Settings]) -> bool:
        """Return whether something is asked for that :meth:`enough` has to judge."""
        return False

    def enough(self, directory: Path, request: Request[Settings]) -> bool:
        """Return whether the running job in ``directory`` has reached what was asked for.

        Whoever started the job then leaves the file ``stop`` beside it, which the engine's script
        looks for.
        """
        return False

    def cost(self, request: Request[Settings]) -> Cost:
        """Return what the request is expected to take."""
        return Cost()

    def sampling(self, request: Request[Settings]) -> Sampling | None:
        """Return a sweep's cost and how many there will be; None: without noise, or unknown."""
        return None

    def round_time(self, settings: Settings, needed: float) -> float:
        """Return a round imaginary time of at least ``needed``, in 1/energy.

        Its half and its quarter must be possible with these settings as well.
        """
        return 4.0 * math.ceil(needed / 4.0 * 2) / 2

    def projection_time(self, settings: Settings) -> float | None:
        """Return the imaginary time after which a trial state counts as a ground state.

        In 1/energy; None if ground states are found in another way.
        """
        return None

    def with_projection_time(self, settings: Settings, time: float) -> Settings:
        """Return the settings with another projection time, for engines that have one."""
        raise NotImplementedError

    def cheaper(self, settings: Settings, effort: float) -> Settings | None:
        """Return settings for the first runs of a search, which only have to come near.

        Parameters
        ----------
        settings
            Those of the accurate run, an instance of ``settings``.
        effort : float
            Wished part of the accurate run's effort; engines without noise may ignore it.

        Returns
        -------
        SpecModel or None
            None if nothing is gained.
        """
        return None

    def may_begin_from_state(self, settings: Settings) -> bool:
        """Return whether a search with these settings notices that the state of another is stuck.

        It can be stuck where it was, in a layer's number of electrons for one; only a run that
        proves its state notices.
        """
        return self.state_name is not None

    def self_test(self) -> str | None:
        """Return why the installation does not work, or None."""
        return None

    def place(self) -> str:
        """Return which installation is used and who named it, for ``orchestra doctor``."""
        return ""

    def build(
        self,
        source: Path | None,
        options: tuple[str, ...],
        rebuild: bool,
        say: Callable[[str], None],
    ) -> None:
        """Compile the engine, for ``orchestra engines build``.

        Parameters
        ----------
        source : Path or None
            Its source tree; None: the one that was used last.
        options : tuple of str
            Flags of the command that were given, such as ``"mpi"``.
        rebuild : bool
            Whether to compile what is there already.
        say : callable
            Receives lines for the user.
        """
        raise OrchestraError(f"`{self.name}` is not built here")

    def install(self, say: Callable[[str], None]) -> None:
        """Install what the engine needs, for ``orchestra engines install``."""
        raise OrchestraError(f"`{self.name}` is not installed by this program")

    def installations(self) -> list[str]:
        """Return lines about the installations that there are, for ``orchestra engines list``."""
        return []


def installed_version(title: str, package: str) -> str:
    """Return ``TITLE VERSION`` of an installed Python package, without importing it.

    Raises
    ------
    MissingEngineError
        If it is not installed.
    """
    try:
        return f"{title} {version(package)}"
    except PackageNotFoundError as error:
        raise MissingEngineError(
            f"{title} is not installed; `pip install {package}` brings it"
        ) from error


def python_job(
    request: Request, module: str, threads: int, terms: Terms | None = None, **settings: Any
) -> Job:
    """Return the job of an engine whose process is a Python module that reads ``job.json``.

    Parameters
    ----------
    request : Request
        What to solve.
    module : str
        Run as ``python -m MODULE DIRECTORY``.
    threads : int
        Bound of every threading layer.
    terms : Terms or None
        The model as the process gets it, such as in other units; None: as it is.
    settings
        What the process has to know besides the numerics.
    """
    numerics = request.numerics.model_dump(mode="json") | settings
    return Job(
        program="python",
        arguments=("-P", "-m", module, "."),
        files={JOB: render_job(terms or request.terms, request.observables, numerics)},
        environment=thread_environment(threads),
    )
