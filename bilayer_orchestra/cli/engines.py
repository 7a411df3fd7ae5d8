"""``orchestra engines``: build, install and list the engines that the user brings."""

from __future__ import annotations

from pathlib import Path

import typer

from bilayer_orchestra.engines.registry import engines, get_engine, refuse_unknown_configuration


def build_command(
    engine: str, source: Path | None, options: tuple[str, ...], rebuild: bool
) -> None:
    """Compile an engine and remember where its source is."""
    get_engine(engine).build(source, options, rebuild, typer.echo)


def install_command(engine: str) -> None:
    """Install what an engine needs."""
    get_engine(engine).install(typer.echo)


def list_command() -> None:
    """Print the installations that there are, and which one is in use."""
    refuse_unknown_configuration()
    for name, engine in engines().items():
        for line in engine.installations():
            typer.echo(f"{name}: {line}")
