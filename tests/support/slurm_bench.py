"""A study on a test cluster."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from zipfile import ZipFile

import xarray as xr

from bilayer_orchestra.running.directory import RunDirectory, find_runs
from tests.support.commands import ORCHESTRA
from tests.support.slurm_cluster import Cluster
from tests.support.studies import write


class Bench:
    """A study in its directory, and the commands a user gives."""

    def __init__(self, cluster: Cluster, folder: Path, text: str, site: str = "") -> None:
        self.cluster, self.root = cluster, folder / "runs"
        self.study = write(folder, text)
        self.site = folder / "site.toml"
        self.site.write_text(f"signal = 30\n{site}\n")

    def call(self, *arguments: object, code: int = 0) -> str:
        done = subprocess.run(
            [*ORCHESTRA, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            env=self.cluster.environment,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def sweep(self) -> str:
        return self.call(
            "sweep", self.study, "--runtime", "slurm", "--site", self.site, "-o", self.root
        )

    def status(self) -> str:
        return self.call("status", self.root)

    def collect(self) -> xr.Dataset:
        self.call("collect", self.study, "--runtime", "slurm", "--site", self.site, "-o", self.root)
        return xr.load_dataset(self.root / "scan.nc")

    def runs(self) -> list[RunDirectory]:
        return find_runs(self.root)

    def wait_for(self, condition, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.status()
            time.sleep(0.1)

    def started(self, run: RunDirectory, sweeps: int = 1) -> bool:
        try:
            record = ZipFile(run.job / "checkpoint.zip").read("record.json")
            return bool(json.loads(record)["total"] >= sweeps)
        except OSError:
            return False
