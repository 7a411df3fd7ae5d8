"""Whole builds of images from our definitions, wherever Apptainer and a source are found."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import json
import re
import subprocess
import tarfile
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import xarray as xr

from bilayer_orchestra.configuration import engine_settings
from bilayer_orchestra.engines.registry import get_engine
from bilayer_orchestra.errors import EngineError, OrchestraError
from bilayer_orchestra.images.build import Sources, build_image, verify_image
from bilayer_orchestra.images.use import Image, container_command, inspect
from bilayer_orchestra.resources import resource
from bilayer_orchestra.running.choice import installed
from bilayer_orchestra.running.point import Runner, run_point
from bilayer_orchestra.runtimes.local import ApptainerRuntime
from tests.support.alf import missing_alf
from tests.support.containers import missing_containers
from tests.support.image_sources import alf_tree, base_image, block2_wheels, julia_source
from tests.support.models import make_model
from tests.support.slurm_bench import Bench
from tests.support.slurm_cluster import Cluster, missing_slurm
from tests.support.studies import STUDY

needs_apptainer = pytest.mark.skipif(
    bool(missing_containers()), reason=f"no containers: {missing_containers()}"
)
GROUND = {"n_up": 1, "n_down": 1}


@pytest.fixture(scope="module")
def base() -> str:
    return str(base_image())


def set_apart(patch: pytest.MonkeyPatch, folder: Path) -> Path:
    """A configuration file that a build may write to; the images are packed fast, not small."""
    patch.setenv("ORCHESTRA_APPTAINER", container_command())
    patch.setenv("APPTAINER_MKSQUASHFS_ARGS", "-comp gzip -Xcompression-level 1")
    patch.setenv("ORCHESTRA_CONFIG", str(folder / "config.toml"))
    return folder / "config.toml"


@pytest.fixture
def apart(tmp_path, monkeypatch, base) -> Path:
    return set_apart(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def alf_image(tmp_path_factory, base) -> Image:
    """Two minutes of compilation."""
    source, folder = alf_tree(), tmp_path_factory.mktemp("alf")
    with pytest.MonkeyPatch.context() as patch:
        set_apart(patch, folder)
        return built("alf", folder, Sources(base, source))


def built(kind: str, folder: Path, sources: Sources) -> Image:
    lines: list[str] = []
    image = build_image(kind, folder / f"{kind}.sif", sources, lines.append)
    assert "Running testscript" in lines
    assert engine_settings("containers")[kind] == str(image.path)
    assert (folder / f"{kind}.sif.sha256").read_text().startswith(image.digest[7:])
    assert verify_image(kind, image.path).digest == image.digest
    the_test_in_the_definition_compares(kind, image)
    return image


def the_test_in_the_definition_compares(kind: str, image: Image) -> None:
    """With another exact energy in it, %test fails: it is no formality."""
    script = resource("containers", f"{kind}.def").read_text().partition("%test\n")[2]
    script = re.sub(r"^    ", "", script, flags=re.M)
    for wrong in (False, True):
        if wrong:
            right = "exact = -2 *" if kind == "alf" else "exact = -4.35"
            assert right in script
            script = script.replace(right, right[:-1] + ("7 *" if kind == "alf" else "6"))
        command = [container_command(), "exec", "--containall", "--cleanenv", "--no-home"]
        command += [str(image.path), "sh", "-c", script]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (answer.returncode != 0) == wrong, answer.stdout + answer.stderr
        assert "exact" in answer.stdout


def solve(kind: str, image: Image, model, folder: Path) -> xr.Dataset:
    runtime = ApptainerRuntime({kind: str(image.path)})
    outcome = run_point(
        model, installed(get_engine(kind), runtime), Runner(folder / "inside", runtime)
    )
    assert outcome.dataset.attrs["image_digest"] == image.digest
    return outcome.dataset


@pytest.mark.skipif(bool(missing_alf()), reason=f"no ALF: {missing_alf()}")
@needs_apptainer
def test_alf_built_from_a_local_base_and_source_gives_the_native_bits(alf_image, tmp_path):
    labels = alf_image.labels
    assert labels["org.opencontainers.image.version"] in labels["orchestra.engine"]
    model = make_model({"beta": 2.0}, 2, numerics={"alf": {"sweeps": 1000, "chains": 1}})
    native = run_point(model, get_engine("alf"), Runner(tmp_path / "native"))
    xr.testing.assert_equal(native.dataset, solve("alf", alf_image, model, tmp_path))


@pytest.mark.skipif(bool(missing_slurm()), reason=f"no test cluster: {missing_slurm()}")
@needs_apptainer
def test_one_point_on_two_nodes(alf_image, tmp_path):
    """The host's launcher starts one rank on each node, each in a container; the same on one."""
    results = []
    with Cluster(tmp_path / "slurm", nodes=2, cpus=2) as cluster:
        if "pmix" not in cluster.run("srun", "--mpi=list"):
            pytest.skip("this Slurm has no PMIx: apt install libpmix2")
        for nodes in (2, 1):
            folder = tmp_path / f"nodes-{nodes}"
            folder.mkdir()
            text = STUDY.replace("{n_up: 1, n_down: 1}", "{beta: 2.0}").partition("axes:")[0]
            text += "axes: {t_perp: [0.8]}\nbackends: [alf]\n"
            text += "numerics: {alf: {sweeps: 2000, chains: 1, ranks: 2, dtau: 0.1}}\n"
            site = f"""\
                cpus = 1
                sbatch = ["--nodes={nodes}", "--ntasks=2"]
                launcher = "srun --mpi=pmix --nodes={nodes} -n {{ranks}}"
                container = {json.dumps(container_command())}
                images = {{alf = "{alf_image.path}"}}
            """
            bench = Bench(cluster, folder, text, textwrap.dedent(site))
            bench.sweep()
            cluster.wait_until_empty()
            results.append(bench.collect())
            assert (results[-1].status == "finished").all(), bench.status()
            assert (results[-1].image_digest == alf_image.digest).all()
    xr.testing.assert_equal(
        *(result.drop_vars(["message", "run"]).drop_attrs() for result in results)
    )
    model = make_model({"beta": 2.0}, 2, t_perp=0.8)
    exact = run_point(model, get_engine("exact"), Runner(tmp_path / "exact")).dataset
    difference = float(results[0].energy[0] - exact.energy)
    assert abs(difference) < 5 * float(results[0].energy_stderr[0]) + 0.02  # dtau^2


@needs_apptainer
@pytest.mark.slow
def test_block2_is_built_from_a_local_base_and_wheels(tmp_path, apart, base):
    pytest.importorskip("block2", reason="block2 is missing")
    image = built("block2", tmp_path, Sources(base, block2_wheels(tmp_path)))
    inside = solve("block2", image, make_model(GROUND, 2), tmp_path)
    exact = run_point(make_model(GROUND, 2), get_engine("exact"), Runner(tmp_path / "e"))
    assert abs(float(inside.energy - exact.dataset.energy)) < 1e-9


@needs_apptainer
@pytest.mark.slow
def test_itensor_is_built_from_a_local_base_and_an_installed_julia(tmp_path, base, request):
    """A quarter of an hour of compilation."""
    source = julia_source(tmp_path)
    request.getfixturevalue("apart")
    image = built("itensor", tmp_path, Sources(base, source))
    inside = solve("itensor", image, make_model(GROUND, 2), tmp_path)
    exact = run_point(make_model(GROUND, 2), get_engine("exact"), Runner(tmp_path / "e"))
    assert abs(float(inside.energy - exact.dataset.energy)) < 1e-8


# ---- releases that are fetched ----------------------------------------------------------------


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """A mirror on this machine."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def release(archive: Path, top: str, files: dict[str, str]) -> str:
    """Pack a release with one directory at its top; return its checksum."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    tree = archive.parent / top
    for name, text in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
        (tree / name).chmod(0o755)
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tree, top)
    return hashlib.sha256(archive.read_bytes()).hexdigest()


@needs_apptainer
def test_a_release_is_fetched_and_its_checksum_verified(tmp_path, apart, base):
    """A wrong checksum ends the build; with the right one the release is unpacked and used."""
    place = tmp_path / "mirror"
    right = release(place / "ALF-9.9.tar.gz", "ALF-ALF-9.9", {"configure.sh": "false\n"})
    with served(place) as mirror:
        for sha256, expected in (
            ("0" * 64, r"alf.tar.gz: FAILED[\s\S]*did NOT match"),
            (right, r"this ALF is too old: it has no Prog/Hamiltonians.list.d"),
        ):
            with pytest.raises(EngineError, match=expected):
                build_image("alf", tmp_path / "alf.sif", Sources(base, None, "9.9", sha256, mirror))
            assert not (tmp_path / "alf.sif").exists()
            assert not apart.exists()
        with pytest.raises(EngineError, match="404"):
            build_image("alf", tmp_path / "alf.sif", Sources(base, None, "9.8", None, mirror))


@needs_apptainer
@pytest.mark.slow
def test_a_fetched_release_of_alf_is_built(tmp_path, base, request):
    place = tmp_path / "mirror"
    place.mkdir()
    with tarfile.open(place / "ALF-2.6.tar.gz", "w:gz") as tar:
        tar.add(alf_tree().resolve(), "ALF-ALF-2.6")
    request.getfixturevalue("apart")
    sha256 = hashlib.sha256((place / "ALF-2.6.tar.gz").read_bytes()).hexdigest()
    with served(place) as mirror:
        built("alf", tmp_path, Sources(base, None, "2.6", sha256, mirror))


@needs_apptainer
@pytest.mark.slow
def test_checksums_of_julia_and_of_wheels_are_verified(tmp_path, apart, base):
    """With the right one, the Julia that was fetched is called; this one only says so."""
    place = tmp_path / "mirror"
    name = "linux/x64/1.10/julia-1.10.10-linux-x86_64.tar.gz"
    says = "#!/bin/sh\necho this is the fetched one\nexit 1\n"
    right = release(place / name, "julia-1.10.10", {"bin/julia": says})
    with served(place) as mirror:
        for sha256, expected in (("0" * 64, "did NOT match"), (right, "this is the fetched one")):
            with pytest.raises(EngineError, match=expected):
                build_image(
                    "itensor", tmp_path / "i.sif", Sources(base, None, None, sha256, mirror)
                )
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "block2-0.5.4-py3-none-any.whl").write_text("no wheel")
    with pytest.raises(EngineError, match="did NOT match"):
        build_image("block2", tmp_path / "b.sif", Sources(base, wheels, None, "0" * 64))


def test_what_a_source_replaces_is_refused(tmp_path):
    for sources in (
        Sources(source=tmp_path, version="2.6"),
        Sources(source=tmp_path, sha256="0" * 64),
        Sources(source=tmp_path, mirror="http://127.0.0.1"),
    ):
        with pytest.raises(OrchestraError, match="takes its place"):
            build_image("alf", tmp_path / "alf.sif", sources)
    with pytest.raises(OrchestraError, match="64 hexadecimal digits"):
        build_image("alf", tmp_path / "alf.sif", Sources(sha256="abc"))


@needs_apptainer
def test_a_base_that_cannot_be_used_is_named(tmp_path, apart):
    """The builder's message has many lines; the one that says what it is about is shown."""
    (tmp_path / "base.sif").write_text("no image")
    (tmp_path / "wheels").mkdir()
    with pytest.raises(EngineError, match="FATAL:"):
        build_image(
            "block2", tmp_path / "b.sif", Sources(str(tmp_path / "base.sif"), tmp_path / "wheels")
        )
    with pytest.raises(OrchestraError, match="no usable image"):
        inspect(tmp_path / "base.sif")
