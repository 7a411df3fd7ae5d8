"""Studies on a real Slurm that is started for these tests: everything that can happen to a job."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from bilayer_orchestra.running.directory import RunDirectory
from tests.support.slurm_bench import Bench
from tests.support.slurm_cluster import Cluster, missing_slurm
from tests.support.studies import STUDY

pytestmark = pytest.mark.skipif(bool(missing_slurm()), reason=f"no test cluster: {missing_slurm()}")

FAST = STUDY.replace("[-2, -4.0]", "[-4.0]")  # four points of 0.3 s
#: DMRG that takes some seconds, one point for each U.
LONG = (
    STUDY.replace("length: 2", "length: 8")
    .replace("t_perp: [0.5, 0.8]", "t_perp: [0.5]")
    .replace("n_up: [1, 2], state.n_down: [1, 1]", "n_up: [4], state.n_down: [4]")
    .replace("[exact]", "[block2]")
    + "numerics: {block2: {max_bond_dimension: 80}}\n"
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("slurm"), nodes=2, cpus=1) as running:
        yield running


def engine_starts(run: RunDirectory) -> int:
    log = run.job / "engine.log"
    return log.read_text().count("--- job") if log.exists() else 0


def engine_processes(run: RunDirectory) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            inside = (folder / "cwd").readlink() == run.job
            if inside and b"block2.process" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_an_array_of_points_is_computed_once_and_collected(cluster, tmp_path):
    bench = Bench(cluster, tmp_path, FAST, "points_per_task = 2")
    assert "4 points in 2 tasks" in bench.sweep()
    assert "nothing to submit" in bench.sweep()
    cluster.wait_until_empty()
    assert "4 finished" in bench.status()
    dataset = bench.collect()
    assert (dataset.status == "finished").all()
    assert abs(float(dataset.energy.sel(t_perp=0.8, filling=1)[0]) + 4.354554895800679) < 1e-10
    assert "nothing to submit" in bench.sweep()
    assert [engine_starts(run) for run in bench.runs()] == [1, 1, 1, 1]


@pytest.mark.slow
def test_killed_cancelled_and_node_lost_each_is_told_and_resumes(cluster, tmp_path):
    pytest.importorskip("block2", reason="block2 is missing")
    bench = Bench(cluster, tmp_path, LONG, "requeues = 0\nsbatch = ['--no-requeue']")
    bench.sweep()
    first, second = bench.runs()
    bench.wait_for(lambda: bench.started(first) and bench.started(second))
    assert "2 running" in bench.status()
    (engine,) = engine_processes(first)
    os.kill(engine, signal.SIGKILL)
    cluster.run("scancel", str(second.record().job))
    bench.wait_for(lambda: "2 failed" in bench.status())
    text = bench.status()
    assert "killed (out of memory?): job" in text, text
    assert "cancelled: job" in text
    bench.wait_for(lambda: not engine_processes(second))

    assert "2 points in 2 tasks" in bench.sweep()
    bench.wait_for(lambda: bool(engine_processes(first) and engine_processes(second)))
    where = dict(line.split("=") for line in (first.path / "task/running").read_text().splitlines())
    assert where["job"] == first.record().job
    nodes = cluster.run("squeue", "-h", "-O", "ArrayTaskID:9,NodeList:9").split()
    node = int(nodes[nodes.index(first.record().job.rpartition("_")[2]) + 1][1:])
    cluster.kill_node(node)
    try:
        bench.wait_for(lambda: "node failure" in bench.status(), 90)
    finally:
        for pid in engine_processes(first):
            os.kill(pid, signal.SIGKILL)  # what a lost node does to its processes
        cluster.start_node(node)
        cluster.run("scontrol", "update", f"NodeName=n{node}", "State=RESUME")
    assert "1 points in 1 tasks" in bench.sweep()
    cluster.wait_until_empty(180)
    dataset = bench.collect()
    assert (dataset.status == "finished").all(), bench.status()
    # the node may have been lost before the second start had read the checkpoint
    assert '"resumed"' in (first.job / "progress.jsonl").read_text()
    assert engine_starts(first) == 3

    local = tmp_path / "local"
    bench.call("sweep", bench.study, "-o", local, "-j", 2)
    undisturbed = xr.load_dataset(local / "scan.nc")
    np.testing.assert_allclose(dataset.energy, undisturbed.energy, atol=1e-9)
    np.testing.assert_allclose(dataset.pair, undisturbed.pair, atol=1e-7)


@pytest.mark.slow
def test_the_time_limit_sends_a_point_back_and_it_resumes(cluster, tmp_path):
    """Slurm signals up to a minute early, or half a minute late: the point takes a minute."""
    pytest.importorskip("block2", reason="block2 is missing")
    text = LONG.replace("[-2, -4.0]", "[-4.0]").replace("length: 8", "length: 12")
    text = text.replace("[4]", "[6]").replace("dimension: 80", "dimension: 120")
    bench = Bench(cluster, tmp_path, text, 'time = "1:00"\nrequeues = 1')
    bench.site.write_text(bench.site.read_text().replace("signal = 30", "signal = 55"))
    bench.sweep()
    (run,) = bench.runs()
    bench.wait_for(lambda: "resumes" in bench.status() or engine_starts(run) > 1, 90)
    cluster.wait_until_empty(180)
    if "failed" in bench.status():  # stopped again, and no turn left
        assert "time limit: job" in bench.status()
        bench.site.write_text('time = "10:00"\n')
        bench.sweep()
        cluster.wait_until_empty(180)
    dataset = bench.collect()
    assert (dataset.status == "finished").all(), bench.status()
    assert engine_starts(run) >= 2
    assert '"resumed"' in (run.job / "progress.jsonl").read_text()


@pytest.mark.slow
def test_a_full_disk_fails_those_points_alone(cluster, tmp_path):
    small = tmp_path / "runs"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(small)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    try:
        bench = Bench(cluster, tmp_path, FAST)
        cluster.run("scontrol", "update", "PartitionName=main", "State=DOWN")
        bench.sweep()
        filler = small / "filler"
        with filler.open("wb", buffering=0) as stream:
            try:
                while True:
                    stream.write(b"0" * 1024)
            except OSError:
                pass
        cluster.run("scontrol", "update", "PartitionName=main", "State=UP")
        cluster.wait_until_empty()
        assert "4 failed" in bench.status()
        filler.unlink()
        # room again, on a larger disk
        subprocess.run(["mount", "-o", "remount,size=4m", str(small)], check=True)
        assert "4 points" in bench.sweep()
        cluster.wait_until_empty()
        assert (bench.collect().status == "finished").all()
    finally:
        subprocess.run(
            ["scontrol", "update", "PartitionName=main", "State=UP"],
            check=False,
            env=cluster.environment,
        )
        subprocess.run(["umount", str(small)], check=False)


@pytest.mark.slow
def test_without_the_scheduler_the_disk_answers(tmp_path):
    """With a cluster of its own: the controller does not come back."""
    with Cluster(tmp_path / "slurm", nodes=1, cpus=1) as cluster:
        bench = Bench(cluster, tmp_path, FAST)
        bench.sweep()
        cluster.wait_until_empty()
        cluster.stop_controller()
        assert "4 finished" in bench.status()
        assert (bench.collect().status == "finished").all()
