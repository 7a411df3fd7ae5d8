"""``orchestra fit``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import typer
import xarray as xr
from rich.table import Table

from bilayer_orchestra.cli.exit_codes import ExitCode
from bilayer_orchestra.dataset.parameters import model_data, parameters
from bilayer_orchestra.dataset.schema import open_result, write_atomic
from bilayer_orchestra.display.console import output_console
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.fits.datasets import fit, rounded
from bilayer_orchestra.fits.options import Options, check_request
from bilayer_orchestra.observables import FITTED
from bilayer_orchestra.plots.try_to_draw import check_style, try_to_draw
from bilayer_orchestra.running.published import FITS, make_room, owner, refuse_own_source

_SHORT = {"wave_vector": "q"}
_INPUT = {1: "converged", 0: "NOT converged", -1: "?"}
_SHOWN = ("eta", "K", "xi", "power", "wave_vector")


def fit_command(
    result: Path,
    what: list[str],
    layers: list[str] | None,
    output: Path | None,
    boundary: str | None,
    beta: float | None,
    convention: str,
    options: Options,
    plot: bool,
    style: Path | None,
) -> None:
    """Fit correlations of one file; print a table, leave fit.nc and fit.png.

    A kind that cannot be fitted does not stop the others; asked for by name, it ends with 1.
    """
    console = output_console()
    # the table is read as a whole: a pipe or a narrow terminal must not cut it into columns
    console.width = max(console.width, 110)
    check_style(style)
    dataset = open_result(result)
    target = output if output is not None else result.parent
    refuse_own_source(target / FITS[0], result)
    kinds = list(dict.fromkeys(what)) or [k for k in FITTED if FITTED[k] in dataset]
    check_request(dataset, kinds, layers or [], boundary, beta, convention, options)
    if options.power is not None and "green" not in kinds:
        raise OrchestraError(f"power = {options.power:g}: only the fit of green has a power")

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    say(f"{result}: {dataset.attrs.get('model_name', '')}, {parameters(model_data(dataset))}")
    fitted: list[xr.Dataset] = []
    for kind in kinds:
        try:
            one = fit(
                dataset,
                kind,
                layers,
                boundary=boundary,
                beta=beta,
                convention=convention,
                options=options,
            )
        except OrchestraError as error:
            say(f"no fit: {error}")
            continue
        fitted.append(one)
        console.print(fit_table(one, kind))
        for line in remarks(one, kind):
            say(line)
    if not fitted:
        raise OrchestraError(f"nothing in {result} could be fitted")
    if len({one.sizes["window"] for one in fitted}) > 1:
        longest = max(one.sizes["window"] for one in fitted)
        fitted = [_padded(one, longest) for one in fitted]
    merged = xr.merge(fitted, join="outer", combine_attrs="override", compat="override")
    make_room(target, FITS, owner(merged), say)
    write_atomic(merged, target / "fit.nc")
    say(f"fits     {target / 'fit.nc'}")

    def picture() -> Path | None:
        from bilayer_orchestra.plots.fitted import draw_fits

        return draw_fits(merged, target / "fit.png", style)

    drawn = try_to_draw(picture, say) if plot else None
    if drawn:
        say(f"picture  {drawn}")
    else:  # one of other options would be taken for that of these
        (target / "fit.png").unlink(missing_ok=True)
    if what and len(fitted) < len(kinds):
        raise typer.Exit(ExitCode.FAILED)


def _padded(one: xr.Dataset, size: int) -> xr.Dataset:
    missing = size - one.sizes["window"]
    if not missing:
        return one
    variables = {}
    for name, original in one.data_vars.items():
        variable = original
        if "window" in variable.dims:
            fill: Any = "" if variable.dtype.kind in "OU" else np.nan
            variable = variable.pad(window=(0, missing), constant_values=fill)
            if fill == "":
                variable = variable.astype(str)
        variables[name] = variable
    return xr.Dataset(variables, one.drop_dims("window").coords, one.attrs)


def _rows(one: xr.Dataset, kind: str) -> list[tuple[str, xr.Dataset]]:
    """Return (label, row) of every layer and point."""
    dims = list(one[f"{kind}_status"].dims)
    stacked = one.stack(row=dims)
    rows = []
    for k in range(stacked.sizes["row"]):
        row = stacked.isel(row=k)
        label = " ".join(
            f"{row[dim].item():g}" if isinstance(row[dim].item(), float) else str(row[dim].item())
            for dim in dims
            if dim in row.coords
        )
        rows.append((label, row))
    return rows


def fit_table(one: xr.Dataset, kind: str) -> Table:
    """Return one line per layer and point."""
    names = [name for name in _SHOWN if f"{kind}_{name}" in one]
    dims = " ".join(str(dim) for dim in one[f"{kind}_status"].dims)
    table = Table(
        f"{kind}: {dims}",
        *(_SHORT.get(name, name) for name in names),
        "window",
        "chi2/dof",
        "moves",
        "input",
        box=None,
        pad_edge=False,
    )
    for label, row in _rows(one, kind):
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
            *[quantity(row, f"{kind}_{name}") for name in names],
            f"{row[f'{kind}_r_min'].item():.0f} .. {row[f'{kind}_r_max'].item():.0f}"
            + (ends if row[f"{kind}_edge"].item() > 1 else ""),
            f"{row[f'{kind}_chi2_per_dof'].item():.2f}",
            moves,
            _INPUT[int(row[f"{kind}_input_converged"].item())],
        )
    return table


def quantity(row: xr.Dataset, name: str) -> str:
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
    for label, row in _rows(one, kind):
        if row[f"{kind}_status"].item() != "ok":
            seen.setdefault(row[f"{kind}_status"].item(), []).append(label)
            continue
        seen.setdefault(f"weights: {row[f'{kind}_weights'].item()}", []).append(label)
        for warning in filter(None, row[f"{kind}_warnings"].item().split("; ")):
            seen.setdefault(warning, []).append(label)
    return lines + [f"{', '.join(labels)}: {text}" for text, labels in seen.items()]
