"""Container images: which one holds an engine, and what it says about itself."""

import copy
import json
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bilayer_orchestra.configuration import (
    NOT_TRUSTED,
    cache_directory,
    config_file,
    engine_settings,
)
from bilayer_orchestra.engines.base import Engine, ImageRecipe, Request, Tools
from bilayer_orchestra.engines.registry import engines
from bilayer_orchestra.errors import MissingEngineError, OrchestraError
from bilayer_orchestra.files import (
    file_sha256,
    own_directory,
    sha256,
    trusted,
    user_path,
    variable,
    write_text_atomic,
)

VARIABLE = "ORCHESTRA_APPTAINER"
#: Label that our definitions write: the kind of engine inside.
HOLDS = "orchestra.holds"
#: Label that our definitions write: the hash of what is ours.
PACKAGE = "orchestra.revision"


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
        if engine not in recipes() or not equals or not path:
            known = ", ".join(recipes())
            raise OrchestraError(f"--image {text}: expected KIND=FILE with one of {known}")
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
        if found := shutil.which(name):
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
    memory = cache_directory() / "images" / f"{sha256(key)[:24]}.json"
    with suppress(OSError, ValueError, TypeError):  # nothing remembered, or no such thing
        if trusted(memory):
            return Image(path, **json.loads(memory.read_text()))
    command = [container_command(), "inspect", "--json", "--labels", str(path)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        labels = json.loads(answer.stdout)["data"]["attributes"]["labels"] or {}
    except (ValueError, KeyError, TypeError) as error:
        reason = (answer.stderr or answer.stdout).strip().splitlines()[-1:]
        raise OrchestraError(f"{path} is no usable image: {' '.join(reason)}") from error
    digest = f"sha256:{file_sha256(path)}"
    with suppress(OrchestraError):  # computed again next time
        own_directory(memory.parent, NOT_TRUSTED)
        write_text_atomic(memory, json.dumps({"digest": digest, "labels": labels}) + "\n")
    return Image(path, digest, labels)


class _InImage(Engine):
    """What changes where an engine is in an image; the rest is its own."""

    image: ClassVar[Image]
    recipe: ClassVar[ImageRecipe]

    def version(self) -> str:
        """Return what the image's label says."""
        label = self.image.labels.get(self.recipe.label)
        if label is None:
            raise MissingEngineError(
                f"{self.image.path} does not say which {self.name} it holds; build it with "
                f"`orchestra containers build {self.recipe.kind}`"
            )
        return label

    def tools(self) -> Tools:
        """Return where programs are inside."""
        return Tools(
            self.recipe.programs,
            image=self.image.path,
            image_digest=self.image.digest,
            launched=self.recipe.launched,
        )

    def check(self, request: Request) -> None:
        """Refuse what the engine refuses, and an image of another version of this program."""
        refuse_other_image(self.image, self.recipe)
        super().check(request)


def contained(engine: Engine, images: dict[str, str]) -> Engine:
    """Return ``engine`` in its image."""
    if engine.recipe is None:
        raise OrchestraError(f"there is no image of {engine.name}; run it with --runtime local")
    image = find_image(engine.recipe.kind, images)
    inside = copy.copy(engine)
    inside.__class__ = type(
        f"{type(engine).__name__}InImage", (_InImage, type(engine)), {"image": image}
    )
    return inside


def recipes() -> dict[str, ImageRecipe]:
    """Return the recipes of the installed engines by their kind."""
    found = (engine.recipe for engine in engines().values())
    return {recipe.kind: recipe for recipe in found if recipe is not None}


def recipe_of(kind: str) -> ImageRecipe:
    """Return the recipe of ``kind``, or raise OrchestraError."""
    known = recipes()
    if kind not in known:
        raise OrchestraError(f"there is no image `{kind}`; known: {', '.join(known)}")
    return known[kind]


def refuse_other_image(image: Image, recipe: ImageRecipe) -> None:
    """Raise MissingEngineError if the image holds something else, or another version of us."""
    if image.labels.get(HOLDS) != recipe.kind:
        holds = image.labels.get(HOLDS, "something else")
        raise MissingEngineError(f"{image.path} holds {holds}, not {recipe.kind}")
    if image.labels.get(PACKAGE) != recipe.own_hash():
        raise MissingEngineError(
            f"{image.path} was built from another version of this program; build it again with "
            f"`orchestra containers build {recipe.kind}`"
        )
