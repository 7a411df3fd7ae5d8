"""``orchestra engines``: build and list the engines that the user installs."""

from __future__ import annotations

from pathlib import Path

import typer

from bilayer_orchestra.configuration import config_file, engine_settings, set_engine_setting
from bilayer_orchestra.engines.alf.install.installation import find_alf, finished_builds
from bilayer_orchestra.errors import OrchestraError


def build_command(
    engine: str, source: Path | None, native: bool, mpi: bool, hdf5: bool, rebuild: bool
) -> None:
    """Compile an engine and remember where its source is."""
    if engine != "alf":
        raise OrchestraError(f"`{engine}` is not built here; known: alf")
    from bilayer_orchestra.engines.alf.install.build import Options, build_alf

    if source is None:
        remembered = engine_settings("alf").get("source")
        if remembered is None:
            raise OrchestraError(
                "name your ALF source tree: orchestra engines build alf --source DIR "
                "(git clone https://github.com/ALF-QMC/ALF brings one)"
            )
        source = Path(remembered)
    installation = build_alf(source, Options(native, mpi, hdf5), typer.echo, rebuild)
    set_engine_setting("alf", "source", str(source.resolve()))
    typer.echo(f"{installation.label}\nbinary   {installation.binary}\nsettings {config_file()}")
    used = find_alf()
    if used.binary != installation.binary:
        typer.echo(f"note: runs still use {used.binary}, named by {used.origin}")


def list_command() -> None:
    """Print the engines that are set up, and which one is in use."""
    try:
        used = find_alf()
    except OrchestraError as error:
        used = None
        typer.echo(f"alf: {error}")
    builds = finished_builds()
    if used and used.binary not in [build.binary for build in builds]:
        builds.append(used)
    for build in builds:
        marks = ["in use"] if used and build.binary == used.binary else []
        marks += ["older Hamiltonian"] if build.stale else []
        mark = f"  [{', '.join(marks)}]" if marks else ""
        typer.echo(f"alf: {build.label}{mark}")
        typer.echo(f"     {build.binary}  ({build.origin})")
