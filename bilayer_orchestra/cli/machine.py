"""What is installed here: ``orchestra schema``, ``doctor``, ``engines`` and ``containers``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bilayer_orchestra.cli.options import PathTyper

if TYPE_CHECKING:
    from bilayer_orchestra.images.use import Image

EngineName = Annotated[str, typer.Argument(help="name of the engine")]
ImageKind = Annotated[
    str, typer.Argument(help="kind of image; `orchestra containers list` shows them")
]

engines = PathTyper(
    help="Build and list the engines that you install yourself.", no_args_is_help=True
)
containers = PathTyper(
    help="Build and verify Apptainer images of the engines.", no_args_is_help=True
)


def schema() -> None:
    """Print the JSON Schema of the model file, for editors."""
    import json

    from bilayer_orchestra.model.kinds import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


def doctor() -> None:
    """Say which engines are found and whether they are usable."""
    from bilayer_orchestra.engines import registry
    from bilayer_orchestra.errors import OrchestraError
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
    engine: EngineName,
    source: Annotated[
        Path | None, typer.Option(help="the engine's source tree; it is not modified")
    ] = None,
    native: Annotated[bool, typer.Option("--native", help="tune for this processor")] = False,
    mpi: Annotated[bool, typer.Option("--mpi", help="several processes per chain")] = False,
    hdf5: Annotated[bool, typer.Option("--hdf5", help="HDF5 output (ALF_HDF5_DIR)")] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="ignore the cached build")] = False,
) -> None:
    """Compile an engine from your source tree; repeated builds come from the cache."""
    from bilayer_orchestra.engines.registry import get_engine

    flags = {"native": native, "mpi": mpi, "hdf5": hdf5}
    options = tuple(name for name, on in flags.items() if on)
    get_engine(engine).build(source, options, rebuild, typer.echo)


@engines.command("install")
def engines_install(engine: EngineName) -> None:
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
    engine: ImageKind,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="the image file [ENGINE.sif]")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="base image: file or docker://NAME [the configured one, Debian]"),
    ] = None,
    source: Annotated[
        Path | None, typer.Option(help="local source tree [the official release is fetched]")
    ] = None,
    version: Annotated[str | None, typer.Option(help="the release to fetch")] = None,
    sha256: Annotated[str | None, typer.Option(help="its checksum, verified if given")] = None,
    mirror: Annotated[
        str | None, typer.Option(help="where releases are fetched from [their official place]")
    ] = None,
) -> None:
    """Build an image from our definition, test it, and note it in the configuration file."""
    from bilayer_orchestra.configuration import config_file
    from bilayer_orchestra.images.build import BUILD_ELSEWHERE, Sources, build_image

    sources = Sources(base, source, version, sha256, mirror)
    _show(build_image(engine, output or Path(f"{engine}.sif"), sources, typer.echo))
    typer.echo(f"noted in {config_file()}\n{BUILD_ELSEWHERE}")


@containers.command("verify")
def containers_verify(
    engine: ImageKind,
    image: Annotated[Path | None, typer.Argument(help="the image file [the configured]")] = None,
) -> None:
    """Check an image, such as one that was built elsewhere: whole, of this version, working."""
    from bilayer_orchestra.images.build import verify_image
    from bilayer_orchestra.images.use import find_image

    _show(verify_image(engine, image or find_image(engine, {}).path))
    typer.echo("whole, of this version, and passes its own test")


@containers.command("list")
def containers_list() -> None:
    """Show the images that are set up."""
    from bilayer_orchestra.configuration import engine_settings
    from bilayer_orchestra.engines.registry import refuse_unknown_configuration
    from bilayer_orchestra.errors import OrchestraError
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
