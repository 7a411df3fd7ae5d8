"""What a running ALF job says about itself, and when its error is small enough to stop."""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from bilayer_orchestra.engines.alf.settings import ALFNumerics
from bilayer_orchestra.engines.base import Request
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.terms import Terms

#: What `run.sh` looks for.
STOP = "stop"
#: Seconds between two looks at the directory.
INTERVAL = 1.0
#: The analysis of the bins may take this part of one core: the chains need the rest.
ANALYSIS_SHARE = 0.01
#: The stop is at a somewhat smaller error than wanted: the final analysis drops the warm-up.
MARGIN = 0.95

QuickError = Callable[[Path, Terms, str], tuple[int, float]]


@dataclass
class Info:
    """Quality of the newest finished segment."""

    acceptance: float | None = None
    precision: float | None = None


class Monitor:
    """Watches one job directory; cheap to ask often."""

    def __init__(self, directory: Path, request: Request, quick_error: QuickError) -> None:
        assert isinstance(request.numerics, ALFNumerics)
        self.directory, self.request = directory, request
        self.targets = dict(request.numerics.target_stderr)
        self._budget = request.numerics.effective_budget
        self.names = list(self.targets) or [_shown(request.observables)]
        self._quick_error = quick_error
        self._next_look = 0.0
        self._started = time.monotonic()
        self._next_analysis = self._started + INTERVAL
        self._used = _used_seconds(directory)
        self._reached = False
        self._errors: dict[str, tuple[int, float]] = {}
        self._line: str | None = None

    def lines(self) -> list[str]:
        """Return the newest line."""
        now = time.monotonic()
        if now >= self._next_look:
            self._look(now)
        return [] if self._line is None else [self._line]

    def reached(self) -> bool:
        """Return whether the error of every target is small enough; looked at now and then."""
        if self.targets and time.monotonic() >= self._next_analysis:
            self._analyse()
        return self._reached

    def _look(self, now: float) -> None:
        if now >= self._next_analysis:
            self._analyse()
        start = time.monotonic()
        segments = sorted(self.directory.glob("dtau-*/chain-*/seg-*"), key=lambda path: path.name)
        finished = [path for path in segments if path.suffix != ".part"]
        bins = sum(_stored(path, "bins") for path in finished)
        running = sum(_running_bins(path) for path in segments if path.suffix == ".part")
        if segments:
            self._line = self._text(bins + running, _newest_info(finished))
        spent = time.monotonic() - start
        # a long run has less to say per second, and logs keep every line
        elapsed = start - self._started
        self._next_look = start + max(INTERVAL, min(elapsed / 50, 30.0), spent / ANALYSIS_SHARE)

    def _analyse(self) -> None:
        start = time.monotonic()
        for name in self.names:
            try:
                self._errors[name] = self._quick_error(self.directory, self.request.terms, name)
            except OrchestraError:
                self._errors.pop(name, None)  # too few bins yet, or a reason that parse will give
        reached = [
            name in self._errors and self._errors[name][1] <= MARGIN * target
            for name, target in self.targets.items()
        ]
        if reached and all(reached):
            self._reached = True
        now = time.monotonic()
        # early on, prompt news counts more than a little time
        pause = min((now - start) / ANALYSIS_SHARE, max(5.0, 0.2 * (now - self._started)))
        self._next_analysis = now + max(2 * INTERVAL, pause)

    def _text(self, bins: int, info: Info) -> str:
        parts = [f"{bins} bins"]
        if info.acceptance is not None:
            parts.append(f"acceptance {info.acceptance:.2f}")
        if info.precision is not None:
            parts.append(f"precision {info.precision:.0e}")
        for name in self.names:
            if name in self._errors and math.isfinite(self._errors[name][1]):
                target = self.targets.get(name)
                goal = f" (target {target:.2g})" if target else ""
                parts.append(f"error of {name} {self._errors[name][1]:.2g}{goal}")
        stop = self.directory / STOP
        if stop.exists():
            return "  ".join([*parts, "target reached, stopping" if self._reached else "stopping"])
        if self._budget is not None:
            left = max(0.0, self._budget - self._used - (time.monotonic() - self._started))
            unit, name = (60, "min") if self._budget >= 120 else (1, "s")
            parts.append(f"{left / unit:.1f} of {self._budget / unit:g} {name} left (time_budget)")
        return "  ".join(parts) + f"\nto end it now, with what it has: touch {quote(str(stop))}"


def _shown(observables: tuple[str, ...]) -> str:
    return "pair" if "pair" in observables else "energy"


def _stored(segment: Path, name: str) -> int:
    try:
        return int((segment / name).read_text())
    except (OSError, ValueError):
        return 0


def _used_seconds(directory: Path) -> float:
    """Return the time that the chains took before; the longest one is what is waited for."""
    chains: Counter[str] = Counter()
    for file in directory.glob("dtau-*/chain-*/seg-*/milliseconds"):
        chains[file.parts[-3]] += _stored(file.parent, file.name)
    return max(chains.values(), default=0) / 1000


def _running_bins(segment: Path) -> int:
    try:
        with (segment / "Ener_scal").open("rb") as stream:
            return stream.read().count(b"\n")
    except OSError:
        return 0


def _newest_info(finished: list[Path]) -> Info:
    if not finished:
        return Info()
    try:
        text = (finished[-1] / "info").read_text(errors="replace")
    except OSError:
        return Info()
    return Info(
        acceptance=_last_number(text, r"^\s*Acceptance\s*:\s*(\S+)"),
        precision=_last_number(text, r"^\s*Precision Green\s+Mean, Max\s*:\s*\S+\s+(\S+)"),
    )


def _last_number(text: str, pattern: str) -> float | None:
    found = re.findall(pattern, text, re.MULTILINE)
    try:
        return float(found[-1]) if found else None
    except ValueError:
        return None
