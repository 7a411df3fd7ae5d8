"""The models that an engine is tested with: small enough for dense matrices."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, Literal

from bilayer_orchestra.model.spec import Model

#: ``solved``: an engine solves it, or says before that it cannot and the test declares that;
#: ``degenerate``: what is called converged is right; ``extreme``: solved, or refused in words.
Kind = Literal["solved", "degenerate", "extreme"]

_BASE: dict[str, Any] = {
    "version": 1,
    "name": "kit",
    "model": "bilayer",
    "length": 3,
    "boundary": "open",
    "layers": {
        "P": {"hopping": 0.2, "interaction": -4.0},
        "M": {"hopping": 1.0, "interaction": 0.0},
    },
    "t_perp": 0.7,
    "state": {"n_up": 2, "n_down": 2},
}


@dataclass(frozen=True)
class Case:
    """One model of the kit.

    Parameters
    ----------
    name : str
        By which a test class declares it refused or slow.
    kind : str
        What is expected of an engine.
    changes : dict
        Values that differ from those of the base model; sections are merged.
    """

    name: str
    kind: Kind = "solved"
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def thermal(self) -> bool:
        """Whether it asks for a thermal state."""
        return "beta" in self.changes.get("state", {})

    def model(self, numerics: dict[str, Any] | None = None) -> Model:
        """Return the model with these settings, engine by engine."""
        data = copy.deepcopy(_BASE)
        for key, value in self.changes.items():
            if key == "layers":
                for layer, couplings in value.items():
                    data["layers"][layer] |= couplings
            else:
                data[key] = value
        return Model.model_validate(data | ({"numerics": numerics} if numerics else {}))


def _ground(n_up: int, n_down: int) -> dict[str, int]:
    return {"n_up": n_up, "n_down": n_down}


_ATOMS = {"P": {"hopping": 0.0}}
_HEAVY = {
    "layers": {"P": {"hopping": 0.0, "interaction": -8.0}},
    "t_perp": 0.2,
    "state": _ground(1, 1),
}

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Case("open"),
        Case("periodic", changes={"boundary": "periodic", "state": _ground(3, 3)}),
        Case("polarized", changes={"state": _ground(3, 1)}),
        Case("polarized ring", changes={"boundary": "periodic", "state": _ground(4, 1)}),
        Case(
            "potentials",
            changes={
                "layers": {"P": {"chemical_potential": -1.1}, "M": {"chemical_potential": 0.7}}
            },
        ),
        Case("repulsive", changes={"layers": {"M": {"interaction": 2.0}}, "state": _ground(3, 3)}),
        Case("thermal", changes={"length": 2, "state": {"beta": 2.0}}),
        Case(
            "thermal ring",
            changes={
                "length": 2,
                "boundary": "periodic",
                "layers": {"P": {"chemical_potential": -1.5}, "M": {"chemical_potential": 0.3}},
                "state": {"beta": 3.0},
            },
        ),
        Case("isolated sites", "degenerate", {"layers": _ATOMS, "t_perp": 0.0}),
        Case("momentum", "degenerate", {"boundary": "periodic", "state": _ground(2, 1)}),
        # gaps of 2e-6 and 1.6e-4
        Case("nearly degenerate", "degenerate", _HEAVY | {"length": 2}),
        Case("small gap", "degenerate", _HEAVY),
        Case("empty", "extreme", {"state": _ground(0, 0)}),
        Case("full", "extreme", {"state": _ground(6, 6)}),
        Case("one electron", "extreme", {"state": _ground(1, 0)}),
        Case("one rung", "extreme", {"length": 1, "state": _ground(1, 1)}),
        Case("two rungs", "extreme", {"length": 2, "state": _ground(1, 1)}),
    )
}
