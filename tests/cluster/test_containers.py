"""Engines in images: the definitions, and real containers where Apptainer is found."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from bilayer_orchestra.engines.alf.installation import find_alf
from bilayer_orchestra.engines.base import Job, Tools
from bilayer_orchestra.engines.registry import get_engine
from bilayer_orchestra.errors import EngineError, MissingEngineError, OrchestraError
from bilayer_orchestra.images.build import Sources, build_image, verify_image
from bilayer_orchestra.images.use import contained, image_table, inspect, recipe_of
from bilayer_orchestra.resources import resource
from bilayer_orchestra.running.choice import installed
from bilayer_orchestra.running.point import Runner, make_request, run_point
from bilayer_orchestra.runtimes.local import ApptainerRuntime, contained_command
from tests.support.alf import missing_alf
from tests.support.commands import ORCHESTRA
from tests.support.containers import missing_containers, tiny_image
from tests.support.models import make_model
from tests.support.processes import kill_when, wait_until

needs_apptainer = pytest.mark.skipif(
    bool(missing_containers()), reason=f"no containers: {missing_containers()}"
)
needs_alf = pytest.mark.skipif(bool(missing_alf()), reason=f"no ALF: {missing_alf()}")
DEFINITIONS = sorted(resource("containers").glob("*.def"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    alf = find_alf()
    return tiny_image(tmp_path_factory.mktemp("image"), alf.binary, alf.label)


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda path: path.stem)
def test_definitions_say_what_they_are(definition):
    text = definition.read_text()
    for section in ("%arguments", "%help", "%labels", "%test", "%environment"):
        assert section in text
    for label in ("image.version", "image.source", "image.licenses", "orchestra.holds"):
        assert label in text
    # everything that is filled in has a default or comes from the builder
    for stage in text.split("Bootstrap: ")[1:]:
        known = set(re.findall(r"^    ([A-Z0-9]+)=", stage, re.M))
        assert set(re.findall(r"\{\{ (\w+) \}\}", stage)) <= known
    assert not re.search(r"[0-9a-f]{64}", text)  # no checksum that nobody computed


def embedded(kind: str, name: str) -> str:
    """The job that %test of a definition writes into the file ``name``."""
    text = resource("containers", f"{kind}.def").read_text()
    return re.search(rf"cat >{name} <<'EOF'\n(.*?)\nEOF\n", text, re.S)[1]


@pytest.mark.parametrize("kind", ["block2", "itensor"])
def test_the_tests_in_the_definitions_are_jobs_of_this_version(kind, monkeypatch):
    """They hold the very settings that a job of today has: engines do not guess."""
    monkeypatch.setattr(type(get_engine(kind)), "version", lambda _: "any")
    request = make_request(make_model({"n_up": 1, "n_down": 1}, 2, t_perp=0.8), get_engine(kind))
    name, load = ("job.json", json.loads) if kind == "block2" else ("job.toml", tomllib.loads)
    job, today = (load(embedded(kind, name)), load(get_engine(kind).render(request).files[name]))
    assert set(job) == set(today)
    assert set(job["settings"]) == set(today["settings"])


def test_the_test_of_the_block2_definition_passes(tmp_path):
    pytest.importorskip("block2", reason="block2 is missing")
    (tmp_path / "job.json").write_text(embedded("block2", "job.json"))
    words = [sys.executable, "-m", "bilayer_orchestra.engines.block2.process", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    energy = np.load(tmp_path / "output.npz")["energy_with_mu"][-1]
    assert energy == pytest.approx(-4.354554895800679, abs=1e-9)


@pytest.mark.parametrize("engine", ["exact", "block2"])
def test_what_is_copied_into_the_image_is_all_that_the_engine_imports(tmp_path, engine):
    root, files = recipe_of("block2").own_files()
    for file in files:
        target = tmp_path / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    # our own package is found nowhere else: neither installed nor in the working directory
    code = (
        f"import sys; sys.path[:] = [p for p in sys.path if p and p != {str(root)!r}]\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        f"import bilayer_orchestra.engines.{engine}.process as process\n"
        "print(process.__file__)"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path))


@pytest.fixture
def pretended(tmp_path, monkeypatch):
    """Return a function that makes a file pass for an image with the given labels."""

    def make(**labels: str) -> Path:
        answer = json.dumps({"data": {"attributes": {"labels": labels}}})
        program, image = tmp_path / "apptainer", tmp_path / "pretended.sif"
        program.write_text(f"#!/bin/sh\necho '{answer}'\n")
        program.chmod(0o755)
        image.write_text(answer)
        monkeypatch.setenv("ORCHESTRA_APPTAINER", str(program))
        monkeypatch.setenv("ORCHESTRA_CACHE", str(tmp_path / "cache"))
        return image

    return make


def test_an_engine_in_an_image_answers_like_the_native_one(pretended):
    """But for its version and its programs: those are the image's."""
    image = pretended(**{"orchestra.engine": "ALF 9"})
    native, inside = get_engine("alf"), contained(get_engine("alf"), {"alf": str(image)})
    settings = make_model({"beta": 2.0}, 2).settings("alf")
    assert inside.version() == "ALF 9"
    assert inside.tools().image == image
    assert inside.projection_time(settings) == native.projection_time(settings) is not None
    changed = inside.with_projection_time(settings, 8.0)
    assert inside.projection_time(changed) == 8.0
    image = pretended(**{"orchestra.engine": "block2 9"})
    native, inside = get_engine("block2"), contained(get_engine("block2"), {"block2": str(image)})
    cheap = native.cheaper(make_model({"n_up": 1, "n_down": 1}).settings("block2"), 0.1)
    assert native.may_begin_from_state(cheap) is inside.may_begin_from_state(cheap) is False


def test_an_image_of_something_else_or_of_another_version_is_refused(pretended):
    own = recipe_of("block2").own_hash()
    for labels, words in (
        ({"orchestra.holds": "alf", "orchestra.revision": own}, "holds alf, not block2"),
        ({"orchestra.holds": "block2", "orchestra.revision": "0"}, "another version"),
    ):
        engine = contained(get_engine("exact"), {"block2": str(pretended(**labels))})
        with pytest.raises(MissingEngineError, match=words):
            engine.check(make_request(make_model({"n_up": 1, "n_down": 1}), engine))


def test_paths_of_any_kind_are_bound(tmp_path):
    job, tools = Job("sh", (), {}), Tools(image=Path("/i.sif"), image_digest="sha256:0")
    words = contained_command("apptainer", Path('/a b/"c",d:e'), job, tools)
    assert 'type=bind,"source=/a b/""c"",d:e",destination=/job' in words
    with pytest.raises(OrchestraError, match="line break"):
        contained_command("apptainer", Path("/a\nb"), job, tools)


def test_mistakes_are_told(tmp_path, monkeypatch):
    with pytest.raises(OrchestraError, match="KIND=FILE"):
        image_table(["alf"])
    monkeypatch.setenv("ORCHESTRA_APPTAINER", "no-such-program")
    (tmp_path / "x.sif").write_text("x")
    with pytest.raises(MissingEngineError, match="no-such-program"):
        inspect(tmp_path / "x.sif")
    with pytest.raises(MissingEngineError, match="does not exist"):
        contained(get_engine("alf"), {"alf": "/no/image.sif"})


@needs_apptainer
@needs_alf
def test_results_are_bit_identical_to_the_native_ones(tiny, tmp_path):
    model = make_model(
        {"beta": 2.0}, 2, numerics={"alf": {"sweeps": 2000, "chains": 2, "dtau": 0.1}}
    )
    native = run_point(model, get_engine("alf"), Runner(tmp_path / "native"))
    runtime = ApptainerRuntime({"alf": str(tiny)})
    odd = tmp_path / 'it\'s, a: "$HOME" %d'
    inside = run_point(model, installed(get_engine("alf"), runtime), Runner(odd, runtime))
    assert inside.run.path.name == native.run.path.name  # the same engine, the same request
    xr.testing.assert_identical(
        native.dataset.drop_attrs(deep=False), inside.dataset.drop_attrs(deep=False)
    )
    assert inside.dataset.attrs["runtime"] == "apptainer"
    assert inside.dataset.attrs["image_digest"] == inspect(tiny).digest
    assert "image_digest" not in native.dataset.attrs


def execute(tiny: Path, directory: Path, script: str) -> str:
    directory.mkdir(exist_ok=True)
    with (directory / "lock").open("w") as lock:
        job, tools = Job("sh", ("-c", script), {}, {"GIVEN": "42"}), Tools(image=tiny)
        ApptainerRuntime({}).execute(job, tools, directory, lock.fileno(), lambda: None)
    return (directory / "engine.log").read_text()


@needs_apptainer
@needs_alf
def test_the_container_sees_the_job_directory_and_nothing_else(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_HOST", "value")
    (tmp_path / "beside").write_text("x")
    log = execute(
        tiny,
        tmp_path / "job",
        f"env; ls {tmp_path} {Path.home()}/.cache 2>&1; touch /opt/x 2>&1; touch made; echo $GIVEN",
    )
    assert "SECRET_OF_THE_HOST" not in log.split("\n", 1)[1]
    assert "beside" not in log.split("\n", 1)[1]
    assert "Read-only file system" in log
    assert log.rstrip().endswith("42")
    assert (tmp_path / "job" / "made").exists()


@needs_apptainer
@needs_alf
def test_exit_codes_come_through(tiny, tmp_path):
    with pytest.raises(EngineError, match=r"exit code 7[\s\S]*last words"):
        execute(tiny, tmp_path / "job", "echo last words; exit 7")


@needs_apptainer
@needs_alf
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_orchestrator(tiny, tmp_path, how):
    model = make_model(
        {"beta": 2.0}, 2, numerics={"alf": {"sweeps": 100_000_000, "chains": 2, "dtau": 0.1}}
    )
    path = tmp_path / "model.yaml"
    path.write_text(model.to_yaml())
    words = [*ORCHESTRA, "run", str(path), "-b", "alf", "--runtime", "apptainer"]
    words += ["--image", f"alf={tiny}", "-o", str(tmp_path / "runs"), "--no-plot"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kill_when(lambda: list(tmp_path.glob("runs/*/job/dtau-0/chain-1/seg-*.part")), process, how)
    (job,) = tmp_path.glob("runs/*/job")
    wait_until(lambda: not writers(job))


def writers(job: Path) -> list[str]:
    """Processes, in any container, whose parent directory of work is this job."""
    inode = job.stat().st_ino
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            inside = (folder / "root" / "job").stat().st_ino == inode
            if inside and (b"run.sh" in command or b"ALF" in command):
                found.append(command.decode(errors="replace"))
        except OSError:
            continue
    return found


@needs_apptainer
@needs_alf
def test_an_image_is_verified(tiny, tmp_path):
    with pytest.raises(OrchestraError, match="holds alf, not block2"):
        verify_image("block2", tiny)
    copy = tmp_path / "alf.sif"
    copy.write_bytes(tiny.read_bytes())
    (tmp_path / "alf.sif.sha256").write_text(f"{'0' * 64}  alf.sif\n")
    with pytest.raises(OrchestraError, match="damaged"):
        verify_image("alf", copy)


def test_a_base_of_the_configuration_file_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("ORCHESTRA_CONFIG", str(tmp_path / "config.toml"))
    (tmp_path / "config.toml").write_text('[containers]\nbase = "no-such.sif"\n')
    monkeypatch.setenv("ORCHESTRA_APPTAINER", "true")
    with pytest.raises(MissingEngineError, match=r"the base no-such\.sif does not exist"):
        build_image("block2", tmp_path / "block2.sif", Sources())
