"""``orchestra doctor``."""

from __future__ import annotations

import typer

from bilayer_orchestra.engines.itensor.managed import without_installing
from bilayer_orchestra.engines.registry import BACKENDS
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.machine import available_cores


def doctor_command() -> None:
    """Print which engines are usable here."""
    typer.echo(f"cores available: {available_cores()}")
    with without_installing():
        _backends()


def _backends() -> None:
    for backend in BACKENDS.values():
        try:
            found = backend.version()
            self_test = getattr(backend, "self_test", None)
            problem = self_test() if self_test else None
        except OrchestraError as error:
            typer.echo(f"{backend.name:8s} missing  {error}")
        else:
            verdict = (
                f"unusable {found}: {problem}"
                if problem
                else f"ok       {found}: {backend.summary}"
            )
            typer.echo(f"{backend.name:8s} {verdict}")
            place = getattr(backend, "place", None)
            for line in place().splitlines() if place else ():
                typer.echo(f"{'':17s} {line}")
