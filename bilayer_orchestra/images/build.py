"""``orchestra containers``: build images from our definitions, and verify them."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bilayer_orchestra.configuration import engine_settings, set_engine_setting
from bilayer_orchestra.engines.base import ImageRecipe
from bilayer_orchestra.errors import EngineError, MissingEngineError, OrchestraError
from bilayer_orchestra.files import (
    copy_files,
    make_directory,
    quoted,
    replacing,
    user_path,
    write_text_atomic,
)
from bilayer_orchestra.heartbeat import heartbeat
from bilayer_orchestra.images.use import (
    Image,
    container_command,
    inspect,
    recipe_of,
    refuse_other_image,
)

#: Number of the Linux capability that unpacking an image needs, see capabilities(7).
_CAP_SYS_RESOURCE = 24
#: What to do where images cannot be built.
BUILD_ELSEWHERE = (
    "on a site that forbids building: build where you may (your own machine), copy the .sif and "
    "the .sif.sha256 beside it, and run `orchestra containers verify KIND FILE` there"
)


@dataclass(frozen=True)
class Sources:
    """What an image is made of.

    Parameters
    ----------
    base : str or None
        ``docker://debian:12-slim`` or a local image file; None: that of the configuration file, or
        else the definition's own.
    source : Path or None
        Local source tree; None: the official release is fetched.
    version : str or None
        Release to fetch; None: the definition's own.
    sha256 : str or None
        Its checksum; verified if given.
    mirror : str or None
        Where the release is fetched from, with the official place's layout below (block2: a package
        index); None: the official place.
    """

    base: str | None = None
    source: Path | None = None
    version: str | None = None
    sha256: str | None = None
    mirror: str | None = None


def build_image(
    kind: str, output: Path, sources: Sources, on_line: Callable[[str], None] = lambda line: None
) -> Image:
    """Build an image, test it, and note it in the configuration file.

    Parameters
    ----------
    kind : str
        What the image holds.
    output : Path
        The SIF file.
    sources : Sources
        What it is made of.
    on_line : callable
        Receives one line whenever there is something new to say.

    Raises
    ------
    EngineError
        If the build fails; with its last lines.
    """
    recipe, output = recipe_of(kind), output.absolute()
    release = _release(recipe, sources)
    with tempfile.TemporaryDirectory(prefix="orchestra-image-") as name:
        context = Path(name)
        _fill_context(recipe, context, sources.source)
        fresh = context / "image.sif"
        command = [container_command(), "build", *_privileges()]
        for key, value in (release | _arguments(recipe, sources)).items():
            if not re.fullmatch(r"[A-Za-z0-9 :/._+@,=~-]+", value):
                raise OrchestraError(
                    f"{value!r} ({key}) holds characters that definitions cannot take"
                )
            command += ["--build-arg", f"{key}={value}"]
        command += [str(fresh), str(recipe.definition())]
        with heartbeat(on_line, f"building the image of {kind}: it takes {recipe.minutes} minutes"):
            _run(command, context, output, on_line)
        make_directory(output.parent)
        with replacing(output) as partial:
            shutil.copyfile(fresh, partial)
    image = inspect(output)
    checksum = f"{image.digest.removeprefix('sha256:')}  {output.name}\n"
    write_text_atomic(output.with_name(f"{output.name}.sha256"), checksum)
    set_engine_setting("containers", kind, str(output))
    return image


def verify_image(kind: str, path: Path) -> Image:
    """Check that an image is whole, holds what it should, fits this version, and works.

    Raises
    ------
    OrchestraError
        With the first of these that does not hold.
    """
    if not path.is_file():
        raise MissingEngineError(f"{path} does not exist")
    image = inspect(path.absolute())
    beside = path.with_name(f"{path.name}.sha256")
    if beside.exists():
        wanted = beside.read_text().split()[0]
        if image.digest != f"sha256:{wanted}":
            raise OrchestraError(
                f"{path} is damaged or another image: it has {image.digest}, {beside} says {wanted}"
            )
    refuse_other_image(image, recipe_of(kind))
    command = [container_command(), "test", "--containall", "--cleanenv", "--no-home", str(path)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise EngineError(f"{path} fails its own test:\n{quoted(answer.stdout + answer.stderr)}")
    return image


def _release(recipe: ImageRecipe, sources: Sources) -> dict[str, str]:
    """Return the arguments about the release that is fetched; refuse what would be ignored."""
    if sources.sha256 and not re.fullmatch(r"[0-9a-f]{64}", sources.sha256):
        raise OrchestraError("--sha256 should be 64 hexadecimal digits")
    given = {name: getattr(sources, name) for name in ("version", "sha256", "mirror")}
    given = {name: value for name, value in given.items() if value is not None}
    if given and sources.source is not None and recipe.replaces_release(sources.source):
        raise OrchestraError(
            f"--{next(iter(given))} is about the release that is fetched; {sources.source} takes "
            "its place. Give one of the two"
        )
    return {name.upper(): value for name, value in given.items()}


def _fill_context(recipe: ImageRecipe, context: Path, source: Path | None) -> None:
    """Write what the definition copies: ``source/`` (may be empty) and ``orchestra/``."""
    if source is None:
        (context / "source").mkdir()
    else:
        source = source.resolve()
        if not source.is_dir():
            raise MissingEngineError(f"{source} is not a directory")
        ignore = shutil.ignore_patterns(*recipe.left_out(source))
        shutil.copytree(source, context / "source", ignore=ignore, symlinks=True)
    root, files = recipe.own_files()
    copy_files(files, root, context / "orchestra")


def _arguments(recipe: ImageRecipe, sources: Sources) -> dict[str, str]:
    arguments = {"REVISION": recipe.own_hash()}
    base = sources.base or engine_settings("containers").get("base")
    if base is not None:
        scheme, colons, rest = base.partition("://")
        local = user_path(base)
        if not colons and not local.exists():
            raise MissingEngineError(
                f"the base {base} does not exist; give an image file, or a place such as "
                "docker://debian:12-slim"
            )
        arguments["BOOTSTRAP"] = scheme if colons else "localimage"
        arguments["BASE"] = rest if colons else str(local.absolute())
    source = None if sources.source is None else sources.source.resolve()
    return arguments | recipe.arguments(source, sources.version)


def _privileges() -> list[str]:
    """Return what a build needs where its user is not a full root."""
    if os.geteuid() != 0:
        return ["--fakeroot"]
    try:
        status = Path("/proc/self/status").read_text()
        effective = int(re.findall(r"CapEff:\s*(\w+)", status)[0], 16)
    except (OSError, IndexError, ValueError):
        return []
    return [] if effective >> _CAP_SYS_RESOURCE & 1 else ["--fakeroot"]


def _run(command: list[str], context: Path, output: Path, on_line: Callable[[str], None]) -> None:
    lines: list[str] = []
    with subprocess.Popen(
        command,
        cwd=context,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines.append(line.rstrip())
                if line.startswith("INFO:"):
                    on_line(line.removeprefix("INFO:").strip())
        except BaseException:
            process.terminate()
            raise
    if process.returncode != 0:
        log = output.with_name(f"{output.name}.build.log")
        make_directory(log.parent)
        text = "\n".join(lines) + "\n"
        write_text_atomic(log, text)
        raise EngineError(
            f"the image was not built; from {log}:\n{quoted(text)}\n{BUILD_ELSEWHERE}"
        )
