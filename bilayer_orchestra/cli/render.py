"""``orchestra render``."""

from __future__ import annotations

import shlex
from pathlib import Path

import typer

from bilayer_orchestra.engines.registry import choose, get_engine
from bilayer_orchestra.model.load import load_model
from bilayer_orchestra.running.directory import RunDirectory
from bilayer_orchestra.running.point import checked_request, refuse_search


def render_command(
    model_file: Path, backend_name: str, output: Path, overrides: tuple[str, ...]
) -> None:
    """Write a job and say how to run it by hand."""
    model = load_model(model_file, overrides)
    refuse_search(model, "`orchestra run` does them and keeps their job directories")
    backend = get_engine(choose(model.terms()) if backend_name == "auto" else backend_name)
    request = checked_request(model, backend)
    job = backend.render(request)
    run = RunDirectory(output)
    run.write_job(job, model.to_yaml())
    environment = dict(job.environment)
    if job.engine == "julia":
        from bilayer_orchestra.engines.itensor.julia import find_julia

        environment |= find_julia().environment
    variables = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    if job.engine is not None and job.engine != job.program:
        variables.append(f"ORCHESTRA_{job.engine.upper()}=/path/to/{job.engine}")
    command = " ".join([*variables, job.program, shlex.join(job.arguments)])
    typer.echo(f"rendered for {backend.name} in {run.job}: {', '.join(job.files)}")
    typer.echo(f"by hand:  cd {shlex.quote(str(run.job))} && {command}")
