"""Our Julia half as Julia sees it: a copy in the user's cache, named by its content.

Julia compiles a package for the path it is loaded from, and compiling OrchestraITensor takes
minutes. A path that follows from the content is compiled once, whatever checkouts and virtual
environments use it. The machine code is kept beside the copy, in a depot of its own: in the user's
depot Julia names it by the project alone, and two versions in use would replace each other's.
"""

import os
from functools import cache
from pathlib import Path

from bilayer_orchestra.configuration import NOT_TRUSTED, cache_directory
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.files import copy_files, files_sha256, new_directory, secure
from bilayer_orchestra.resources import resource


def engine_files() -> list[Path]:
    """Return the files that make up the package, the project file first."""
    root = resource("backends", "itensor")
    return [root / "Project.toml", *sorted(root.glob("src/*.jl"))]


@cache
def engine_hash() -> str:
    """Return the hash of our Julia sources: whatever changes them can change a number."""
    return files_sha256(engine_files())


def engine_half() -> Path:
    """Return the directory of OrchestraITensor to put on Julia's load path.

    Raises
    ------
    OrchestraError
        If it cannot be written, belongs to another user, or Julia could not read its path.
    """
    target = cache_directory().absolute() / "itensor" / engine_hash()[:16]
    if os.pathsep in str(target):
        raise OrchestraError(
            f"{target} contains `{os.pathsep}`, which Julia takes for the end of a path; name "
            "another cache directory in ORCHESTRA_CACHE"
        )
    if not (target / "Project.toml").exists():
        try:
            with new_directory(target, "Project.toml", NOT_TRUSTED) as fresh:
                copy_files(engine_files(), resource("backends", "itensor"), fresh)
        except OSError as error:
            raise OrchestraError(
                f"cannot write {target}: {error.strerror}; name another cache directory in "
                "ORCHESTRA_CACHE"
            ) from error
    return _secured(target)


@cache
def _secured(target: Path) -> Path:
    secure(target, NOT_TRUSTED)
    return target


def engine_depot() -> Path:
    """Return the Julia depot in which the machine code of our half is kept."""
    return engine_half() / "depot"
