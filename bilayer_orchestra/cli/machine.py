"""What is installed here: ``orchestra schema``, ``doctor``, ``engines`` and ``containers``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bilayer_orchestra.cli.options import PathTyper
from bilayer_orchestra.errors import OrchestraError

if TYPE_CHECKING:
    from bilayer_orchestra.images.use import Image


engines = PathTyper(
    help="Build and list the engines that you install yourself.", no_args_is_help=True
)
containers = PathTyper(
    help="Build and verify Apptainer images of the engines.", no_args_is_help=True
)


def schema() -> None:
    """Print the JSON Schema of the model file, for editors."""
    import json

    from bilayer_orchestra.model.spec import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


def doctor() -> None:
    """Say which engines are found and whether they are usable."""
    from bilayer_orchestra.engines import registry
    from bilayer_orchestra.machine import available_cores

    registry.refuse_unknown_configuration()
    typer.echo(f"cores available: {available_cores()}")
    for name, engine in registry.engines().items():
        try:
            found, problem = engine.version(), engine.self_test()
            place = engine.place()
        except OrchestraError as error:
            typer.echo(f"{name:8s} missing  {error}")
            continue
        word = f"unusable {found}: {problem}" if problem else f"ok       {found}: {engine.summary}"
        typer.echo(f"{name:8s} {word}")
        for line in place.splitlines():
            typer.echo(f"{'':17s} {line}")


@engines.command("build")
def engines_build(
    engine: str,
    source: Path | None = None,
    native: bool = False,
    mpi: bool = False,
    hdf5: bool = False,
    rebuild: bool = False,
) -> None:
    """Compile an engine from your source tree; repeated builds come from the cache.

    Parameters
    ----------
    source
        the engine's source tree; it is not modified
    native
        tune for this processor
    mpi
        several processes per chain
    hdf5
        HDF5 output (ALF_HDF5_DIR)
    rebuild
        ignore the cached build
    """
    from bilayer_orchestra.engines.registry import get_engine

    flags = {"native": native, "mpi": mpi, "hdf5": hdf5}
    options = tuple(name for name, on in flags.items() if on)
    get_engine(engine).build(source, options, rebuild, typer.echo)


@engines.command("install")
def engines_install(engine: str) -> None:
    """Install what an engine needs, such as Julia and its packages."""
    from bilayer_orchestra.engines.registry import get_engine

    get_engine(engine).install(typer.echo)


@engines.command("list")
def engines_list() -> None:
    """Show the engines that are set up, and which one is in use."""
    from bilayer_orchestra.engines import registry

    registry.refuse_unknown_configuration()
    for name, engine in registry.engines().items():
        for line in engine.installations():
            typer.echo(f"{name}: {line}")


@containers.command("build")
def containers_build(
    engine: str,
    output: Path | None = None,
    base: str | None = None,
    source: Path | None = None,
    version: str | None = None,
    sha256: str | None = None,
    mirror: str | None = None,
) -> None:
    """Build an image from our definition, test it, and note it in the configuration file.

    Parameters
    ----------
    engine
        kind of image; `orchestra containers list` shows them
    output
        the image file [ENGINE.sif]
    base
        base image: file or docker://NAME [the configured one, Debian]
    source
        local source tree [the official release is fetched]
    version
        the release to fetch
    sha256
        its checksum, verified if given
    mirror
        where releases are fetched from [their official place]
    """
    from bilayer_orchestra.configuration import config_file
    from bilayer_orchestra.images.build import BUILD_ELSEWHERE, Sources, build_image

    sources = Sources(base, source, version, sha256, mirror)
    _show(build_image(engine, output or Path(f"{engine}.sif"), sources, typer.echo))
    typer.echo(f"noted in {config_file()}\n{BUILD_ELSEWHERE}")


@containers.command("verify")
def containers_verify(
    engine: str,
    image: Annotated[Path | None, typer.Argument(help="the image file [the configured]")] = None,
) -> None:
    """Check an image, such as one that was built elsewhere: whole, of this version, working.

    Parameters
    ----------
    engine
        kind of image; `orchestra containers list` shows them
    """
    from bilayer_orchestra.images.build import verify_image
    from bilayer_orchestra.images.use import find_image

    _show(verify_image(engine, image or find_image(engine, {}).path))
    typer.echo("whole, of this version, and passes its own test")


@containers.command("list")
def containers_list() -> None:
    """Show the images that are set up."""
    from bilayer_orchestra.configuration import engine_settings
    from bilayer_orchestra.engines.registry import refuse_unknown_configuration
    from bilayer_orchestra.images.use import find_image, recipes

    refuse_unknown_configuration()
    settings = engine_settings("containers")
    for kind in recipes():
        if kind not in settings:
            typer.echo(f"{kind:8s} none; orchestra containers build {kind}")
            continue
        try:
            _show(find_image(kind, {}))
        except OrchestraError as error:
            typer.echo(f"{kind:8s} {error}")


def _show(image: "Image") -> None:
    from bilayer_orchestra.engines.base import ENGINE_LABEL

    size = image.path.stat().st_size / 2**20
    typer.echo(f"image    {image.path} ({size:.0f} MiB)")
    typer.echo(f"engine   {image.labels.get(ENGINE_LABEL, 'not said')}")
    typer.echo(f"digest   {image.digest}")
