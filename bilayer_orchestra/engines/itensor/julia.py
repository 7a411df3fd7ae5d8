"""Which Julia is used, and whether its project has what the ITensor backend needs.

The binary is named by ``ORCHESTRA_JULIA``, else by the configuration, else it is ``julia`` in the
PATH; its project by ``ORCHESTRA_JULIA_PROJECT``, else by the configuration, else ``JULIA_PROJECT``,
else the default environment. If nobody named one and the Julia in the PATH does not have the
packages, the one that juliapkg manages is used: it comes with juliacall, the extra ``itensor``,
takes a suitable Julia from the PATH or downloads one, and keeps a project of its own in the virtual
environment, with what ``juliapkg.json`` declares. Our own Julia half is put on Julia's load path
and finds ITensors and ITensorMPS in that project.

juliacall puts Python and Julia into one process, for workers that solve many points. Every version
of it needs one exact version of PythonCall in Julia's project. Where it does not fit, every point
starts a Julia of its own, and ``orchestra doctor`` says why.
"""

import functools
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bilayer_orchestra.configuration import config_file, engine_settings
from bilayer_orchestra.engines.itensor.package import engine_depot, engine_half
from bilayer_orchestra.errors import MissingEngineError
from bilayer_orchestra.files import expand, variable

VARIABLE, PROJECT_VARIABLE = "ORCHESTRA_JULIA", "ORCHESTRA_JULIA_PROJECT"
#: Smallest versions: an LTS of Julia, and the first ITensorMPS with correct correlation matrices.
NEEDED = {"julia": "1.10", "ITensors": "0.9", "ITensorMPS": "0.4.1", "PrecompileTools": "1.1"}
TIMEOUT = 120.0

#: Has juliapkg install Julia with the packages.
VERB = "orchestra engines install itensor"
REMEDY = (
    f"`{VERB}` installs one with the packages; or install Julia 1.10 or later "
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
    answers : dict of str to str
        What it says of itself: the versions of ``julia``, ITensors, ITensorMPS and, if it is there,
        PythonCall; the directory of the ``project`` that is active in it; whether our half had been
        ``compiled`` for it when we looked.
    """

    binary: Path
    origin: str
    environment: dict[str, str]
    answers: dict[str, str]

    @property
    def label(self) -> str:
        """One line with everything that can change a number."""
        names = {"ITensorMPS": "ITensorMPS", "ITensors": "ITensors", "julia": "Julia"}
        return ", ".join(f"{title} {self.answers[name]}" for name, title in names.items())


def find_julia() -> JuliaInstallation:
    """Return the Julia to use.

    Raises
    ------
    MissingEngineError
        If there is none, or it lacks a package; with the remedy.
    """
    project = _project()
    places = (
        (variable(VARIABLE), f"the environment variable {VARIABLE}"),
        (engine_settings("julia").get("binary"), str(config_file())),
        ("julia", "the PATH"),
    )
    named, origin = next((named, origin) for named, origin in places if named)
    try:
        return _installation(_executable(named, origin), origin, project)
    except MissingEngineError:
        somebody_chose = origin != "the PATH" or project is not None
        managed = None if somebody_chose else managed_julia()
        if managed is None:
            raise
        return _installation(*managed)


def _installation(binary: Path, origin: str, project: str | None) -> JuliaInstallation:
    from packaging.version import Version  # a declaration imports none of others

    environment = julia_environment(project)
    answers = _answers(binary, tuple(sorted(environment.items())))
    for name, needed in NEEDED.items():
        found = answers.get(name)
        if found is None:
            place = environment.get("JULIA_PROJECT", "its default environment")
            raise MissingEngineError(
                f"{binary}, named by {origin}, has no {name} in {place}; if another of its "
                f"projects has, name that in {PROJECT_VARIABLE}; or {REMEDY}"
            )
        if Version(found).release < Version(needed).release:
            raise MissingEngineError(f"{name} {found} is too old, {needed} is needed; {REMEDY}")
    if environment.get("JULIA_PROJECT") == "@.":  # else looked for above the run directory
        environment["JULIA_PROJECT"] = answers.get("project", "")
    if "depots" in answers:
        # the first one is written to, the others are read
        environment["JULIA_DEPOT_PATH"] = os.pathsep.join([str(engine_depot()), answers["depots"]])
    return JuliaInstallation(binary, origin, environment, answers)


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
    load_path = ["@" if project else "@v#.#", str(engine_half()), "@stdlib"]
    environment = {"JULIA_LOAD_PATH": os.pathsep.join(load_path)}
    if project:
        # names such as @v1.10 or @shared are Julia's own; a path must not depend on where it runs
        path = project if project.startswith("@") else str(Path(project).absolute())
        environment["JULIA_PROJECT"] = path
    if named := engine_settings("julia").get("depot"):
        # the empty entry at the end stands for Julia's own depots, with what it ships compiled
        depots = [expand(depot) for depot in named.split(os.pathsep) if depot]
        environment["JULIA_DEPOT_PATH"] = os.pathsep.join([*depots, ""])
    return environment


@functools.cache
def _answers(binary: Path, environment: tuple[tuple[str, str], ...]) -> dict[str, str]:
    command = [str(binary), "--startup-file=no", "-e", _PROBE, str(engine_depot())]
    try:
        answer = subprocess.run(
            command,
            env={**os.environ, **dict(environment)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise MissingEngineError(f"{binary} did not answer within {TIMEOUT:.0f} s") from error
    except OSError as error:
        raise MissingEngineError(f"{binary} cannot be started: {error.strerror}") from error
    if answer.returncode != 0:
        lines = (answer.stderr + answer.stdout).strip().splitlines() or ["it printed nothing"]
        raise MissingEngineError(f"{binary} is not a working Julia: {lines[0]}; {REMEDY}")
    return dict(line.split(" ", 1) for line in answer.stdout.splitlines() if " " in line)


def managed_julia() -> tuple[Path, str, str] | None:
    """Return (executable, who named it, project); None if there is no juliapkg. Installs nothing.

    Raises
    ------
    MissingEngineError
        If something is not installed yet.
    """
    if importlib.util.find_spec("juliacall") is None:
        return None
    if not _juliapkg("resolve", dry_run=True):
        raise MissingEngineError(f"Julia and its packages are not installed yet: `{VERB}` does it")
    return Path(_juliapkg("executable")), "juliapkg", str(_juliapkg("project"))


def install_managed() -> Path:
    """Install Julia and its packages; return the executable.

    Raises
    ------
    MissingEngineError
        If there is no juliapkg, or it fails.
    """
    if importlib.util.find_spec("juliacall") is None:
        raise MissingEngineError(f"`pip install juliacall` first; then `{VERB}` again")
    _juliapkg("resolve")
    return Path(_juliapkg("executable"))


def _juliapkg(question: str, **options: object) -> Any:
    """Return juliapkg's answer, or its failure in our words."""
    import juliapkg

    try:
        return getattr(juliapkg, question)(**options)
    except Exception as error:  # of many kinds: network, disk, Julia's own
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise MissingEngineError(
            f"juliapkg could not install Julia with its packages: {lines[-1]}; with a Julia of "
            f"your own, name it in {VARIABLE} and its project in {PROJECT_VARIABLE}"
        ) from error


def juliacall_environment() -> dict[str, str] | None:
    """Return what a process needs to host the Julia of ``find_julia``; None if none can."""
    found = find_julia()
    if juliacall_problem(found) is not None:
        return None
    binary, project = str(found.binary), found.answers.get("project", "")
    return {
        # current versions take these as they are; older ones ask juliapkg, which must not resolve
        "PYTHON_JULIACALL_EXE": binary,
        "PYTHON_JULIACALL_PROJECT": project,
        "PYTHON_JULIAPKG_EXE": binary,
        "PYTHON_JULIAPKG_PROJECT": project,
        "PYTHON_JULIAPKG_OFFLINE": "yes",
        # PythonCall has nothing to install: it is loaded by the Python that it is to use
        "JULIA_CONDAPKG_BACKEND": "Null",
        "PYTHON_JULIACALL_HANDLE_SIGNALS": "yes",
        "PYTHON_JULIACALL_STARTUP_FILE": "no",
        "PYTHON_JULIACALL_AUTOLOAD_IPYTHON_EXTENSION": "no",
    }


def juliacall_problem(found: JuliaInstallation) -> str | None:
    """Return why juliacall cannot host this Julia, or None."""
    try:
        juliacall = importlib.metadata.distribution("juliacall")
    except importlib.metadata.PackageNotFoundError:
        return "juliacall is not installed (pip install juliacall)"
    present = found.answers.get("PythonCall")
    if present is None:
        return f"the project has no PythonCall, which juliacall {juliacall.version} needs"
    try:
        declared = Path(str(juliacall.locate_file("juliacall/juliapkg.json"))).read_text()
        needed = json.loads(declared)["packages"]["PythonCall"]["version"].lstrip("=")
    except (OSError, ValueError, KeyError):
        return None  # another layout: the worker itself will tell
    if needed != present:
        return (
            f"juliacall {juliacall.version} needs PythonCall {needed} and the project has "
            f"{present} (pip install juliacall=={present})"
        )
    return None
