"""``orchestra engines build alf``: compile the user's ALF tree with our Hamiltonian.

The tree is copied and never modified. ALF offers ``Prog/Hamiltonians.list.d`` for Hamiltonians
that live elsewhere, so nothing in the copy is patched either.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from bilayer_orchestra.configuration import NOT_TRUSTED, cache_directory
from bilayer_orchestra.engines.alf import installation
from bilayer_orchestra.engines.alf.installation import BINARY, BUILD_RECORD, ALFInstallation
from bilayer_orchestra.engines.base import ImageRecipe
from bilayer_orchestra.errors import EngineError, MissingEngineError
from bilayer_orchestra.files import (
    DIRECTORY,
    file_sha256,
    own_directory,
    secure,
    sha256,
    variable,
    write_text_atomic,
)
from bilayer_orchestra.heartbeat import heartbeat
from bilayer_orchestra.machine import thread_environment
from bilayer_orchestra.timestamps import utc_now

NAME = "Hamiltonian_Orchestra_smod.F90"
LOG = "build.log"
#: Without finite-math assumptions NaN stays visible; ALF's own flags contain -ffast-math.
FLAGS = "-fno-finite-math-only"
#: Left by an earlier build in the user's tree; objects of other flags must not be linked.
PRODUCTS = (
    *("*.o", "*.a", "*.mod", "*.smod", "*.out", "*.log", "git.h", "git_status.h", ".git"),
    *(".parse_parameters", ".deps.mk", "Hamiltonians_*.h", "*_read_write_parameters.F90"),
)
#: What configure.sh is told -> what the compiler is called with, if it understands.
_DEFINED = {"LOG": "-DSTABLOG", "MPI": "-DMPI", "HDF5": "-DHDF5"}
#: Where linker scripts lead to OpenBLAS.
OPENBLAS = "openblas"
_SOURCES = ("configure.sh", "Makefile", "Prog", "Libraries")

#: Names of the flags of the command that were given: "native", "mpi", "hdf5", in this order.
Options = tuple[str, ...]
#: Receives lines for the user.
Say = Callable[[str], None]


def build_alf(source: Path, options: Options, say: Say, rebuild: bool = False) -> ALFInstallation:
    """Compile ALF from ``source``, or return the build that is there already.

    Parameters
    ----------
    source : Path
        The tree; it is not modified.
    options : tuple of str
        What kind of binary is built.
    say : callable
        Receives lines for the user.
    rebuild : bool
        Whether to compile what is there already.

    Raises
    ------
    MissingEngineError
        If a compiler, a library or the tree is missing.
    EngineError
        If compilation fails; carries the compiler's own last lines.
    """
    source = source.resolve()
    check_tree(source)
    compiler = _compiler(options)
    _check_hdf5(options)
    # LOG keeps the scales of the propagation as logarithms: same speed, and no overflow at low T
    words = ["GNU", "MPI" if "mpi" in options else "noMPI", "LOG"]
    words += ["HDF5"] if "hdf5" in options else []
    flags = f"{FLAGS} -march=native" if "native" in options else FLAGS
    with tempfile.TemporaryDirectory(prefix="orchestra-alf-") as temporary:
        work = Path(temporary)
        blas = _linear_algebra(work)
        digest, hamiltonian = tree_hash(source), installation.hamiltonian_hash()
        identity = [digest, hamiltonian, compiler, blas, *options, *words, flags]
        target = cache_directory() / "alf" / sha256("\n".join(identity))[:16]
        record: dict[str, object] = {
            "alf_version": alf_version(source, digest),
            "hamiltonian": hamiltonian,
            "compiler": compiler,
            "blas": blas,
            "flags": flags,
            "options": list(options),
            "source": str(source),
        }
        if not rebuild and (target / BUILD_RECORD).exists():
            secure(target, NOT_TRUSTED)
            stored = json.loads((target / BUILD_RECORD).read_text(encoding="utf-8"))
            # a build that is asked for becomes the one in use
            text = json.dumps(stored | {"built": utc_now()}, indent=1) + "\n"
            write_text_atomic(target / BUILD_RECORD, text)
            say("this build is there already")
            return ALFInstallation(target / BINARY, installation.OURS)
        binary = _compile(source, work, words, flags, blas, say)
        return _install(binary, work / LOG, target, record)


def check_tree(source: Path) -> None:
    """Raise MissingEngineError if ``source`` is not an ALF source tree that we can use."""
    if not source.is_dir():
        raise MissingEngineError(f"{source} is not a directory; --source names an ALF source tree")
    missing = [
        name for name in (*_SOURCES, "Prog/Hamiltonians.list") if not (source / name).exists()
    ]
    if missing:
        raise MissingEngineError(
            f"{source} is not an ALF source tree ({', '.join(missing)} missing); get one with "
            "git clone https://github.com/ALF-QMC/ALF"
        )
    if not (source / "Prog" / "Hamiltonians.list.d").is_dir():
        raise MissingEngineError(
            f"the ALF in {source} is too old: it has no Prog/Hamiltonians.list.d; ALF 2.6 has"
        )


def alf_version(source: Path, digest: str) -> str:
    """Return ``ALF 2.6 ...`` with the commit, or the hash of the files where there is no git."""
    changelog = source / "CHANGELOG.md"
    text = changelog.read_text(encoding="utf-8", errors="replace") if changelog.exists() else ""
    release = re.search(r"^## ALF (\d[\d.]*)", text, re.MULTILINE)
    commit = ""
    if (source / ".git").exists() and shutil.which("git"):
        describe = ("describe", "--always", "--dirty", "--tags")
        commit = _run("git", "-C", str(source), *describe).stdout.strip()
    return f"ALF {release[1] if release else '(unknown release)'} {commit or 'tree:' + digest[:8]}"


def tree_hash(source: Path) -> str:
    """Return the hash of the sources of an ALF tree."""
    digest = hashlib.sha256()
    for part in _SOURCES:
        root = source / part
        for file in [root] if root.is_file() else sorted(root.rglob("*")):
            if file.is_file() and not any(file.match(pattern) for pattern in PRODUCTS):
                digest.update(str(file.relative_to(source)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _compiler(options: Options) -> str:
    """Return the compiler's version line, after checking that every tool is there."""
    needed = {
        "gfortran": "a Fortran compiler (Debian: apt install gfortran)",
        "make": "make (Debian: apt install make)",
        "python3": "python3, which ALF's makefiles call",
    }
    if "mpi" in options:
        needed["mpifort"] = "an MPI compiler (Debian: apt install libopenmpi-dev openmpi-bin)"
    for program, what in needed.items():
        if shutil.which(program) is None:
            raise MissingEngineError(f"`{program}` is not on the PATH: ALF needs {what}")
    program = "mpifort" if "mpi" in options else "gfortran"
    answer = _run(program, "--version")
    if answer.returncode != 0 or not answer.stdout:
        raise MissingEngineError(f"`{program} --version` fails: {answer.stderr.strip()[-300:]}")
    line = answer.stdout.splitlines()[0]
    version = re.search(r"\d+\.\d+(\.\d+)*$", line)
    return f"gfortran {version[0]}" if version else line


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _check_hdf5(options: Options) -> None:
    """Raise MissingEngineError where ALF would download and compile an HDF5 unasked."""
    named = variable("ALF_HDF5_DIR")
    if "hdf5" in options and not (named and list(Path(named).glob("*/bin/h5fc"))):
        raise MissingEngineError(
            "--hdf5 needs ALF_HDF5_DIR, with <compiler version>/{include,lib,bin/h5fc} below it as "
            f"ALF installs it (gfortran: GCC_version_12.2.0); it is {named or 'not set'}. Without "
            "--hdf5 the output is text, which is read just as well"
        )


def _linear_algebra(work: Path) -> str:
    """Return the name of the fastest BLAS and LAPACK that link.

    ALF's configuration says ``-llapack -lblas``. OpenBLAS holds both and is several times faster
    than the reference, so two linker scripts of these names lead to it.
    """
    library = work / OPENBLAS
    library.mkdir()
    for name in ("liblapack.so", "libblas.so"):
        (library / name).write_text("INPUT(-lopenblas)\n")
    program = work / "link_test.f90"
    program.write_text("program t\ncall zgetrf()\ncall zgemm()\nend program t\n")
    link = ("-w", str(program), "-llapack", "-lblas", "-o", str(work / "link_test"))
    if _run("gfortran", f"-L{library}", *link).returncode == 0:
        return "OpenBLAS"
    if _run("gfortran", *link).returncode == 0:
        return "system BLAS"
    raise MissingEngineError(
        "no LAPACK and BLAS to link with; install OpenBLAS (Debian: apt install libopenblas-dev)"
    )


def _compile(source: Path, work: Path, words: list[str], flags: str, blas: str, say: Say) -> Path:
    """Compile in ``work``, with what configure.sh is told, and return the program."""
    tree, ours, log = work / "ALF", work / "hamiltonian", work / LOG
    if " " in str(tree):
        raise MissingEngineError(
            f"ALF cannot be built below {work}: set TMPDIR to a path without blanks"
        )
    shutil.copytree(source, tree, ignore=shutil.ignore_patterns(*PRODUCTS, "Documentation"))
    ours.mkdir()
    for file in installation.hamiltonian_files():
        shutil.copyfile(file, ours / file.name)
    (tree / "Prog" / "Hamiltonians.list.d" / "orchestra").write_text(f"Orchestra {ours / NAME}\n")
    # Not every shell hands arguments to a sourced file, but all let it see the shell's own; without
    # them configure.sh would silently choose something else.
    setup = f"set -- {' '.join(words)} NO-INTERACTIVE NO-FALLBACK && . ./configure.sh"
    variables = {**os.environ, **thread_environment(1), "ALF_FLAGS_EXT": flags}
    if "HDF5" in words:
        variables["ALF_HDF5_DIR"] = variable("ALF_HDF5_DIR")
    if blas == "OpenBLAS":
        # first in line for the final link; the variable helps where only OpenBLAS is installed,
        # because configure.sh tries the usual names itself
        setup += f' && ALF_LIB="-L{work / OPENBLAS} $ALF_LIB"'
        paths = [str(work / OPENBLAS), *filter(None, [os.environ.get("LIBRARY_PATH")])]
        variables["LIBRARY_PATH"] = ":".join(paths)
    for title, goal in (("libraries", "lib"), ("program", "program")):
        what = f"compiling ALF: {title} (both take 1 to 6 minutes)"
        # `.` in a shell that stops at its first error: configure.sh returns, it does not exit
        script = f"{{ {setup}; }} || exit 1\nexec make {goal}\n"
        with heartbeat(say, what), log.open("ab") as stream:
            answer = subprocess.run(
                ["sh", "-c", script],
                cwd=tree,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                check=False,
            )
        if answer.returncode != 0:
            raise EngineError(_explain(log))
    text = log.read_text(errors="replace")
    wanted = [*(_DEFINED[word] for word in words if word in _DEFINED), FLAGS]
    missing = [flag for flag in wanted if flag not in text]
    if missing:
        raise EngineError(
            f"this ALF tree was compiled without {' '.join(missing)}: its configure.sh does not "
            "understand what this program asks for"
        )
    return tree / "Prog" / BINARY


def _explain(log: Path) -> str:
    """Keep the log where it can be read and say what is in its end."""
    kept = cache_directory() / "alf" / "failed-build.log"
    own_directory(kept.parent, NOT_TRUSTED)
    shutil.copyfile(log, kept)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", kept.read_text(errors="replace"))  # without colours
    lines = plain.splitlines()
    first = next((k for k, line in enumerate(lines) if re.search("[Ee]rror", line)), -6)
    shown = "".join(f"\n  {line}" for line in lines[first:][:6])
    return f"ALF does not compile; from {kept}:{shown}"


def _install(binary: Path, log: Path, target: Path, record: dict[str, object]) -> ALFInstallation:
    """Try the binary, then move it to its place by rename."""
    problem = installation.probe(binary)
    if problem:
        raise EngineError(f"the ALF that was just compiled does not work: {problem}")
    record |= {"binary_sha256": file_sha256(binary), "built": utc_now()}
    own_directory(target.parent, NOT_TRUSTED)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=target.parent) as name:
        fresh = Path(name) / target.name
        fresh.mkdir(DIRECTORY)
        shutil.copy2(binary, fresh / BINARY)
        shutil.copyfile(log, fresh / LOG)
        (fresh / BUILD_RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        fresh.rename(target)
    return ALFInstallation(target / BINARY, installation.OURS)


class _Recipe(ImageRecipe):
    """The image of ALF: serial and MPI programs with our Hamiltonian."""

    def own_files(self) -> tuple[Path, list[Path]]:
        files = installation.hamiltonian_files()
        return files[0].parent, files

    def replaces_release(self, source: Path) -> bool:
        return True

    def left_out(self, source: Path) -> tuple[str, ...]:
        check_tree(source)
        return (*PRODUCTS, "Documentation")

    def arguments(self, source: Path | None, version: str | None) -> dict[str, str]:
        arguments = {}
        if source is None:
            text = self.definition().read_text(encoding="utf-8")
            default = re.search(r"^\s*VERSION=(\S+)", text, re.M)
            assert default is not None
            name = f"ALF {version or default[1]}"
        else:
            name = alf_version(source, tree_hash(source))
            release = re.match(r"ALF (\d\S*)", name)
            arguments["VERSION"] = release[1] if release else "unknown"
        return arguments | {"ENGINE": f"{name} + Orchestra {installation.hamiltonian_hash()[:8]}"}


RECIPE = _Recipe("alf", launched={installation.VARIABLE: "/opt/orchestra/alf/ALF-MPI.out"})
