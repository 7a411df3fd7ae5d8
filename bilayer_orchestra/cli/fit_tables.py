"""The tables of fitted and of extrapolated numbers, and what must be read beside them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import numpy as np
import xarray as xr
from rich.table import Table

from bilayer_orchestra.cli.tables import plain_table
from bilayer_orchestra.fits.datasets import rounded
from bilayer_orchestra.study.axes import shown

#: A limit of more elements than this is not printed.
_PRINTED = 40

_SHORT = {"wave_vector": "q"}
_INPUT = {1: "converged", 0: "NOT converged", -1: "?"}
_SHOWN = ("eta", "K", "xi", "power", "wave_vector")


def fit_table(one: xr.Dataset, kind: str) -> Table:
    """Return one line per layer and point."""
    names = [name for name in _SHOWN if f"{kind}_{name}" in one]
    dims = " ".join(str(dim) for dim in one[f"{kind}_status"].dims)
    short = [_SHORT.get(name, name) for name in names]
    table = plain_table(f"{kind}: {dims}", *short, "window", "chi2/dof", "moves", "input")
    for label, row in _rows(one, one[f"{kind}_status"].dims):
        if row[f"{kind}_status"].item() != "ok":
            table.add_row(label, *["-"] * (len(names) + 4))
            continue
        main = "eta" if f"{kind}_eta" in row else "inverse_xi"
        scan = row[f"{kind}_scan_{main}"].values
        heavy = row[f"{kind}_scan_weight"].values > 0.01
        moves = f"{main} {np.nanmin(scan[heavy]):.4g} .. {np.nanmax(scan[heavy]):.4g}"
        ends = f", {row[f'{kind}_edge'].item():.0f} from ends"
        table.add_row(
            label,
            *[_quantity(row, f"{kind}_{name}") for name in names],
            f"{row[f'{kind}_r_min'].item():.0f} .. {row[f'{kind}_r_max'].item():.0f}"
            + (ends if row[f"{kind}_edge"].item() > 1 else ""),
            f"{row[f'{kind}_chi2_per_dof'].item():.2f}",
            moves,
            _INPUT[int(row[f"{kind}_input_converged"].item())],
        )
    return table


def limit_table(limits: xr.Dataset, names: Sequence[str]) -> Table:
    """Return one line per variable and element; those of many elements are left out."""
    table = plain_table("variable", "limit", "chi2/dof")
    for name in names:
        if limits[name].size > _PRINTED:
            continue
        own = limits[[n for n in limits.data_vars if str(n).startswith(name)]]
        for label, row in _rows(own, limits[name].dims):
            goodness = float(row[f"{name}_chi2_per_dof"])
            chi2 = f"{goodness:.2f}" if np.isfinite(goodness) else "-"
            table.add_row(f"{name} {label}".strip(), _quantity(row, name), chi2)
    return table


def _quantity(row: xr.Dataset, name: str) -> str:
    """Return "value +- statistical ~ systematic" with as many digits as the errors deserve."""
    value, stderr, systematic = (
        float(row[f"{name}{suffix}"]) for suffix in ("", "_stderr", "_systematic")
    )
    if np.isnan(value):
        return "-"
    error = float(np.hypot(np.nan_to_num(stderr), np.nan_to_num(systematic)))
    text = rounded(value, error)
    if np.isfinite(stderr):
        text += f" +- {rounded(stderr, error)}"
    return f"{text} ~ {rounded(systematic, error)}"


def remarks(one: xr.Dataset, kind: str) -> list[str]:
    """Return what must be read beside the numbers."""
    lines = ["+- statistical, ~ systematic (windows and forms, truncation)"]
    if f"{kind}_K" in one:
        attributes = one[f"{kind}_K"].attrs
        lines.append(f"K ({attributes['convention']}): {attributes['definition']}")
    seen: dict[str, list[str]] = {}
    for label, row in _rows(one, one[f"{kind}_status"].dims):
        texts = [row[f"{kind}_status"].item()]
        if texts == ["ok"]:
            warnings = row[f"{kind}_warnings"].item().split("; ")
            texts = [f"weights: {row[f'{kind}_weights'].item()}", *filter(None, warnings)]
        for text in texts:
            seen.setdefault(text, []).append(label)
    return lines + [f"{', '.join(labels)}: {text}" for text, labels in seen.items()]


def _rows(dataset: xr.Dataset, dims: Sequence[Hashable]) -> Iterator[tuple[str, xr.Dataset]]:
    """Yield (label, row) of every element of what has ``dims``."""
    if not dims:
        yield "", dataset
        return
    stacked = dataset.stack(row=dims)
    for k in range(stacked.sizes["row"]):
        row = stacked.isel(row=k)
        yield " ".join(shown(row[dim].item()) for dim in dims if dim in row.coords), row
