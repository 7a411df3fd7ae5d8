"""``orchestra engines build alf``: compile the user's ALF tree with our Hamiltonian.

The tree is copied and never modified. ALF offers ``Prog/Hamiltonians.list.d`` for Hamiltonians
that live elsewhere, so nothing in the copy is patched either.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bilayer_orchestra.configuration import NOT_TRUSTED, cache_directory
from bilayer_orchestra.engines.alf.install.installation import (
    BINARY,
    BUILD_RECORD,
    ALFInstallation,
    hamiltonian_files,
    hamiltonian_hash,
)
from bilayer_orchestra.errors import EngineError, MissingEngineError, OrchestraError
from bilayer_orchestra.files import (
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
_SOURCES = ("configure.sh", "Makefile", "Prog", "Libraries")


@dataclass(frozen=True)
class Options:
    """What kind of binary is built."""

    native: bool = False
    mpi: bool = False
    hdf5: bool = False

    @property
    def words(self) -> list[str]:
        """Names of the options that are on."""
        return [name for name in ("native", "mpi", "hdf5") if getattr(self, name)]


def build_alf(
    source: Path,
    options: Options,
    on_progress: Callable[[str], None] = lambda line: None,
    rebuild: bool = False,
) -> ALFInstallation:
    """Compile ALF from ``source``, or return the build that is there already.

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
    with tempfile.TemporaryDirectory(prefix="orchestra-alf-") as temporary:
        work = Path(temporary)
        blas, library = _linear_algebra(work)
        digest = tree_hash(source)
        words = [*options.words, *_configure_words(options), _flags(options)]
        identity = [digest, hamiltonian_hash(), compiler, blas, *words]
        key = sha256("\n".join(identity))[:16]
        target = cache_directory() / "alf" / key
        record: dict[str, object] = {
            "alf_version": alf_version(source, digest),
            "hamiltonian": hamiltonian_hash(),
            "compiler": compiler,
            "blas": blas,
            "flags": _flags(options),
            "options": options.words,
            "source": str(source),
        }
        if not rebuild and (target / BUILD_RECORD).exists():
            secure(target, NOT_TRUSTED)
            stored = json.loads((target / BUILD_RECORD).read_text(encoding="utf-8"))
            # a build that is asked for becomes the one in use
            text = json.dumps(stored | {"built": utc_now()}, indent=1) + "\n"
            write_text_atomic(target / BUILD_RECORD, text)
            on_progress("this build is there already")
            return ALFInstallation(target / BINARY, "orchestra engines build alf", stored)
        binary = _compile(source, work, options, library, on_progress)
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
    release = None
    changelog = source / "CHANGELOG.md"
    if changelog.exists():
        text = changelog.read_text(encoding="utf-8", errors="replace")
        match = re.search(r"^## ALF (\d[\d.]*)", text, re.MULTILINE)
        release = match[1] if match else None
    commit = ""
    if (source / ".git").exists() and shutil.which("git"):
        command = ["git", "-C", str(source), "describe", "--always", "--dirty", "--tags"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        commit = answer.stdout.strip()
    return f"ALF {release or '(unknown release)'} {commit or 'tree:' + digest[:8]}"


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
    if options.mpi:
        needed["mpifort"] = "an MPI compiler (Debian: apt install libopenmpi-dev openmpi-bin)"
    for program, what in needed.items():
        if shutil.which(program) is None:
            raise MissingEngineError(f"`{program}` is not on the PATH: ALF needs {what}")
    command = ["mpifort" if options.mpi else "gfortran", "--version"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0 or not answer.stdout:
        raise MissingEngineError(f"`{command[0]} --version` fails: {answer.stderr.strip()[-300:]}")
    line = answer.stdout.splitlines()[0]
    version = re.search(r"\d+\.\d+(\.\d+)*$", line)
    return f"gfortran {version[0]}" if version else line


def _check_hdf5(options: Options) -> None:
    """Raise MissingEngineError where ALF would download and compile an HDF5 unasked."""
    named = variable("ALF_HDF5_DIR")
    if options.hdf5 and not (named and list(Path(named).glob("*/bin/h5fc"))):
        raise MissingEngineError(
            "--hdf5 needs ALF_HDF5_DIR, with <compiler version>/{include,lib,bin/h5fc} below it as "
            f"ALF installs it (gfortran: GCC_version_12.2.0); it is {named or 'not set'}. Without "
            "--hdf5 the output is text, which is read just as well"
        )


def _linear_algebra(work: Path) -> tuple[str, Path | None]:
    """Return (name, directory to link from) of the fastest BLAS and LAPACK that link.

    ALF's configuration says ``-llapack -lblas``. OpenBLAS holds both and is several times faster
    than the reference, so two linker scripts of these names lead to it.
    """
    library = work / "openblas"
    library.mkdir()
    for name in ("liblapack.so", "libblas.so"):
        (library / name).write_text("INPUT(-lopenblas)\n")
    if _links(work, [f"-L{library}"]):
        return "OpenBLAS", library
    if _links(work, []):
        return "system BLAS", None
    raise MissingEngineError(
        "no LAPACK and BLAS to link with; install OpenBLAS (Debian: apt install libopenblas-dev)"
    )


def _links(work: Path, flags: list[str]) -> bool:
    program = work / "link_test.f90"
    program.write_text("program t\ncall zgetrf()\ncall zgemm()\nend program t\n")
    command = ["gfortran", "-w", str(program), *flags, "-llapack", "-lblas"]
    output = ["-o", str(work / "link_test")]
    return subprocess.run([*command, *output], capture_output=True, check=False).returncode == 0


def _flags(options: Options) -> str:
    return f"{FLAGS} -march=native" if options.native else FLAGS


def _configure_words(options: Options) -> list[str]:
    """Return what ALF's configure.sh is told."""
    # LOG keeps the scales of the propagation as logarithms: same speed, and no overflow at low T
    parallel = "MPI" if options.mpi else "noMPI"
    return ["GNU", parallel, "LOG", *(["HDF5"] if options.hdf5 else [])]


def _compile(
    source: Path,
    work: Path,
    options: Options,
    library: Path | None,
    on_progress: Callable[[str], None],
) -> Path:
    tree = work / "ALF"
    if " " in str(tree):
        raise OrchestraError(
            f"ALF cannot be built below {work}: set TMPDIR to a path without blanks"
        )
    shutil.copytree(source, tree, ignore=shutil.ignore_patterns(*PRODUCTS, "Documentation"))
    ours = work / "hamiltonian"
    ours.mkdir()
    for file in hamiltonian_files():
        shutil.copyfile(file, ours / file.name)
    (tree / "Prog" / "Hamiltonians.list.d" / "orchestra").write_text(f"Orchestra {ours / NAME}\n")
    # Not every shell hands arguments to a sourced file, but all let it see the shell's own; without
    # them configure.sh would silently choose something else.
    words = " ".join([*_configure_words(options), "NO-INTERACTIVE", "NO-FALLBACK"])
    setup = f"set -- {words} && . ./configure.sh"
    variables = {**os.environ, **thread_environment(1), "ALF_FLAGS_EXT": _flags(options)}
    if options.hdf5:
        variables["ALF_HDF5_DIR"] = variable("ALF_HDF5_DIR")
    if library is not None:
        # first in line for the final link; the variable helps where only OpenBLAS is installed,
        # because configure.sh tries the usual names itself
        setup += f' && ALF_LIB="-L{library} $ALF_LIB"'
        paths = [str(library), *filter(None, [os.environ.get("LIBRARY_PATH")])]
        variables["LIBRARY_PATH"] = ":".join(paths)
    for title, goal in (("libraries", "lib"), ("program", "program")):
        what = f"compiling ALF: {title} (both take 1 to 6 minutes)"
        with heartbeat(on_progress, what), (work / LOG).open("ab") as log:
            # `.` in a shell that stops at its first error: configure.sh returns, it does not exit
            script = f"{{ {setup}; }} || exit 1\nexec make {goal}\n"
            answer = subprocess.run(
                ["sh", "-c", script],
                cwd=tree,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=False,
            )
        if answer.returncode != 0:
            raise EngineError(_explain(work / LOG))
    _check_configuration(work / LOG, options)
    return tree / "Prog" / BINARY


def _check_configuration(log: Path, options: Options) -> None:
    """Raise EngineError unless the compiler was called with everything that was asked for."""
    text = log.read_text(errors="replace")
    wanted = ["-DSTABLOG", FLAGS, *(["-DMPI"] if options.mpi else [])]
    wanted += ["-DHDF5"] if options.hdf5 else []
    missing = [flag for flag in wanted if flag not in text]
    if missing:
        raise EngineError(
            f"this ALF tree was compiled without {' '.join(missing)}: its configure.sh does not "
            "understand what this program asks for"
        )


def _explain(log: Path) -> str:
    """Keep the log where it can be read and say what is in its end."""
    kept = cache_directory() / "alf" / "failed-build.log"
    own_directory(kept.parent, NOT_TRUSTED)
    shutil.copyfile(log, kept)
    lines = kept.read_text(errors="replace").splitlines()
    errors = [k for k, line in enumerate(lines) if re.search(r"[Ee]rror", line)]
    tail = lines[errors[0] : errors[0] + 6] if errors else lines[-6:]
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in tail]  # without colours
    return "\n".join([f"ALF does not compile; from {kept}:", *(f"  {line}" for line in plain)])


def _install(binary: Path, log: Path, target: Path, record: dict[str, object]) -> ALFInstallation:
    """Try the binary, then move it to its place by rename."""
    from bilayer_orchestra.engines.alf.install.probe import probe

    problem = probe(binary)
    if problem:
        raise EngineError(f"the ALF that was just compiled does not work: {problem}")
    record |= {"binary_sha256": file_sha256(binary), "built": utc_now()}
    own_directory(target.parent, NOT_TRUSTED)
    fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    try:
        shutil.copy2(binary, fresh / BINARY)
        shutil.copyfile(log, fresh / LOG)
        (fresh / BUILD_RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        fresh.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return ALFInstallation(target / BINARY, "orchestra engines build alf", dict(record))
