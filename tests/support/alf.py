"""What the tests of the ALF backend share."""

from __future__ import annotations

from pathlib import Path

from bilayer_orchestra.engines.alf.installation import find_alf, hamiltonian_hash
from bilayer_orchestra.errors import MissingEngineError


def missing_alf() -> str | None:
    """Return why the tests with the real ALF cannot run here, or None."""
    try:
        installation = find_alf()
    except MissingEngineError as error:
        return str(error)
    if installation.record and installation.record["hamiltonian"] != hamiltonian_hash():
        return "ALF was built with another Hamiltonian: run `orchestra engines build alf`"
    return None


def segments(job: Path, step: int = 0, chain: int = 0) -> list[Path]:
    """Return the finished segments of a chain, in order."""
    folder = job / f"dtau-{step}" / f"chain-{chain}"
    return sorted(path for path in folder.glob("seg-*") if path.suffix != ".part")


def chain_bytes(job: Path, name: str, step: int = 0, chain: int = 0) -> bytes:
    """Return the bins of one observable of a chain, all segments put together."""
    return b"".join((path / name).read_bytes() for path in segments(job, step, chain))
