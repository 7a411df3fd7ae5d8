"""What the progress events of a DMRG engine mean, as lines for people."""

from __future__ import annotations

from typing import Any

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


def progress_line(event: dict[str, Any]) -> str:
    """Return the line of one event; sweeps of the proof carry the name of their part."""
    if event["step"] in _LINES:
        return _LINES[event["step"]].format(**event)
    return f"{event['step']}: sweep {event['sweep'] + 1}  E = {event['energy']:.10f}"
