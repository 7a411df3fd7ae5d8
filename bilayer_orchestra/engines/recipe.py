"""The container image of an engine: its definition, what of us is in it, and its arguments."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bilayer_orchestra.files import files_sha256
from bilayer_orchestra.resources import resource

#: Label in which our definitions write the engine's version.
ENGINE_LABEL = "orchestra.engine"


@dataclass(frozen=True)
class ImageRecipe:
    """One kind of image, which may hold several engines.

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
