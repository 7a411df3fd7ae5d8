"""Which ALF is used, and whether it works.

The environment names it, the configuration file, or it is the newest build of ours.

ALF (Algorithms for Lattice Fermions, doi:10.21468/SciPostPhysCodeb.1) is the user's own; this
program only brings a Hamiltonian that is compiled into it.
"""

import functools
import json
import math
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bilayer_orchestra.configuration import (
    NOT_TRUSTED,
    cache_directory,
    config_file,
    engine_settings,
)
from bilayer_orchestra.engines.alf.settings import ALFNumerics
from bilayer_orchestra.engines.base import Request
from bilayer_orchestra.errors import EngineError, ForeignFileError, MissingEngineError
from bilayer_orchestra.files import file_sha256, files_sha256, secure, variable
from bilayer_orchestra.machine import thread_environment
from bilayer_orchestra.resources import resource
from bilayer_orchestra.terms import GrandCanonical, Site, Terms

#: Names of a finished build in its directory, and of its description beside a binary.
BINARY, BUILD_RECORD = "ALF.out", "build.json"
#: Who named a binary of ours.
OURS = "orchestra engines build alf"
#: What the record of a build has at least.
RECORDED = {"alf_version", "hamiltonian", "options", "compiler", "blas", "built", "binary_sha256"}
VARIABLE, LAUNCHER_VARIABLE = "ORCHESTRA_ALF", "ORCHESTRA_ALF_LAUNCHER"
#: Seconds that the model of :func:`probe` may take: it takes a part of one.
TIMEOUT = 60.0

REMEDY = (
    "build it from your copy of the ALF source with `orchestra engines build alf --source DIR` "
    "(ALF: git clone https://github.com/ALF-QMC/ALF), or name a binary that holds the Orchestra "
    f"Hamiltonian in {VARIABLE}"
)


@dataclass(frozen=True)
class ALFInstallation:
    """One ALF binary.

    Parameters
    ----------
    binary : Path
        The executable.
    origin : str
        Who named it, for messages.
    """

    binary: Path
    origin: str

    @functools.cached_property
    def record(self) -> dict[str, Any]:
        """What its build wrote down; empty for a binary built by hand."""
        try:
            record = json.loads(self.binary.with_name(BUILD_RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(record, dict) or not record.keys() >= RECORDED:
            return {}
        # a record that belongs to another binary is worse than none
        return record if record["binary_sha256"] == file_sha256(self.binary) else {}

    @property
    def label(self) -> str:
        """One line: version, Hamiltonian and build, everything that can change a number."""
        if not self.record:
            return f"ALF, own build sha256:{file_sha256(self.binary)[:12]}"
        options = " ".join(self.record["options"]) or "serial"
        return (
            f"{self.record['alf_version']} + Orchestra {self.record['hamiltonian'][:8]} "
            f"({options}, {self.record['compiler']}, {self.record['blas']})"
        )

    @property
    def stale(self) -> bool:
        """Whether it was built from another version of our Hamiltonian."""
        return bool(self.record) and self.record["hamiltonian"] != hamiltonian_hash()


def find_alf() -> ALFInstallation:
    """Return the ALF to use: ``ORCHESTRA_ALF``, else the configured one, else our newest build.

    Raises
    ------
    MissingEngineError
        If there is none, with the remedy.
    """
    named = variable(VARIABLE)
    if named:
        return _named(named, f"the environment variable {VARIABLE}")
    binary = engine_settings("alf").get("binary")
    if binary:
        return _named(binary, f"{config_file()}")
    builds = sorted(finished_builds(), key=lambda build: str(build.record["built"]))
    current = [build for build in builds if not build.stale]
    if current:
        return current[-1]
    if builds:
        raise MissingEngineError(
            "ALF was built with an older version of the Orchestra Hamiltonian; run `orchestra "
            "engines build alf` again"
        )
    raise MissingEngineError(f"ALF is not set up; {REMEDY}")


def finished_builds() -> list[ALFInstallation]:
    """Return the builds in the cache that nobody else can have put there.

    Raises
    ------
    MissingEngineError
        If all of them are another user's.
    """
    found, problem = [], None
    for file in sorted((cache_directory() / "alf").glob(f"*/{BUILD_RECORD}")):
        try:
            secure(file.parent, f"{NOT_TRUSTED}, or that binary in {VARIABLE}")
        except ForeignFileError as error:
            problem = error
            continue
        build = ALFInstallation(file.with_name(BINARY), OURS)
        if build.record:
            found.append(build)
    if problem is not None and not found:
        raise MissingEngineError(str(problem))
    return found


def hamiltonian_files() -> list[Path]:
    """Return the Fortran sources of our Hamiltonian."""
    return sorted(resource("backends", "alf").glob("*.F90"))


@functools.cache
def hamiltonian_hash() -> str:
    """Return the hash of our Fortran sources."""
    return files_sha256(hamiltonian_files())


def _named(name: str, origin: str) -> ALFInstallation:
    found = shutil.which(name)
    if found is None:
        problem = "cannot be executed" if Path(name).exists() else "does not exist"
        raise MissingEngineError(f"{name}, named by {origin}, {problem}; {REMEDY}")
    return ALFInstallation(Path(found).resolve(), origin)


def probe(binary: Path) -> str | None:
    """Return why ``binary`` is not usable, or None: two sites whose answer is known are solved."""
    exact = -2.0 * math.tanh(0.5)
    try:
        free, attractive = (_kinetic_energy(binary, interaction) for interaction in (0.0, -2.0))
    except EngineError as problem:
        return str(problem)
    if not abs(free - exact) < 1e-8:
        return f"two free sites have kinetic energy {free:.10f} instead of {exact:.10f}"
    # attraction at half filling binds pairs and costs kinetic energy (exact: -0.8352)
    if not -0.90 < attractive < -0.77:
        return f"two attractive sites have kinetic energy {attractive:.4f} instead of -0.835"
    return None


def _kinetic_energy(binary: Path, interaction: float) -> float:
    """Return the kinetic energy of two sites with t = 1 and beta = 1, or raise EngineError."""
    from bilayer_orchestra.engines.alf.render import render_files

    terms = Terms(
        sites=(Site("P", 0), Site("P", 1)),
        one_body=np.array([[0.0, -1.0], [-1.0, 0.0]]),
        interaction=np.full(2, interaction),
        chemical_potential=np.full(2, interaction / 2),
        state=GrandCanonical(1.0),
    )
    numerics = ALFNumerics(dtau=0.1, sweeps=1000, sweeps_per_bin=200, chains=1)
    files = render_files(Request(terms, (), numerics, "two sites"), cores=1)
    with tempfile.TemporaryDirectory(prefix="orchestra-probe-") as name:
        for path in ("terms.dat", "dtau-0/parameters", "dtau-0/chain-0/seeds"):
            (Path(name) / Path(path).name).write_text(files[path].replace("@NBIN@", "5"))
        try:
            answer = subprocess.run(
                [str(binary)],
                cwd=name,
                env={**os.environ, **thread_environment(1)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise EngineError(
                f"a model of two sites did not finish within {TIMEOUT:.0f} s"
            ) from error
        except OSError as error:
            raise EngineError(f"it cannot be started: {error.strerror}") from error
        if answer.returncode != 0:
            text = (answer.stderr + answer.stdout).decode(errors="replace")
            last = " | ".join(text.strip().splitlines()[-2:]) or "it printed nothing"
            raise EngineError(
                f"a model of two sites ends with exit code {answer.returncode}: {last}"
            )
        return kinetic_energy(Path(name), 2)


def kinetic_energy(directory: Path, n_sites: int) -> float:
    """Return the mean over the bins of a directory, from text or from HDF5 output.

    Raises
    ------
    EngineError
        If there are none that can be read.
    """
    from bilayer_orchestra.engines.alf.bins import open_segment

    try:
        segment = open_segment(directory, n_sites)
        if segment.has("Kin_scal"):
            return float(next(segment.chunks("Kin_scal")).values.mean())
    except EngineError as error:
        raise EngineError(f"it writes bins in an unknown format: {error}") from error
    raise EngineError("it runs, but does not write what the Orchestra Hamiltonian writes")
