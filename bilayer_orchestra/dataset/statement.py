"""What a dataset states of its errors: whether there is noise, and which systematic errors.

*None* is a statement, too (exact diagonalization: rounding, bounded by residual and gap); silence
is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bilayer_orchestra.engines.registry import ENGINES

if TYPE_CHECKING:
    import xarray as xr

STOCHASTIC, SYSTEMATICS, NONE = "stochastic", "systematics", "none"
#: Stands for the errors of a dataset that states none.
NOT_STATED = "errors that are not stated"


def statement(stochastic: bool, systematics: Sequence[str]) -> dict[str, Any]:
    """Return the attributes of a dataset that state its errors."""
    return {STOCHASTIC: int(stochastic), SYSTEMATICS: ", ".join(systematics) or NONE}


def complete(dataset: xr.Dataset) -> None:
    """State the errors of a dataset from before they were: as the engine that wrote it does."""
    engine = ENGINES.get(str(dataset.attrs.get("backend", "")))
    if SYSTEMATICS not in dataset.attrs and engine is not None:
        dataset.attrs |= statement(engine.stochastic, engine.systematics)


def systematics_of(dataset: xr.Dataset) -> tuple[str, ...] | None:
    """Return the names of the systematic errors; None if the dataset states nothing."""
    text = dataset.attrs.get(SYSTEMATICS)
    if text is None:
        return None
    return () if text == NONE else tuple(str(text).split(", "))


def is_stochastic(dataset: xr.Dataset) -> bool:
    """Return whether the averages have statistical errors, as the dataset states or shows."""
    shown = any(str(name).endswith("_stderr") for name in dataset.data_vars)
    return bool(dataset.attrs.get(STOCHASTIC, shown))
