"""Files under fixed names, such as ``runs/NAME/result.nc``: all of them belong to the same run.

A run's own files are in its directory. Beside the copies that are published under short names
nothing of another run may stay; what a user made of them (fits) goes where its run is.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.files import make_directory, other_owner, replacing, sha256

if TYPE_CHECKING:
    import xarray as xr

# groups of names: the first of each says whose all of them are
#: Of a result.
RESULT = ("result.nc", "result.png")
#: Of the fits of a result.
FITS = ("fit.nc", "fit.png")
#: Of an extrapolation.
LIMIT = ("limit.nc",)
#: Of a comparison of engines.
CHECK = ("check.nc",)


def of_study(name: str) -> tuple[str, ...]:
    """Return the names under which a study's dataset and what is drawn of it are published."""
    return tuple(f"{name}{end}" for end in (".nc", ".png", ".pdf", ".svg", "-fits.nc"))


def is_taken(study: str) -> bool:
    """Return whether the dataset of a study of this name would be called as something else is."""
    return f"{study}.nc" in (*RESULT, *FITS, *LIMIT, *CHECK) or study.endswith("-fits")


def refuse_own_source(written: Path, *sources: Path) -> None:
    """Raise OrchestraError if ``written`` would replace what it is made of."""
    if written.exists() and any(one.exists() and one.samefile(written) for one in sources):
        raise OrchestraError(
            f"{written} would be replaced by what is made of it; -o names another directory"
        )


def owner(dataset: xr.Dataset) -> str:
    """Return the name of the run directory that a dataset comes from, or of the study as it was."""
    attributes = dataset.attrs
    if "study_name" in attributes:
        points = {
            str(name): coordinate.values.tolist()
            for name, coordinate in dataset.coords.items()
            if "model_path" in coordinate.attrs
        }
        text = json.dumps([attributes.get("model"), points], sort_keys=True)
        name = f"{attributes['study_name']}-{sha256(text)[:12]}"
    elif "run" in attributes or "request_hash" not in attributes:
        name = str(attributes.get("run", ""))
    else:  # written before runs were named
        parts = (attributes["model_name"], attributes["backend"], attributes["request_hash"][:12])
        name = "-".join(map(str, parts))
    return Path(name).name  # it becomes part of a path


def _owner_of(path: Path) -> str:
    import xarray as xr

    try:
        if not path.is_file():  # opening a pipe would wait for its other end
            return ""
        with xr.open_dataset(path, engine="netcdf4") as dataset:
            return owner(dataset)
    except (OSError, ValueError, KeyError):
        return ""


def make_room(root: Path, names: tuple[str, ...], new: str, say: Callable[[str], None]) -> None:
    """Move the files ``names`` out of ``root``, to the directory of their own run, if not ``new``.

    Parameters
    ----------
    root : Path
        Where the names are published.
    names : tuple of str
        One of the groups above.
    new : str
        Name of the run whose files are published next.
    say : callable
        Receives a line about what was moved.

    Raises
    ------
    OrchestraError
        If ``root``, which is made if it is not there, cannot be written to.
    """
    try:
        make_directory(root)
        # a directory is nothing that was published: it stays, and is refused when it is written to
        there = [path for path in (root / name for name in names) if _is_published(path)]
        old = _owner_of(root / names[0]) if there else new
        if old == new:
            return
        # what nobody knows the origin of has no second copy: it replaces nothing
        place = root / old if old else _free(root, [path.name for path in there])
        place.mkdir(exist_ok=True)
        for path in there:
            path.replace(place / path.name)
    except OSError as error:
        raise OrchestraError(f"cannot write to {root}: {error.strerror}") from error
    say(f"kept     {', '.join(path.name for path in there)} of another run: {place}")


def _is_published(path: Path) -> bool:
    return os.path.lexists(path) and not path.is_dir()


def _free(root: Path, names: list[str]) -> Path:
    """Return a directory for what another run has left, in which none of ``names`` is there."""
    for k in itertools.count():
        place = root / ("of-another-run" + (f"-{k}" if k else ""))
        taken = any(os.path.lexists(place / name) for name in names)
        if not os.path.lexists(place) or (place.is_dir() and not taken):
            break
    return place


def publish(run: Path, root: Path, say: Callable[[str], None]) -> Path:
    """Make ``root`` show the result of ``run``: a copy by rename, with the fits made of it.

    Parameters
    ----------
    run : Path
        The run directory.
    root : Path
        Where its result is published.
    say : callable
        Receives lines about what was moved.

    Returns
    -------
    Path
        The published dataset; the run's own where either belongs to another user.
    """
    if any(other_owner(path) for path in (run, *(root / name for name in (*RESULT, *FITS)))):
        return run / RESULT[0]
    for names in (RESULT, FITS):
        make_room(root, names, run.name, say)
    for name in (*RESULT, *FITS):
        if (run / name).exists() and (name in RESULT or not (root / name).exists()):
            copy(run / name, root / name)
    return root / RESULT[0]


def copy(source: Path, target: Path) -> None:
    """Make ``target`` a copy of ``source`` by rename: the old one is there until the new one is."""
    try:
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
    except OrchestraError as error:
        raise OrchestraError(f"{error}; the result itself is in {source}") from error
