"""``orchestra extrapolate``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import typer
import xarray as xr
from rich.table import Table

from bilayer_orchestra.analysis.limits import MODELS, extrapolate
from bilayer_orchestra.cli.fitting import quantity
from bilayer_orchestra.dataset.schema import append_history, open_result, write_atomic
from bilayer_orchestra.display.console import output_console
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.observables import COMPANION
from bilayer_orchestra.running.published import LIMIT, make_room, owner, refuse_own_source

#: More elements than this are not printed.
_PRINTED = 40


def extrapolate_command(
    result: Path, model: str, dim: str | None, names: list[str], output: Path | None
) -> None:
    """Extrapolate variables of a collected sweep; print what is small, leave limit.nc."""
    console = output_console()
    console.width = max(console.width, 110)
    dataset = open_result(result, ("a collected sweep",))
    target = output if output is not None else result.parent
    refuse_own_source(target / LIMIT[0], result)
    if model not in MODELS:
        raise OrchestraError(f"unknown model {model!r}; choose from {', '.join(MODELS)}")
    dim = dim or MODELS[model].dim
    names = names or [
        str(name)
        for name, variable in dataset.data_vars.items()
        if dim in variable.dims
        and variable.dtype.kind == "f"
        and "x" not in variable.dims
        and not COMPANION.search(str(name))
    ]
    limits = extrapolate(dataset, dim, model, names)
    table = Table("variable", "limit", "chi2/dof", box=None, pad_edge=False)
    for name in names:
        for label, row in _elements(limits, name):
            goodness = float(row[f"{name}_chi2_per_dof"])
            table.add_row(
                f"{name} {label}".strip(),
                quantity(row, name),
                f"{goodness:.2f}" if np.isfinite(goodness) else "-",
            )
    console.print(f"{MODELS[model].formula} over {dim}, {dataset.sizes[dim]} values", markup=False)
    console.print(table)
    console.print(
        "+- statistical, ~ change without the point farthest from the limit; -: not determined by "
        "these points",
        markup=False,
    )
    limits.attrs = {
        key: dataset.attrs[key]
        for key in ("model", "model_name", "study_name", "run", "history")
        if key in dataset.attrs
    } | {"orchestra_limit_schema": 1}
    append_history(limits, f"extrapolated {', '.join(names)} over {dim} ({model})")
    make_room(target, LIMIT, owner(limits), typer.echo)
    write_atomic(limits, target / "limit.nc")
    console.print(f"limits   {target / 'limit.nc'}", markup=False, highlight=False, soft_wrap=True)


def _elements(limits: xr.Dataset, name: str) -> list[tuple[str, xr.Dataset]]:
    variable = limits[name]
    if variable.size > _PRINTED:
        return []
    if not variable.dims:
        return [("", limits)]
    stacked = limits[[n for n in limits.data_vars if str(n).startswith(name)]]
    stacked = stacked.stack(element=variable.dims)
    result = []
    for k in range(stacked.sizes["element"]):
        row = stacked.isel(element=k)
        result.append((" ".join(str(row[d].item()) for d in variable.dims if d in row.coords), row))
    return result
