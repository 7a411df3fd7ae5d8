"""Which ALF is used: the environment, the configuration file, or the newest build of ours.

ALF (Algorithms for Lattice Fermions, doi:10.21468/SciPostPhysCodeb.1) is the user's own; this
program only brings a Hamiltonian that is compiled into it.
"""

from __future__ import annotations

import functools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bilayer_orchestra.configuration import (
    NOT_TRUSTED,
    cache_directory,
    config_file,
    engine_settings,
)
from bilayer_orchestra.errors import ForeignFileError, MissingEngineError, OrchestraError
from bilayer_orchestra.files import file_sha256, files_sha256, secure, variable
from bilayer_orchestra.job import Tools
from bilayer_orchestra.resources import resource

#: Names of a finished build in its directory, and of its description beside a binary.
BINARY, BUILD_RECORD = "ALF.out", "build.json"
VARIABLE, LAUNCHER_VARIABLE = "ORCHESTRA_ALF", "ORCHESTRA_ALF_LAUNCHER"
DEFAULT_LAUNCHER = "mpiexec -n {ranks}"

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
    record : dict
        What its build wrote down; empty for a binary built by hand.
    """

    binary: Path
    origin: str
    record: dict[str, Any]

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
        binary = file.with_name(BINARY)
        record = _record(binary)
        if record and binary.exists():
            found.append(ALFInstallation(binary, "orchestra engines build alf", record))
    if problem is not None and not found:
        raise MissingEngineError(str(problem))
    return found


def alf_tools() -> Tools:
    """Return what a job needs to start ALF."""
    binary = find_alf().binary
    launcher = variable(LAUNCHER_VARIABLE) or engine_settings("alf").get(
        "launcher", DEFAULT_LAUNCHER
    )
    environment = {VARIABLE: str(binary), LAUNCHER_VARIABLE: launcher}
    return Tools(environment=environment, binaries=(binary,))


def source_tree(named: Path | None) -> Path:
    """Return the source tree: the one named, or the one that was built last."""
    remembered = engine_settings("alf").get("source")
    if named is None and remembered is None:
        raise OrchestraError(
            "name your ALF source tree: orchestra engines build alf --source DIR "
            "(git clone https://github.com/ALF-QMC/ALF brings one)"
        )
    return Path(named or remembered or "")


def describe_builds() -> list[str]:
    """Return two lines for every installation, or why there is none."""
    lines = []
    try:
        used = find_alf()
    except OrchestraError as error:
        used = None
        lines.append(str(error))
    builds = finished_builds()
    if used and used.binary not in [build.binary for build in builds]:
        builds.append(used)
    for build in builds:
        marks = ["in use"] if used and build.binary == used.binary else []
        marks += ["older Hamiltonian"] if build.stale else []
        mark = f"  [{', '.join(marks)}]" if marks else ""
        lines += [f"{build.label}{mark}", f"{build.binary}  ({build.origin})"]
    return lines


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
    binary = Path(found).resolve()
    return ALFInstallation(binary, origin, _record(binary))


def _record(binary: Path) -> dict[str, Any]:
    try:
        record = json.loads(binary.with_name(BUILD_RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    needed = {"alf_version", "hamiltonian", "options", "compiler", "blas", "built", "binary_sha256"}
    if not isinstance(record, dict) or not needed <= set(record):
        return {}
    # a record that belongs to another binary is worse than none
    return record if record["binary_sha256"] == file_sha256(binary) else {}
