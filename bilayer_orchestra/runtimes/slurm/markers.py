"""What a task left on the disk: ``task/running``, or ``task/ended-CODE-REASON``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_ENDED = re.compile(r"ended-(\d+)-([a-z]+)")


@dataclass(frozen=True)
class Marker:
    """One execution of a point on a compute node.

    Parameters
    ----------
    job, host : str
        The scheduler's name of the task and the node.
    code : int or None
        Exit code; None if it has not ended, as far as the disk knows.
    reason : str
        ``done``, ``engine``, ``timelimit`` or ``stopped``.
    """

    job: str
    host: str
    code: int | None = None
    reason: str = ""

    @property
    def done(self) -> bool:
        """Whether the engine ended well."""
        return self.code == 0


def read_marker(run: Path) -> Marker | None:
    """Return the newest marker of a run directory, or None."""
    folder = run / "task"
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return None
    # an end that is good stays good, whatever else is there
    ended = sorted((m for name in names if (m := _ENDED.fullmatch(name))), key=lambda m: int(m[1]))
    if ended and (int(ended[0][1]) == 0 or "running" not in names):
        facts = _facts(folder / ended[0][0])
        return Marker(facts.get("job", ""), facts.get("host", ""), int(ended[0][1]), ended[0][2])
    if "running" in names:
        facts = _facts(folder / "running")
        return Marker(facts.get("job", ""), facts.get("host", ""))
    return None


def forget_markers(run: Path) -> None:
    """Make the next submission compute the point again."""
    for path in (run / "task").glob("ended-*"):
        path.unlink(missing_ok=True)


def _facts(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line)
