"""``orchestra containers``: build, verify and list images."""

from __future__ import annotations

from pathlib import Path

import typer

from bilayer_orchestra.configuration import config_file, engine_settings
from bilayer_orchestra.engines.recipe import ENGINE_LABEL
from bilayer_orchestra.engines.registry import refuse_unknown_configuration
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.images.build import BUILD_ELSEWHERE, Sources, build_image, verify_image
from bilayer_orchestra.images.use import Image, find_image, recipes


def build_command(kind: str, output: Path | None, sources: Sources) -> None:
    """Build an image and say where it is."""
    target = output if output is not None else Path(f"{kind}.sif")
    image = build_image(kind, target, sources, typer.echo)
    _show(image)
    typer.echo(f"noted in {config_file()}\n{BUILD_ELSEWHERE}")


def verify_command(kind: str, path: Path | None) -> None:
    """Check an image."""
    if path is None:
        path = find_image(kind, {}).path
    _show(verify_image(kind, path))
    typer.echo("whole, of this version, and passes its own test")


def list_command() -> None:
    """Print the images of the configuration file."""
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


def _show(image: Image) -> None:
    size = image.path.stat().st_size / 2**20
    typer.echo(f"image    {image.path} ({size:.0f} MiB)")
    typer.echo(f"engine   {image.labels.get(ENGINE_LABEL, 'not said')}")
    typer.echo(f"digest   {image.digest}")
