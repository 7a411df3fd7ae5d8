"""What the DMRG engines share: ground states, sweeps, truncation as the error that is left."""

from pathlib import Path
from typing import Any

from typing_extensions import TypeVar

from bilayer_orchestra.averages import Averages
from bilayer_orchestra.engine_side.files import OUTPUT, load_arrays, new_events
from bilayer_orchestra.engines.base import Engine, Request
from bilayer_orchestra.engines.dmrg.results import averages_from_stages, unit_of
from bilayer_orchestra.engines.dmrg.settings import DMRGNumerics

#: Those of every DMRG, and more of an engine's own.
Settings = TypeVar("Settings", bound=DMRGNumerics, default=Any)
#: Bond dimensions of the first runs of a search.
CHEAP_BOND, FIRST_CHEAP_BOND = 60, 30
#: What is said of an event, by its step; sweeps of the proof carry the name of their part.
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


class DMRGEngine(Engine[Settings]):
    """An engine whose process leaves stages of growing bond dimension in ``output.npz``."""

    ensembles = ("canonical",)
    stochastic = False
    systematics = ("truncation",)

    def __init__(self) -> None:
        #: How much of the events of each job was read, and the jobs that said something.
        self._places: dict[Path, int] = {}
        self._begun: set[Path] = set()

    def cheaper(self, settings: Settings, effort: float) -> Settings | None:
        """Return a small bond dimension without proof; what it gets wrong, later runs put right."""
        if settings.max_bond_dimension <= CHEAP_BOND:
            return None
        return settings.model_copy(
            update={
                "max_bond_dimension": CHEAP_BOND,
                "initial_bond_dimension": min(settings.initial_bond_dimension, FIRST_CHEAP_BOND),
                "discarded_weight": max(settings.discarded_weight, 1e-9),
                "energy_accuracy": max(settings.energy_accuracy, 1e-3),
                "proof": False,
            }
        )

    def may_begin_from_state(self, settings: Settings) -> bool:
        """Return whether the search proves its state."""
        return settings.proof

    def first_words(self) -> str:
        """Return what is said before the first event."""
        return "first sweep"

    def progress(self, directory: Path, request: Request[Settings]) -> list[str]:
        """Return every new sweep and stage, or what comes before the first."""
        first = directory not in self._places  # whose events are those of an earlier attempt
        events = new_events(directory, self._places)
        lines = [_line(event, unit_of(request.terms)) for event in events]
        if lines and not first:
            self._begun.add(directory)
        return lines if directory in self._begun else [self.first_words()]

    def parse(self, directory: Path, request: Request[Settings]) -> Averages:
        """Read ``output.npz``."""
        output = load_arrays(directory / OUTPUT)
        return averages_from_stages(output, request.terms, request.numerics)


def _line(event: dict[str, Any], unit: float) -> str:
    """Return the line of one event, whose energies are in units of ``unit``."""
    powers = {"energy": unit, "variance": unit**2}
    event = event | {name: event[name] * powers[name] for name in powers if name in event}
    if event["step"] in _LINES:
        return _LINES[event["step"]].format(**event)
    return f"{event['step']}: sweep {event['sweep'] + 1}  E = {event['energy']:.10f}"
