"""``orchestra render``."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

import typer

from bilayer_orchestra.errors import MissingEngineError
from bilayer_orchestra.model.load import load_model
from bilayer_orchestra.running.choice import engine_for
from bilayer_orchestra.running.directory import RunDirectory
from bilayer_orchestra.running.point import checked_request, refuse_search


def render_command(
    model_file: Path, backend_name: str, output: Path, overrides: tuple[str, ...]
) -> None:
    """Write a job and say how to run it by hand."""
    model = load_model(model_file, overrides)
    refuse_search(model, "`orchestra run` does them and keeps their job directories")
    engine = engine_for(model, backend_name)
    job = engine.render(checked_request(model, engine))
    run = RunDirectory(output)
    run.write_job(job, model.to_yaml())
    environment = dict(job.environment)
    with contextlib.suppress(MissingEngineError):  # rendering needs none
        environment |= engine.tools().environment
    variables = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    command = " ".join([*variables, job.program, shlex.join(job.arguments)])
    typer.echo(f"rendered for {engine.name} in {run.job}: {', '.join(job.files)}")
    typer.echo(f"by hand:  cd {shlex.quote(str(run.job))} && {command}")
