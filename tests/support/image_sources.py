"""What real builds of images are made of: a base of Debian's packages, the engines found here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bilayer_orchestra.configuration import cache_directory, engine_settings
from bilayer_orchestra.errors import MissingEngineError
from bilayer_orchestra.images.use import container_command

#: The release that our definitions are written for.
RELEASE = "bookworm"


def base_image() -> Path:
    """Return a base image: a configured one, else one that is made once from Debian's packages."""
    named = os.environ.get("ORCHESTRA_TEST_BASE") or engine_settings("containers").get("base")
    if named:
        return Path(named)
    kept = cache_directory() / "tests" / f"base-{RELEASE}.sif"
    if kept.exists():
        return kept
    debootstrap = shutil.which("debootstrap", path=f"{os.environ['PATH']}:/usr/sbin")
    if debootstrap is None or os.geteuid() != 0:
        pytest.skip("no base image: needs root and debootstrap (apt install debootstrap)")
    kept.parent.mkdir(parents=True, exist_ok=True)
    work = kept.with_suffix(f".{os.getpid()}")
    try:
        tree = work / "tree"
        words = [debootstrap, "--variant=minbase", RELEASE, str(tree)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = (done.stdout + done.stderr).strip().splitlines()[-1:]
            pytest.skip(f"no base image: debootstrap fails: {said}")
        # device files cannot be unpacked without privileges; what was downloaded is of no use
        for folder in ("dev", "var/lib/apt/lists", "var/cache/apt/archives"):
            shutil.rmtree(tree / folder)
            (tree / folder).mkdir()
        words = [container_command(), "build", str(work / "base.sif"), str(tree)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (work / "base.sif").rename(kept)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return kept


def alf_tree() -> Path:
    """Return the ALF tree of the user's configuration."""
    named = os.environ.get("ORCHESTRA_TEST_ALF") or engine_settings("alf").get("source")
    if not named:
        pytest.skip("no ALF tree: `orchestra engines build alf --source DIR` notes one")
    return Path(named)


def julia_source(folder: Path) -> Path:
    """Return a source of the ITensor image, from the Julia of the user's configuration.

    ``ORCHESTRA_TEST_ITENSOR`` names one that is ready.
    """
    named = os.environ.get("ORCHESTRA_TEST_ITENSOR")
    if named:
        return Path(named)
    from bilayer_orchestra.engines.itensor.julia import find_julia

    try:
        installation = find_julia()
    except MissingEngineError as error:
        pytest.skip(f"no Julia: {error}")
    depot = engine_settings("julia").get("depot") or os.environ.get("JULIA_DEPOT_PATH", "")
    place = Path(depot.partition(os.pathsep)[0] or Path.home() / ".julia")
    if not list(place.glob("packages/PackageCompiler")):
        pytest.skip(f"PackageCompiler is not in the depot {place}: add it with Julia's Pkg")
    julia = installation.binary.resolve().parents[1]
    source = folder / "source"
    shutil.copytree(julia, source / "julia", symlinks=True)
    ignore = shutil.ignore_patterns("clones", "logs", "compiled")
    shutil.copytree(place, source / "depot", symlinks=True, ignore=ignore)
    (source / "packages").write_text(" ".join(_debian_packages(julia)) + "\n")
    return source


def _debian_packages(tree: Path) -> list[str]:
    """Return the packages that hold what ``tree`` links to; none for an official Julia."""
    files = {
        path.resolve()
        for path in tree.rglob("*")
        if path.is_symlink() and path.exists() and tree not in path.resolve().parents
    }
    needed = set(files)
    for library in [*files, *tree.rglob("*.so")]:
        listed = subprocess.run(["ldd", str(library)], capture_output=True, text=True, check=False)
        needed |= {Path(name) for name in re.findall(r"(/\S+) \(0x", listed.stdout)}
    packages = set()
    for path in needed:
        # a file may be known by the name that it had before /lib became /usr/lib
        for name in (path, path.resolve(), Path(str(path.resolve()).removeprefix("/usr"))):
            words = ["dpkg", "-S", str(name)]
            found = subprocess.run(words, capture_output=True, text=True, check=False)
            if found.returncode == 0:
                packages.add(found.stdout.split(":")[0])
                break
    return sorted(packages)


def block2_wheels(folder: Path) -> Path:
    """Return the wheels of the block2 image, named by ``ORCHESTRA_TEST_BLOCK2`` or downloaded."""
    named = os.environ.get("ORCHESTRA_TEST_BLOCK2")
    if named:
        return Path(named)
    words = ["python3", "-m", "pip", "-q", "download", "-d", str(folder / "wheels")]
    words += ["--python-version=3.11", "--only-binary=:all:", "block2==0.5.4", "numpy", "scipy"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no wheels of block2: {done.stderr.strip().splitlines()[-1:]}")
    return folder / "wheels"
