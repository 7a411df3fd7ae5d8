"""Files that a user names: `~` means the same everywhere, and no file can hold the program up."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from bilayer_orchestra import configuration as config
from bilayer_orchestra import files
from bilayer_orchestra.cli.app import app
from bilayer_orchestra.cli.options import PathTyper
from bilayer_orchestra.engines.alf import build as alf_build
from bilayer_orchestra.engines.alf.installation import find_alf
from bilayer_orchestra.engines.itensor.julia import find_julia, julia_environment
from bilayer_orchestra.engines.itensor.package import engine_half
from bilayer_orchestra.errors import MissingEngineError, OrchestraError
from bilayer_orchestra.images.use import container_command, find_image
from bilayer_orchestra.model.spec import load_model
from bilayer_orchestra.runtimes.slurm.site import load_site
from bilayer_orchestra.study.load import load_study
from tests.support.commands import ORCHESTRA
from tests.support.models import make_model


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home directory beside the one that one works in."""
    place = tmp_path / "home"
    place.mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(place))
    for name in ("CONFIG", "ALF", "JULIA", "JULIA_PROJECT", "APPTAINER", "CACHE"):
        monkeypatch.delenv(f"ORCHESTRA_{name}", raising=False)
    monkeypatch.chdir(tmp_path / "here")
    model = make_model({"n_up": 1, "n_down": 1}, 2)
    (place / "model.yaml").write_text(model.to_yaml())
    return place


def orchestra(*arguments, **options):
    command = [*ORCHESTRA, *map(str, arguments)]
    return subprocess.run(
        command, check=False, stderr=subprocess.PIPE, text=True, timeout=120, **options
    )


# ---- paths ------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--output=~/runs", "-o=~/runs", "-o~/runs"])
def test_output_goes_home(home, option):
    done = CliRunner().invoke(app, ["run", "~/model.yaml", "--backend", "exact", option])
    assert done.exit_code == 0, done.output
    assert (home / "runs" / "result.nc").exists()
    assert not list(Path.cwd().iterdir())
    picture = ["plot", "~/runs/result.nc", "--output", "~/picture.png"]
    assert CliRunner().invoke(app, picture).exit_code == 0
    assert (home / "picture.png").exists()


def test_every_command_gets_its_paths_with_the_home_directory(home):
    got = []
    commands = PathTyper()

    @commands.command()
    def command(
        one: Annotated[Path, typer.Argument()],
        others: Annotated[list[Path] | None, typer.Option("--other", "-o")] = None,
        none: Annotated[Path | None, typer.Option()] = None,
        text: Annotated[str, typer.Option()] = "~/text",
    ) -> None:
        got.append((one, others, none, text))

    done = CliRunner().invoke(commands, ["~", "--other=~/a", "-o", "./b", "-o=~/$HOME c"])
    assert done.exit_code == 0, done.output
    assert got == [(home, [home / "a", Path("b"), home / "$HOME c"], None, "~/text")]
    groups = [group.typer_instance for group in app.registered_groups]
    assert len(groups) == 2
    assert {type(group) for group in [app, *groups]} == {PathTyper}


@pytest.mark.parametrize(("command", "code"), [("run", 1), ("check", 3), ("fit", 1)])
def test_a_home_that_nobody_has_is_refused(home, command, code):
    done = orchestra(command, "~no-such-user/x.nc", "--output", "out")
    assert (done.returncode, done.stderr.count("\n")) == (code, 1)
    assert "~no-such-user/x.nc: no user has this home directory" in done.stderr
    assert not list(Path.cwd().iterdir())


def test_a_study_elsewhere_names_its_model_and_site_at_home(home):
    study = Path("study.yaml").absolute()
    study.write_text(
        "version: 1\nname: scan\nmodel: ~/model.yaml\naxes: {t_perp: [0.1]}\nsite: ~/site.toml\n"
    )
    (home / "site.toml").write_text(
        'python = "~/bin/python"\nbinds = ["~/data:/data", "/a"]\n[images]\nalf = "~/alf.sif"\n'
    )
    loaded = load_study(study)
    assert loaded.points[0].model.length == 2
    site = load_site(loaded.spec.site, study.parent, {})
    assert (site.python, site.binds) == (f"{home}/bin/python", (f"{home}/data:/data", "/a"))
    with pytest.raises(MissingEngineError, match=rf"image {home}/alf.sif of alf"):
        find_image("alf", site.images)
    with pytest.raises(MissingEngineError, match=rf"image {home}/b.sif of alf"):
        find_image("alf", {"alf": "~/b.sif"})


def test_the_configuration_file_and_variables(home, monkeypatch):
    for name in ("ORCHESTRA_ALF", "ORCHESTRA_JULIA", "ORCHESTRA_JULIA_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ORCHESTRA_CONFIG", "~/config.toml")
    (home / "config.toml").write_text(
        '[alf]\nbinary = "~/ALF.out"\nlauncher = "~/bin/mpiexec -n {ranks}"\n'
        '[julia]\nbinary = "~/julia"\nproject = "~/project"\n'
        '[containers]\nbase = "docker://debian:12"\nalf = "~/alf.sif"\n'
    )
    assert config.config_file() == home / "config.toml"
    for look, name in ((find_alf, "ALF.out"), (find_julia, "julia")):
        with pytest.raises(MissingEngineError, match=f"^{home}/{name}, named by {home}/config"):
            look()
    assert config.engine_settings("alf")["launcher"] == f"{home}/bin/mpiexec -n {{ranks}}"
    assert config.engine_settings("containers")["base"] == "docker://debian:12"
    monkeypatch.setenv("ORCHESTRA_ALF", "~/a/ALF.out")
    monkeypatch.setenv("ORCHESTRA_JULIA", "~/a/julia")
    monkeypatch.setenv("ORCHESTRA_APPTAINER", "~/a/apptainer")
    for look, name in ((find_alf, "ALF.out"), (find_julia, "julia")):
        with pytest.raises(MissingEngineError, match=f"^{home}/a/{name}, named by the environment"):
            look()
    with pytest.raises(MissingEngineError, match=f"`{home}/a/apptainer` cannot be executed"):
        container_command()
    monkeypatch.setenv("ORCHESTRA_CACHE", "~/cache")
    assert engine_half().is_relative_to(home / "cache")
    assert julia_environment(find_project("~/p", monkeypatch))["JULIA_PROJECT"] == f"{home}/p"
    h5fc = home / "hdf5" / "GCC" / "bin" / "h5fc"
    h5fc.parent.mkdir(parents=True)
    h5fc.touch()
    monkeypatch.setenv("ALF_HDF5_DIR", "~/hdf5")
    alf_build._check_hdf5(("hdf5",))
    assert not list(Path.cwd().iterdir())


def find_project(named, monkeypatch):
    from bilayer_orchestra.engines.itensor import julia

    monkeypatch.setenv("ORCHESTRA_JULIA_PROJECT", named)
    return julia._project()


# ---- contents ---------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["yaml", "nc"])
@pytest.mark.parametrize("kind", ["/dev/zero", "pipe", "huge", "folder"])
def test_a_file_without_end_is_refused(tmp_path, monkeypatch, kind, suffix):
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    path = tmp_path / f"file.{suffix}"
    if kind == "/dev/zero":
        path.symlink_to(kind)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "huge":
        path.touch()
        os.truncate(path, 1 << 40)
    else:
        path.mkdir()
    commands = {"yaml": ["run", "sweep", "check"], "nc": ["fit", "plot"]}[suffix]
    for command in commands:
        done = CliRunner().invoke(app, [command, str(path)])
        assert isinstance(done.exception, OrchestraError)
        assert str(path) in f"{done.output} {done.exception}"
    monkeypatch.setenv("ORCHESTRA_CONFIG", str(path))
    with pytest.raises(OrchestraError, match=r"file\.(yaml|nc) cannot be read: \S"):
        config.engine_settings("alf")


def test_a_pipe_that_is_written_to_is_read(home):
    reader, writer = os.pipe()
    os.write(writer, (home / "model.yaml").read_bytes())
    os.close(writer)
    assert load_model(Path(f"/dev/fd/{reader}")).length == 2
    os.close(reader)


# ---- outputs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["schema"], 1),
        (["run", "~/model.yaml", "--no-plot"], 1),
        (["run", "--help"], 1),
        (["check", "~/model.yaml", "--backends", "exact"], 3),
    ],
)
def test_a_full_disk_behind_standard_output(home, arguments, code):
    with Path("/dev/full").open("w") as full:
        done = orchestra(*arguments, stdout=full)
    words = "cannot write to standard output: No space left on device"
    assert (done.returncode, done.stderr) == (code, f"orchestra: {words}\n")
