"""Which Julia is used, and whether its project has what the ITensor backend needs.

The binary is named by ``ORCHESTRA_JULIA``, else by the configuration, else it is ``julia`` in the
PATH; its project by ``ORCHESTRA_JULIA_PROJECT``, else by the configuration, else ``JULIA_PROJECT``,
else the default environment. If nobody named one and the Julia in the PATH does not have the
packages, the one that juliapkg manages is used (it comes with juliacall, the extra ``itensor``, and
installs what ``juliapkg.json`` declares). Our own Julia half is put on Julia's load path and finds
ITensors and ITensorMPS in that project.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bilayer_orchestra.configuration import config_file, engine_settings
from bilayer_orchestra.engines.itensor.package import engine_depot, engine_half
from bilayer_orchestra.errors import MissingEngineError
from bilayer_orchestra.files import expand, variable

VARIABLE, PROJECT_VARIABLE = "ORCHESTRA_JULIA", "ORCHESTRA_JULIA_PROJECT"
#: Smallest versions: an LTS of Julia, and the first ITensorMPS with correct correlation matrices.
NEEDED = {
    "julia": (1, 10),
    "ITensors": (0, 9),
    "ITensorMPS": (0, 4, 1),
    "PrecompileTools": (1, 1),
}
TIMEOUT = 120.0

REMEDY = (
    "`pip install juliacall` brings a Julia with the packages; or install Julia 1.10 or later "
    "(https://julialang.org/downloads), add them with "
    '`julia -e \'using Pkg; Pkg.add(["ITensors", "ITensorMPS", "PrecompileTools"])\'`, and name '
    f"the executable in {VARIABLE} or in the configuration file if it is not in the PATH"
)

#: Prints versions without loading the packages; they are found as OrchestraITensor would find them.
#: PythonCall is looked for where juliacall does. Last, whether our machine code is there already,
#: in our own depot (the argument) or in the user's.
_PROBE = """
println("depots ", join(abspath.(DEPOT_PATH), Sys.iswindows() ? ';' : ':'))
pushfirst!(DEPOT_PATH, only(ARGS))
println("julia ", VERSION)
println("project ", dirname(something(Base.active_project(), "/")))
owner = Base.identify_package("OrchestraITensor")
for (from, name) in (
    ((owner,), "ITensors"), ((owner,), "ITensorMPS"), ((owner,), "PrecompileTools"),
    ((), "PythonCall"),
)
    package = Base.identify_package(from..., name)
    file = package === nothing ? nothing : Base.locate_package(package)
    file === nothing && continue
    project = joinpath(dirname(dirname(file)), "Project.toml")
    println(name, " ", Base.parsed_toml(project)["version"])
end
println("compiled ", Base.isprecompiled(owner))
"""


@dataclass(frozen=True)
class JuliaInstallation:
    """One Julia with ITensorMPS.

    Parameters
    ----------
    binary : Path
        The executable.
    origin : str
        Who named it, for messages.
    environment : dict of str to str
        What has to be set for it.
    versions : dict of str to str
        Of Julia, ITensors, ITensorMPS and, if it is there, PythonCall.
    project : str
        Directory of the project that is active in it.
    compiled : bool
        Whether our half had been compiled for it when we looked.
    """

    binary: Path
    origin: str
    environment: dict[str, str]
    versions: dict[str, str]
    project: str
    compiled: bool

    @property
    def label(self) -> str:
        """One line with everything that can change a number."""
        versions = self.versions
        return (
            f"ITensorMPS {versions['ITensorMPS']}, ITensors {versions['ITensors']}, "
            f"Julia {versions['julia']}"
        )


def find_julia() -> JuliaInstallation:
    """Return the Julia to use.

    Raises
    ------
    MissingEngineError
        If there is none, or it lacks a package; with the remedy.
    """
    settings = engine_settings("julia")
    project = _project()
    named, origin = "julia", "the PATH"
    if "binary" in settings:
        named, origin = settings["binary"], str(config_file())
    if variable(VARIABLE):
        named, origin = variable(VARIABLE), f"the environment variable {VARIABLE}"
    try:
        return _installation(_executable(named, origin), origin, project)
    except MissingEngineError:
        if origin != "the PATH" or project is not None:
            raise
        from bilayer_orchestra.engines.itensor.managed import managed_julia

        managed = managed_julia()
        if managed is None:
            raise
        return _installation(*managed)


def _installation(binary: Path, origin: str, project: str | None) -> JuliaInstallation:
    from packaging.version import Version  # a declaration imports none of others

    environment = julia_environment(project)
    versions = _versions(binary, tuple(sorted(environment.items())))
    for name, needed in NEEDED.items():
        found = versions.get(name)
        if found is None:
            place = environment.get("JULIA_PROJECT", "its default environment")
            raise MissingEngineError(
                f"{binary}, named by {origin}, has no {name} in {place}; if another of its "
                f"projects has, name that in {PROJECT_VARIABLE}; or {REMEDY}"
            )
        if Version(found).release < needed:
            least = ".".join(str(number) for number in needed)
            raise MissingEngineError(f"{name} {found} is too old, {least} is needed; {REMEDY}")
    active, compiled = versions.get("project", ""), versions.get("compiled") == "true"
    if environment.get("JULIA_PROJECT") == "@.":
        environment["JULIA_PROJECT"] = active  # else it would be looked for above the run directory
    if "depots" in versions:
        # the first one is written to, the others are read
        depots = [str(engine_depot()), versions["depots"]]
        environment["JULIA_DEPOT_PATH"] = os.pathsep.join(depots)
    return JuliaInstallation(binary, origin, environment, versions, active, compiled)


def _project() -> str | None:
    """Return the project that somebody named."""
    configured = engine_settings("julia").get("project")
    return variable(PROJECT_VARIABLE) or configured or variable("JULIA_PROJECT") or None


def _executable(named: str, origin: str) -> Path:
    found = shutil.which(named)
    if found is None:
        if named == "julia":
            raise MissingEngineError(f"Julia is not installed; {REMEDY}")
        problem = "cannot be executed" if Path(named).exists() else "does not exist"
        raise MissingEngineError(f"{named}, named by {origin}, {problem}; {REMEDY}")
    return Path(found).absolute()


def julia_environment(project: str | None) -> dict[str, str]:
    """Return what has to be set for Julia to find our half and the packages of ``project``."""
    settings = engine_settings("julia")
    half = str(engine_half())
    environment = {
        "JULIA_LOAD_PATH": os.pathsep.join(["@" if project else "@v#.#", half, "@stdlib"])
    }
    if project:
        # names such as @v1.10 or @shared are Julia's own; a path must not depend on where it runs
        path = project if project.startswith("@") else str(Path(project).absolute())
        environment["JULIA_PROJECT"] = path
    if "depot" in settings:
        # the empty entry at the end stands for Julia's own depots, with what it ships compiled
        depots = [expand(depot) for depot in settings["depot"].split(os.pathsep) if depot]
        environment["JULIA_DEPOT_PATH"] = os.pathsep.join([*depots, ""])
    return environment


@functools.cache
def _versions(binary: Path, environment: tuple[tuple[str, str], ...]) -> dict[str, str]:
    command = [str(binary), "--startup-file=no", "-e", _PROBE, str(engine_depot())]
    try:
        answer = subprocess.run(
            command,
            env={**os.environ, **dict(environment)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise MissingEngineError(f"{binary} did not answer within {TIMEOUT:.0f} s") from error
    except OSError as error:
        raise MissingEngineError(f"{binary} cannot be started: {error.strerror}") from error
    output = answer.stdout.decode(errors="replace")
    if answer.returncode != 0:
        lines = (answer.stderr.decode(errors="replace") + output).strip().splitlines()
        last = lines[0] if lines else "it printed nothing"
        raise MissingEngineError(f"{binary} is not a working Julia: {last}; {REMEDY}")
    pairs = [line.split(" ", 1) for line in output.splitlines()]
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
