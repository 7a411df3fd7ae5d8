"""Matrix-product states on disk: a checkpoint is a directory that appears by rename."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path
from typing import Any

from bilayer_orchestra.engine_side.files import load_arrays, save_arrays

RECORD, ARRAYS, CHECKSUMS = "record.json", "arrays.npz", "checksums.json"
#: What block2 calls the state in a checkpoint, and the one that is optimized.
TAG, KET = "SAVED", "KET"


def save_checkpoint(
    driver: Any, state: Any, record: dict[str, Any], arrays: dict[str, Any], place: Path
) -> None:
    """Replace the checkpoint at ``place``.

    A kill between the two renames leaves the new checkpoint under its temporary name, from where
    :func:`load_checkpoint` takes it.

    Parameters
    ----------
    driver, state
        block2's driver and matrix-product state.
    record : dict
        How far the search is; has the ``sector``.
    arrays : dict
        Arrays beside it.
    place : Path
        A directory, there or not.
    """
    driver.copy_mps(state, TAG)
    fresh, old = place.with_name(place.name + ".new"), place.with_name(place.name + ".old")
    partial = place.with_name(place.name + ".partial")
    for stale in (partial, fresh, old):
        shutil.rmtree(stale, ignore_errors=True)
    partial.mkdir(parents=True)
    for file in _files(Path(driver.scratch)):
        shutil.move(file, partial / file.name)
    save_arrays(partial / ARRAYS, **arrays)
    (partial / CHECKSUMS).write_text(json.dumps(_checksums(partial)))
    (partial / RECORD).write_text(json.dumps(record))
    partial.rename(fresh)
    if place.exists():
        place.rename(old)
    fresh.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(driver: Any, place: Path) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Return (state, record, arrays) of a checkpoint without a problem."""
    source = _newest(place)
    record = json.loads((source / RECORD).read_text())
    for file in source.iterdir():
        if file.name not in (RECORD, ARRAYS, CHECKSUMS):
            shutil.copy(file, Path(driver.scratch) / file.name)
    return driver.copy_mps(driver.load_mps(TAG), KET), record, load_arrays(source / ARRAYS)


def checkpoint_problem(place: Path, sector: list[Any]) -> str | None:
    """Return why a job of ``sector`` cannot go on from the checkpoint at ``place``, or None.

    block2 may crash on a damaged file, so none is given to it whose checksum is wrong.
    """
    source = _newest(place)
    try:
        found = json.loads((source / RECORD).read_text())["sector"]
        expected = json.loads((source / CHECKSUMS).read_text())
        actual = _checksums(source)
    except (OSError, ValueError, KeyError, TypeError):
        return "it is incomplete, or of another version"
    if found != sector:
        return "it belongs to another symmetry, length or number of electrons"
    if actual != expected:
        return "it is damaged"
    return None


def _newest(place: Path) -> Path:
    """Return where the newest complete checkpoint is, if there is any."""
    fresh = place.with_name(place.name + ".new")
    return fresh if fresh.exists() else place


def _checksums(place: Path) -> dict[str, int]:
    """Return the checksum of every file in ``place`` but the record, which is read as text."""
    files = (f for f in place.iterdir() if f.name not in (RECORD, CHECKSUMS))
    return {file.name: _checksum(file) for file in files}


def _checksum(file: Path) -> int:
    result = 0
    with file.open("rb") as stream:
        while piece := stream.read(1 << 24):
            result = zlib.crc32(piece, result)
    return result


def _files(scratch: Path) -> list[Path]:
    """Return the files of the state (names as block2 writes them)."""
    patterns = (f"F.MPS.{TAG}.*", f"F.MPS.INFO.{TAG}.*", f"{TAG}-mps_info.bin")
    return [file for pattern in patterns for file in scratch.glob(pattern)]
