"""Finding and building engines, without compiling anything."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path

import pytest

from bilayer_orchestra import configuration as config
from bilayer_orchestra import heartbeat
from bilayer_orchestra.engines.alf import build as alf_build
from bilayer_orchestra.engines.alf import installation as alf
from bilayer_orchestra.engines.registry import get_engine
from bilayer_orchestra.errors import MissingEngineError, OrchestraError
from bilayer_orchestra.running.choice import AUTO, engine_for
from tests.support.commands import orchestra
from tests.support.models import make_model


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    """Leave the user's configuration and cache alone."""
    monkeypatch.setenv("ORCHESTRA_CONFIG", str(tmp_path / "config" / "config.toml"))
    monkeypatch.setenv("ORCHESTRA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ORCHESTRA_ALF", raising=False)


def program(path: Path, text: str = "exit 0") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def build(tmp_path: Path, name: str, built: str, hamiltonian: str | None = None) -> Path:
    """Put a finished build into the cache."""
    binary = program(tmp_path / "cache" / "alf" / name / alf.BINARY, f"echo {name}")
    record = {
        "alf_version": f"ALF {name}",
        "hamiltonian": hamiltonian or alf.hamiltonian_hash(),
        "options": [],
        "compiler": "gfortran 12",
        "blas": "OpenBLAS",
        "built": built,
        "binary_sha256": hashlib.sha256(binary.read_bytes()).hexdigest(),
    }
    binary.with_name(alf.BUILD_RECORD).write_text(json.dumps(record))
    return binary


def test_nothing_set_up_says_what_to_do():
    with pytest.raises(MissingEngineError, match="orchestra engines build alf --source DIR"):
        alf.find_alf()


def test_the_newest_build_is_used(tmp_path):
    build(tmp_path, "old", "2026-01-01")
    newest = build(tmp_path, "new", "2026-02-01")
    assert alf.find_alf().binary == newest
    assert alf.find_alf().label == (
        f"ALF new + Orchestra {alf.hamiltonian_hash()[:8]} (serial, gfortran 12, OpenBLAS)"
    )


def test_builds_with_an_older_hamiltonian_are_not_used(tmp_path):
    build(tmp_path, "stale", "2026-03-01", hamiltonian="0" * 64)
    with pytest.raises(MissingEngineError, match="older version of the Orchestra Hamiltonian"):
        alf.find_alf()
    current = build(tmp_path, "current", "2026-01-01")
    assert alf.find_alf().binary == current


def test_environment_beats_configuration_beats_cache(tmp_path, monkeypatch):
    build(tmp_path, "cached", "2026-01-01")
    configured = program(tmp_path / "a" / "ALF.out")
    config.set_engine_setting("alf", "binary", str(configured))
    assert alf.find_alf().binary == configured
    named = program(tmp_path / "b" / "ALF.out")
    monkeypatch.setenv("ORCHESTRA_ALF", str(named))
    assert alf.find_alf().binary == named
    assert "ORCHESTRA_ALF" in alf.find_alf().origin


def test_named_binary_that_is_not_there_is_not_replaced_silently(tmp_path, monkeypatch):
    build(tmp_path, "cached", "2026-01-01")
    monkeypatch.setenv("ORCHESTRA_ALF", str(tmp_path / "gone"))
    with pytest.raises(MissingEngineError, match="does not exist"):
        alf.find_alf()
    (tmp_path / "gone").write_text("data")
    with pytest.raises(MissingEngineError, match="cannot be executed"):
        alf.find_alf()


def test_record_of_another_binary_is_not_believed(tmp_path, monkeypatch):
    binary = build(tmp_path, "one", "2026-01-01")
    monkeypatch.setenv("ORCHESTRA_ALF", str(binary))
    assert alf.find_alf().record
    program(binary, "echo something else")
    assert not alf.find_alf().record
    assert "own build sha256:" in alf.find_alf().label


def test_launcher_reaches_the_job(tmp_path):
    build(tmp_path, "one", "2026-01-01")
    assert get_engine("alf").tools().environment["ORCHESTRA_ALF_LAUNCHER"] == "mpiexec -n {ranks}"
    config.set_engine_setting("alf", "launcher", "srun -n {ranks}")
    assert get_engine("alf").tools().environment["ORCHESTRA_ALF_LAUNCHER"] == "srun -n {ranks}"


def test_settings_keep_the_rest_of_the_file():
    path = config.config_file()
    path.parent.mkdir(parents=True)
    path.write_text('# mine\n[julia]\nbinary = "/j" # here\n\n[alf]\n# old tree\nsource = "/a"\n')
    config.set_engine_setting("alf", "source", 'b "c" \\d')
    config.set_engine_setting("alf", "launcher", "srun")
    assert config.engine_settings("alf") == {"source": 'b "c" \\d', "launcher": "srun"}
    assert config.engine_settings("julia") == {"binary": "/j"}
    assert "# mine" in path.read_text()
    assert "# old tree" in path.read_text()
    before = path.read_text()
    config.set_engine_setting("alf", "launcher", "srun")
    assert path.read_text() == before


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[alf\n", "cannot be read"),
        ('[afl]\nbinary = "x"\n', "unknown table `afl`"),
        ('[alf]\nbinnary = "x"\n', "unknown key `alf.binnary`"),
        ("[alf]\nbinary = 3\n", "should be a text"),
    ],
)
def test_mistakes_in_the_file_are_said(text, word):
    path = config.config_file()
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(OrchestraError, match=word):
        get_engine("exact")
    with pytest.raises(OrchestraError, match=word):
        engine_for(make_model({"n_up": 1, "n_down": 1}, 2), AUTO)
    for command in (("doctor",), ("engines", "list"), ("containers", "list")):
        said = orchestra(*command)
        assert (said.returncode, word in said.stderr) == (1, True), said


# ---- building ---------------------------------------------------------------------------------


CONFIGURE = """
ALF_FLAGS="$ALF_FLAGS_EXT"
for word in "$@"; do
    case $word in
        LOG) ALF_FLAGS="$ALF_FLAGS -DSTABLOG" ;;
        MPI) ALF_FLAGS="$ALF_FLAGS -DMPI" ;;
    esac
done
export ALF_FLAGS
"""


def tree(path: Path) -> Path:
    """What an ALF source tree looks like from outside."""
    (path / "Prog" / "Hamiltonians.list.d").mkdir(parents=True)
    (path / "Libraries").mkdir()
    (path / "Prog" / "Hamiltonians.list").write_text("Hubbard\n")
    (path / "Prog" / "main.F90").write_text("program main\nend program\n")
    (path / "configure.sh").write_text(CONFIGURE)
    (path / "Makefile").write_text(
        "lib:\nprogram:\n\t@echo $(ALF_FLAGS)\n\tcp $(FAKE) Prog/ALF.out\n"
    )
    (path / "CHANGELOG.md").write_text("# Log\n## ALF 2.6\n## ALF 2.5\n")
    return path


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A PATH with programs that pretend to compile."""
    folder = tmp_path / "tools"
    program(folder / "gfortran", "echo 'GNU Fortran (Any) 12.2.0'")
    program(folder / "python3")
    for name in ("make", "sh", "cp", "git", "echo"):
        real = next(
            Path(place) / name
            for place in os.environ["PATH"].split(":")
            if (Path(place) / name).exists()
        )
        (folder / name).symlink_to(real)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr("bilayer_orchestra.engines.alf.installation.probe", lambda binary: None)
    monkeypatch.setenv("FAKE", str(program(tmp_path / "fake", "echo compiled")))
    return folder


def test_build_is_recorded_cached_and_leaves_the_tree_alone(tmp_path, tools):
    source = tree(tmp_path / "ALF")
    before = sorted((p, p.stat().st_mtime_ns) for p in source.rglob("*"))
    said: list[str] = []
    built = alf_build.build_alf(source, (), said.append)
    assert [line.split(" (")[0] for line in said] == [
        "compiling ALF: libraries",
        "compiling ALF: program",
    ]
    assert all("take 1 to 6 minutes" in line for line in said)
    assert sorted((p, p.stat().st_mtime_ns) for p in source.rglob("*")) == before
    assert alf.find_alf().binary == built.binary
    assert built.record["alf_version"].startswith("ALF 2.6 tree:")
    assert "-fno-finite-math-only" in built.record["flags"]
    again = alf_build.build_alf(source, (), said.append)
    assert again.binary == built.binary
    assert said[-1] == "this build is there already"
    native = alf_build.build_alf(source, ("native",), said.append)
    assert native.binary != built.binary
    assert alf.find_alf().binary == native.binary
    (source / "Prog" / "main.F90").write_text("program changed\nend program\n")
    changed = alf_build.build_alf(source, (), said.append)
    assert changed.binary not in (built.binary, native.binary)


def test_a_long_build_gives_signs_of_life(tmp_path, tools, monkeypatch):
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.01)
    source, heard = tree(tmp_path / "ALF"), tmp_path / "heard"
    wait = f"\t@while [ ! -e {heard} ]; do :; done\n"
    (source / "Makefile").write_text(f"lib:\n{wait}{(source / 'Makefile').read_text()[5:]}")

    def listen(line: str) -> None:
        if "libraries" in line and "by now" in line:
            heard.touch()

    alf_build.build_alf(source, (), listen)
    assert heard.exists()


@pytest.mark.parametrize("name", ["gfortran", "make", "python3"])
def test_missing_tools_are_named(tmp_path, tools, name):
    (tools / name).unlink()
    with pytest.raises(MissingEngineError, match=f"`{name}` is not on the PATH"):
        alf_build.build_alf(tree(tmp_path / "ALF"), (), print)


def test_missing_mpi_and_hdf5_are_named(tmp_path, tools, monkeypatch):
    monkeypatch.delenv("ALF_HDF5_DIR", raising=False)
    source = tree(tmp_path / "ALF")
    with pytest.raises(MissingEngineError, match="`mpifort` is not on the PATH"):
        alf_build.build_alf(source, ("mpi",), print)
    with pytest.raises(MissingEngineError, match=r"ALF_HDF5_DIR.*it is not set"):
        alf_build.build_alf(source, ("hdf5",), print)
    # where ALF's own script would look, find nothing, and go to the network
    monkeypatch.setenv("ALF_HDF5_DIR", str(tmp_path))
    with pytest.raises(MissingEngineError, match=f"it is {tmp_path}"):
        alf_build.build_alf(source, ("hdf5",), print)


def test_missing_lapack_is_named(tmp_path, tools):
    program(tools / "gfortran", '[ "$1" = --version ] && echo "GNU Fortran 12.2.0" || exit 1')
    with pytest.raises(MissingEngineError, match="install OpenBLAS"):
        alf_build.build_alf(tree(tmp_path / "ALF"), (), print)


def test_trees_that_are_none_are_named(tmp_path):
    with pytest.raises(MissingEngineError, match="is not a directory"):
        alf_build.check_tree(tmp_path / "nowhere")
    with pytest.raises(MissingEngineError, match=r"configure.sh.*missing.*git clone"):
        alf_build.check_tree(tmp_path)
    old = tree(tmp_path / "old")
    (old / "Prog" / "Hamiltonians.list.d").rmdir()
    with pytest.raises(MissingEngineError, match="too old"):
        alf_build.check_tree(old)


def test_failed_compilation_shows_the_compiler_and_keeps_the_log(tmp_path, tools):
    source = tree(tmp_path / "ALF")
    (source / "Makefile").write_text("lib:\n\t@echo 'x.F90:3: Error: no such type'; exit 1\n")
    with pytest.raises(OrchestraError, match="no such type") as failure:
        alf_build.build_alf(source, (), print)
    log = Path(str(failure.value).split("from ")[1].split(":")[0])
    assert "no such type" in log.read_text()
    assert not alf.finished_builds()


def test_configuration_that_was_not_understood_is_refused(tmp_path, tools):
    source = tree(tmp_path / "ALF")
    (source / "configure.sh").write_text("export ALF_FLAGS=-O3\n")
    with pytest.raises(OrchestraError, match="without -DSTABLOG"):
        alf_build.build_alf(source, (), print)


def test_binary_that_does_not_work_is_not_installed(tmp_path, tools, monkeypatch):
    monkeypatch.setattr(
        "bilayer_orchestra.engines.alf.installation.probe", lambda binary: "it crashes"
    )
    with pytest.raises(OrchestraError, match="does not work: it crashes"):
        alf_build.build_alf(tree(tmp_path / "ALF"), (), print)
    assert not alf.finished_builds()


# ---- commands ---------------------------------------------------------------------------------


def test_commands_say_what_is_missing(tmp_path):
    listed = orchestra("engines", "list")
    assert listed.returncode == 0
    assert "ALF is not set up" in listed.stdout
    built = orchestra("engines", "build", "alf")
    assert built.returncode == 1
    assert "--source DIR" in built.stderr
    built = orchestra("engines", "build", "alf", "--source", str(tmp_path))
    assert built.returncode == 1
    assert "not an ALF source tree" in built.stderr
    assert orchestra("engines", "build", "elf").returncode == 1


def test_doctor_tries_the_binary(tmp_path, monkeypatch):
    assert "alf      missing" in orchestra("doctor").stdout
    monkeypatch.setenv("ORCHESTRA_ALF", str(program(tmp_path / "ALF.out", "echo broken; exit 3")))
    said = orchestra("doctor").stdout
    assert "alf      unusable" in said
    assert "exit code 3: broken" in said


def test_auto_takes_alf_for_large_thermal_states(tmp_path):
    large = make_model({"beta": 2.0}, 8)
    with pytest.raises(MissingEngineError, match=r"(?s)16 sites.*orchestra engines build alf"):
        engine_for(large, AUTO)
    build(tmp_path, "one", "2026-01-01")
    assert engine_for(large, AUTO).name == "alf"
    assert engine_for(make_model({"beta": 2.0}, 2), AUTO).name == "exact"
