"""Models that many tests share."""

from __future__ import annotations

from typing import Any

from bilayer_orchestra.model.spec import Model


def make_model(state: dict[str, Any], length: int = 4, **changes: Any) -> Model:
    """Return a bilayer with U_P = -4, t_M = 1, t_perp = 0.5 and the given changes.

    ``P`` and ``M`` update a layer; every other key replaces one of the file.
    """
    data: dict[str, Any] = {
        "version": 1,
        "name": "test",
        "model": "bilayer",
        "length": length,
        "boundary": "open",
        "layers": {
            "P": {"hopping": 0.0, "interaction": -4.0, "chemical_potential": 0.0},
            "M": {"hopping": 1.0, "interaction": 0.0, "chemical_potential": 0.0},
        },
        "t_perp": 0.5,
        "state": state,
    }
    for layer in ("P", "M"):
        data["layers"][layer] |= changes.pop(layer, {})
    return Model.model_validate(data | changes)
