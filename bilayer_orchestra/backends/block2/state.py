"""Matrix-product states on disk: a checkpoint is a directory that appears by rename."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from bilayer_orchestra.engine_io import load_arrays, save_arrays

RECORD, ARRAYS = "record.json", "arrays.npz"


def save_checkpoint(
    driver: Any,
    state: Any,
    tag: str,
    record: dict[str, Any],
    arrays: dict[str, Any],
    place: Path,
) -> None:
    """Replace the checkpoint at ``place`` by ``state``, ``record`` and ``arrays``.

    A kill between the two renames leaves the new checkpoint under its temporary name, from where
    :func:`load_checkpoint` takes it.
    """
    driver.copy_mps(state, tag)
    fresh, old = place.with_name(place.name + ".new"), place.with_name(place.name + ".old")
    partial = place.with_name(place.name + ".partial")
    for stale in (partial, fresh, old):
        shutil.rmtree(stale, ignore_errors=True)
    partial.mkdir(parents=True)
    for file in _files(Path(driver.scratch), tag):
        shutil.move(file, partial / file.name)
    (partial / RECORD).write_text(json.dumps(record))
    save_arrays(partial / ARRAYS, **arrays)
    partial.rename(fresh)
    if place.exists():
        place.rename(old)
    fresh.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(
    driver: Any, tag: str, name: str, place: Path, sector: list[Any] | None = None
) -> tuple[Any, dict[str, Any], dict[str, Any]] | None:
    """Return (state, record, arrays) of the newest complete checkpoint, the state as ``name``.

    With a ``sector`` only if the record has the same one: another cannot be continued.
    """
    fresh = place.with_name(place.name + ".new")
    source = fresh if fresh.exists() else place
    if not source.exists():
        return None
    record = json.loads((source / RECORD).read_text())
    if sector is not None and record.get("sector") != sector:
        return None
    for file in source.iterdir():
        if file.name not in (RECORD, ARRAYS):
            shutil.copy(file, Path(driver.scratch) / file.name)
    state = driver.copy_mps(driver.load_mps(tag), name)
    return state, record, load_arrays(source / ARRAYS)


def _files(scratch: Path, tag: str) -> list[Path]:
    """Return the files of the MPS ``tag`` (names as block2 writes them)."""
    return [
        *scratch.glob(f"F.MPS.{tag}.*"),
        *scratch.glob(f"F.MPS.INFO.{tag}.*"),
        *scratch.glob(f"{tag}-mps_info.bin"),
    ]
