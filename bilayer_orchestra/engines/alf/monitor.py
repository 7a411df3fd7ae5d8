"""What a running ALF job says about itself, and when its error is small enough to stop."""

import math
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from shlex import quote

from bilayer_orchestra.engines.alf.settings import ALFNumerics
from bilayer_orchestra.engines.base import Request
from bilayer_orchestra.errors import OrchestraError

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


class Monitor:
    """Watches one job directory; cheap to ask often."""

    def __init__(self, directory: Path, request: Request) -> None:
        numerics: ALFNumerics = request.numerics
        self.directory, self.request = directory, request
        self.targets = numerics.target_stderr
        self.names = list(self.targets) or ["pair" if "pair" in request.observables else "energy"]
        self._budget = numerics.effective_budget
        self._started = time.monotonic()
        self._next_look = self._started
        self._next_analysis = self._started + INTERVAL
        # the longest chain is what is waited for
        used: Counter[str] = Counter()
        for file in directory.glob("dtau-*/chain-*/seg-*/milliseconds"):
            used[file.parts[-3]] += _stored(file)
        self._used = max(used.values(), default=0) / 1000
        self._reached = False
        self._errors: dict[str, float] = {}
        self._lines: list[str] = []

    def lines(self) -> list[str]:
        """Return the newest line."""
        self._analyse_now_and_then()
        start = time.monotonic()
        if start >= self._next_look:
            segments = sorted(self.directory.glob("dtau-*/chain-*/seg-*"), key=lambda p: p.name)
            self._lines = [self._text(segments)] if segments else []
            spent = time.monotonic() - start
            # a long run has less to say per second, and logs keep every line
            pause = min((start - self._started) / 50, 30.0)
            self._next_look = start + max(INTERVAL, pause, spent / ANALYSIS_SHARE)
        return self._lines

    def reached(self) -> bool:
        """Return whether the error of every target is small enough; looked at now and then."""
        self._analyse_now_and_then()
        return self._reached

    def _analyse_now_and_then(self) -> None:
        start = time.monotonic()
        if start < self._next_analysis:
            return
        from bilayer_orchestra.engines.alf.results import quick_error

        for name in self.names:
            self._errors[name] = math.inf
            with suppress(OrchestraError):  # too few bins yet, or a reason that parse will give
                self._errors[name] = quick_error(self.directory, self.request.terms.n_sites, name)
        met = [self._errors[name] <= MARGIN * target for name, target in self.targets.items()]
        self._reached |= bool(met) and all(met)
        now = time.monotonic()
        if self._reached:  # that is news
            self._next_look = now
        spent, elapsed = now - start, now - self._started
        # early on, prompt news counts more than a little time
        pause = min(spent / ANALYSIS_SHARE, max(5.0, 0.2 * elapsed))
        self._next_analysis = now + max(2 * INTERVAL, pause, spent / MOST_ANALYSIS_SHARE)

    def _text(self, segments: list[Path]) -> str:
        from bilayer_orchestra.engines.alf.chains import read_info

        parts = [f"{sum(_bins(segment) for segment in segments)} bins"]
        finished = [path for path in segments if path.suffix != ".part"]
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
        if stop.exists() or self._reached:
            return "  ".join([*parts, "target reached, stopping" if self._reached else "stopping"])
        if self._budget is not None:
            left = max(0.0, self._budget - self._used - (time.monotonic() - self._started))
            unit, name = (60, "min") if self._budget >= 120 else (1, "s")
            parts.append(f"{left / unit:.1f} of {self._budget / unit:g} {name} left (time_budget)")
        return "  ".join(parts) + f"\nto end it now, with what it has: touch {quote(str(stop))}"


def _bins(segment: Path) -> int:
    """Return the bins of a segment, finished or not."""
    if segment.suffix != ".part":
        return _stored(segment / "bins")
    try:
        return (segment / "Ener_scal").read_bytes().count(b"\n")
    except OSError:
        return 0


def _stored(file: Path) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0
