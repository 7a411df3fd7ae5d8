"""``orchestra doctor``."""

from __future__ import annotations

import typer

from bilayer_orchestra.engines.registry import engines, refuse_unknown_configuration
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.machine import available_cores


def doctor_command() -> None:
    """Print which engines are usable here."""
    refuse_unknown_configuration()
    typer.echo(f"cores available: {available_cores()}")
    for name, engine in engines().items():
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
