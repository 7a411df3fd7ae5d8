"""What a running ALF job says about itself, and when its error is small enough to stop."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shlex import quote

from bilayer_orchestra.engines.alf.output.health import read_info
from bilayer_orchestra.engines.alf.settings import ALFNumerics
from bilayer_orchestra.engines.base import Request
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.terms import Terms

#: What `run.sh` looks for.
STOP = "stop"
#: Seconds between two looks at the directory.
INTERVAL = 1.0
#: The analysis of the bins should take this part of one core: the chains need the rest.
ANALYSIS_SHARE = 0.01
#: Part of one core that it takes at most, where the next news would else be long in coming.
MOST_ANALYSIS_SHARE = 0.05
#: The stop is at a somewhat smaller error than wanted: the final analysis drops the warm-up.
MARGIN = 0.95

QuickError = Callable[[Path, Terms, str], float]


class Monitor:
    """Watches one job directory; cheap to ask often."""

    def __init__(self, directory: Path, request: Request, quick_error: QuickError) -> None:
        numerics: ALFNumerics = request.numerics
        self.directory, self.request = directory, request
        self.targets = dict(numerics.target_stderr)
        self._budget = numerics.effective_budget
        self.names = list(self.targets) or ["pair" if "pair" in request.observables else "energy"]
        self._quick_error = quick_error
        self._next_look = 0.0
        self._started = time.monotonic()
        self._next_analysis = self._started + INTERVAL
        self._used = _used_seconds(directory)
        self._reached = False
        self._errors: dict[str, float] = {}
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
            self._line = self._text(bins + running, finished)
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
            self._errors.get(name, math.inf) <= MARGIN * target
            for name, target in self.targets.items()
        ]
        if reached and all(reached):
            self._reached = True
        now = time.monotonic()
        spent = now - start
        # early on, prompt news counts more than a little time
        pause = min(spent / ANALYSIS_SHARE, max(5.0, 0.2 * (now - self._started)))
        pause = max(pause, spent / MOST_ANALYSIS_SHARE)
        self._next_analysis = now + max(2 * INTERVAL, pause)

    def _text(self, bins: int, finished: list[Path]) -> str:
        parts = [f"{bins} bins"]
        with suppress(OrchestraError):  # such as a file that is being removed
            precision, acceptance = read_info(finished[-1:])
            parts += [] if math.isnan(acceptance) else [f"acceptance {acceptance:.2f}"]
            parts += [] if math.isnan(precision) else [f"precision {precision:.0e}"]
        for name, error in self._errors.items():
            if math.isfinite(error):
                target = self.targets.get(name)
                goal = f" (target {target:.2g})" if target else ""
                parts.append(f"error of {name} {error:.2g}{goal}")
        stop = self.directory / STOP
        if stop.exists():
            return "  ".join([*parts, "target reached, stopping" if self._reached else "stopping"])
        if self._budget is not None:
            left = max(0.0, self._budget - self._used - (time.monotonic() - self._started))
            unit, name = (60, "min") if self._budget >= 120 else (1, "s")
            parts.append(f"{left / unit:.1f} of {self._budget / unit:g} {name} left (time_budget)")
        return "  ".join(parts) + f"\nto end it now, with what it has: touch {quote(str(stop))}"


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
