"""What the progress events of a DMRG engine mean, as lines for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bilayer_orchestra.engine_side.files import new_events

_LINES = {
    "sweep": (
        "sweep {sweep:2d}  E = {energy:.10f}  bond dimension {bond}  "
        "discarded {discarded_weight:.1e}  {seconds:.1f} s"
    ),
    "stage": "measured at bond dimension {bond}  variance {variance:.1e}",
    "resumed": "resumed after sweep {sweep}",
    "discarded": "begins anew: the checkpoint is not used: {problem}",
    "begun": "begins from the state of another run",
    "ignored": "the state of another run is not used: {problem}",
}


class Sweeps:
    """Every sweep and stage of every job once, and what is said before the first."""

    def __init__(self) -> None:
        self._places: dict[Path, int] = {}
        self._silent: set[Path] = set()

    def lines(self, directory: Path, first_words: str, unit: float) -> list[str]:
        """Return the new lines; see :meth:`bilayer_orchestra.engines.base.Engine.progress`.

        Engines report energies in units of ``unit``.
        """
        begins = directory not in self._places
        lines = [_line(event, unit) for event in new_events(directory, self._places)]
        if begins:
            self._silent.add(directory)
        elif lines:
            self._silent.discard(directory)
        return [first_words] if directory in self._silent else lines


def _line(event: dict[str, Any], unit: float) -> str:
    """Return the line of one event; sweeps of the proof carry the name of their part."""
    powers = {"energy": unit, "variance": unit**2}
    event = event | {name: event[name] * powers[name] for name in powers if name in event}
    if event["step"] in _LINES:
        return _LINES[event["step"]].format(**event)
    return f"{event['step']}: sweep {event['sweep'] + 1}  E = {event['energy']:.10f}"
