"""Models whose geometry is not installed here: named and compared, never solved."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict

from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.model.kinds import DEFAULT, kinds
from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.terms import Terms


class AbsentModel(Model):
    """What a file says, whatever it means."""

    model_config = ConfigDict(extra="allow")

    state: Any = None
    observables: Any = ()
    numerics: Any = None

    def terms(self) -> Terms:
        """Raise OrchestraError: only the geometry knows."""
        raise OrchestraError(
            f"the geometry `{self.model}` is not installed here; there are: {', '.join(kinds())}"
        )

    def to_data(self) -> dict[str, Any]:
        """Return what was said."""
        return self.model_dump(mode="json", exclude={"numerics"}, exclude_unset=True)


def is_absent(data: dict[str, Any]) -> bool:
    """Return whether the geometry of a model file is not installed here."""
    return str(data.get("model", DEFAULT)) not in kinds()
