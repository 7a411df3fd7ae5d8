"""What a runtime executes: a rendered job, and where its programs are. No physics in either."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """A rendered job: files, and the command that runs in the directory that holds them.

    Parameters
    ----------
    program : str
        Name of the program, such as ``"python"``, ``"julia"`` or ``"sh"``; see :class:`Tools`.
    arguments : tuple of str
        Passed to the program as they are; never through a shell.
    files : dict of str to str
        Relative file name -> text.
    environment : dict of str to str
        Set in addition to the inherited environment, before the program starts.
    ranks : int
        MPI processes of every program that the job starts through a launcher.
    launcher : str or None
        Name of the variable in which the job expects the command that starts ``ranks`` processes;
        None if it starts none.
    worker : str or None
        Python module that solves such jobs one after the other in one process (see
        :mod:`bilayer_orchestra.engine_side.worker`); a runtime may use it instead of the program,
        whose files it leaves.
    """

    program: str
    arguments: tuple[str, ...]
    files: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict)
    ranks: int = 1
    launcher: str | None = None
    worker: str | None = None


@dataclass(frozen=True)
class Tools:
    """Where the programs of an engine's jobs are, on this machine or in an image.

    Parameters
    ----------
    programs : mapping of str to str
        Name of a program -> its path. ``python`` is this one and ``sh`` the system's unless they
        are named here.
    environment : mapping of str to str
        Variables that say where the rest is.
    worker : mapping of str to str or None
        What a process that hosts the engine needs besides; None if none can host it.
    binaries : tuple of Path
        What the job starts besides its program: a queued task refuses another file of this name.
    image : Path or None
        The container image that all of this is in; None: it is installed here.
    image_digest : str
        ``sha256:...`` of the image.
    launched : mapping of str to str
        Variables for a job whose MPI launcher, outside of the image, starts every rank inside.
    """

    programs: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    worker: Mapping[str, str] | None = None
    binaries: tuple[Path, ...] = ()
    image: Path | None = None
    image_digest: str = ""
    launched: Mapping[str, str] = field(default_factory=dict)

    def image_facts(self) -> dict[str, str]:
        """Return what the dataset says about the image; nothing if there is none."""
        if self.image is None:
            return {}
        return {"image": self.image.name, "image_digest": self.image_digest}
