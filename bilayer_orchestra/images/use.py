"""Container images: which one holds an engine, and what it says about itself."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bilayer_orchestra.configuration import (
    NOT_TRUSTED,
    cache_directory,
    config_file,
    engine_settings,
)
from bilayer_orchestra.engines.base import Engine, Job
from bilayer_orchestra.errors import MissingEngineError, OrchestraError
from bilayer_orchestra.files import own_directory, trusted, write_text_atomic
from bilayer_orchestra.user_files import user_path, variable

VARIABLE = "ORCHESTRA_APPTAINER"
#: Labels that our definitions write.
ENGINE, HOLDS, PACKAGE = "orchestra.engine", "orchestra.holds", "orchestra.revision"
KINDS = ("alf", "block2", "itensor")
#: The image that holds a backend's engine; exact needs only Python and our package.
IMAGE_OF_BACKEND = {"alf": "alf", "block2": "block2", "exact": "block2", "itensor": "itensor"}


@dataclass(frozen=True)
class Image:
    """One image file.

    Parameters
    ----------
    path : Path
        The SIF file.
    digest : str
        ``sha256:...`` of the file.
    labels : dict of str to str
        What it says about itself.
    """

    path: Path
    digest: str
    labels: dict[str, str]


def image_table(images: list[str]) -> dict[str, str]:
    """Return engine -> image from texts such as ``alf=/path/to/alf.sif``."""
    table = {}
    for text in images:
        engine, equals, path = text.partition("=")
        if engine not in KINDS or not equals or not path:
            known = ", ".join(KINDS)
            raise OrchestraError(f"--image {text}: expected ENGINE=FILE with one of {known}")
        table[engine] = path
    return table


def container_command() -> str:
    """Return the container program: the environment's, the configured, apptainer, singularity.

    Raises
    ------
    MissingEngineError
        If there is none.
    """
    named = variable(VARIABLE) or engine_settings("containers").get("command")
    for name in [named] if named else ["apptainer", "singularity"]:
        found = shutil.which(name)
        if found:
            return found
    what = f"`{named}` cannot be executed" if named else "no apptainer or singularity in the PATH"
    raise MissingEngineError(
        f"{what}; load your site's module, or name the command in {VARIABLE} or under "
        f"[containers] in {config_file()}"
    )


def find_image(kind: str, images: dict[str, str]) -> Image:
    """Return the image that holds ``kind``: from ``images``, else from the configuration file."""
    named = images.get(kind) or engine_settings("containers").get(kind)
    if not named:
        raise MissingEngineError(
            f"no image holds {kind}: build one with `orchestra containers build {kind}`, or name "
            f"one with --image {kind}=FILE or under [containers] in {config_file()}"
        )
    path = user_path(named).absolute()
    if not path.exists():
        raise MissingEngineError(f"the image {path} of {kind} does not exist")
    return inspect(path)


def inspect(path: Path) -> Image:
    """Return digest and labels of an image; both are remembered for as long as it is unchanged."""
    status = path.stat()
    key = f"{path}\n{status.st_size}\n{status.st_mtime_ns}\n{status.st_ino}"
    memory = cache_directory() / "images" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
    try:
        if trusted(memory):
            known = json.loads(memory.read_text())
            return Image(path, known["digest"], known["labels"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    command = [container_command(), "inspect", "--json", "--labels", str(path)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        labels = json.loads(answer.stdout)["data"]["attributes"]["labels"] or {}
    except (ValueError, KeyError, TypeError) as error:
        reason = (answer.stderr or answer.stdout).strip().splitlines()[-1:]
        raise OrchestraError(f"{path} is no usable image: {' '.join(reason)}") from error
    with path.open("rb") as stream:
        digest = f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
    try:
        own_directory(memory.parent, NOT_TRUSTED)
        write_text_atomic(memory, json.dumps({"digest": digest, "labels": labels}) + "\n")
    except OrchestraError:
        pass  # computed again next time
    return Image(path, digest, labels)


class ContainedEngine:
    """A backend whose engine is in an image: the image says which version it is."""

    def __init__(self, backend: Engine, image: Image) -> None:
        self._backend, self.image = backend, image
        self.name, self.revision, self.summary = backend.name, backend.revision, backend.summary

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def version(self) -> str:
        """Return what the image's label says."""
        if self.name == "exact":  # its engine is our own package and scipy
            label = self.image.labels.get("orchestra.scipy")
        else:
            label = self.image.labels.get(ENGINE)
        if label is None:
            raise MissingEngineError(
                f"{self.image.path} does not say which {self.name} it holds; build it with "
                f"`orchestra containers build {IMAGE_OF_BACKEND[self.name]}`"
            )
        return label

    def check(self, request: Any) -> None:
        """Refuse what the backend refuses, and an image of another version of this program."""
        kind = IMAGE_OF_BACKEND[self.name]
        if self.image.labels.get(HOLDS) != kind:
            raise MissingEngineError(f"{self.image.path} does not hold {kind}")
        if self.image.labels.get(PACKAGE) != engine_half(kind):
            raise MissingEngineError(
                f"{self.image.path} was built from another version of this program's {kind} half; "
                f"build it again with `orchestra containers build {kind}`"
            )
        self._backend.check(request)

    def render(self, request: Any) -> Job:
        """Return the backend's job."""
        return self._backend.render(request)

    def progress(self, directory: Path, request: Any) -> list[str]:
        """Return the backend's progress."""
        return self._backend.progress(directory, request)

    def parse(self, directory: Path, request: Any) -> Any:
        """Return what the backend reads."""
        return self._backend.parse(directory, request)


def adapt(backend: Engine, images: dict[str, str]) -> Engine:
    """Return ``backend`` with its engine in an image."""
    return ContainedEngine(backend, find_image(IMAGE_OF_BACKEND[backend.name], images))


def engine_half(kind: str) -> str:
    """Return the hash of our own sources that an image of ``kind`` holds."""
    digest = hashlib.sha256()
    root, files = engine_half_files(kind)
    for file in files:
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def engine_half_files(kind: str) -> tuple[Path, list[Path]]:
    """Return (root, files) of what goes into an image of ``kind``."""
    from bilayer_orchestra.resources import resource

    if kind == "alf":
        root = resource("backends", "alf")
        return root, sorted(root.glob("*.F90"))
    if kind == "itensor":
        root = resource("backends", "itensor")
        return root, sorted([root / "Project.toml", *root.glob("src/*.jl")])
    root = Path(__file__).resolve().parents[2]
    package = root / "bilayer_orchestra"
    names = ("__init__.py", "engine_io.py", "errors.py", "terms.py", "backends/__init__.py")
    files = [package / name for name in names]
    for part in ("exact", "block2"):
        halves = (package / "backends" / part).glob("*.py")
        # what the orchestrator does with a backend is not in the image
        files += [file for file in halves if file.name not in ("backend.py", "numerics.py")]
    return root, sorted(files)
