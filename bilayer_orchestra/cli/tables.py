"""The tables that the commands print, and what must be read beside them."""

import itertools
from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np
import xarray as xr
from rich.markup import escape
from rich.table import Table

from bilayer_orchestra.dataset.reading import model_data, parameters
from bilayer_orchestra.fits.datasets import rounded
from bilayer_orchestra.running.directory import RunDirectory
from bilayer_orchestra.study.axes import shown

_FORM = {"bond_dimension": ".0f", "discarded_weight": ".1e", "energy_variance": ".1e", "gap": ".6g"}
#: A limit of more elements than this is not printed.
_PRINTED = 40
_INPUT = {1: "converged", 0: "NOT converged", -1: "?"}
#: Fitted numbers -> their headings.
_SHOWN = {"eta": "eta", "K": "K", "xi": "xi", "power": "power", "wave_vector": "q"}


def plain_table(*headings: str) -> Table:
    """Return a table without lines."""
    return Table(*headings, box=None, pad_edge=False)


def result_table(dataset: xr.Dataset, reused: bool) -> Table:
    """Return energies, densities, double occupancy and the convergence of one result."""
    table = plain_table("quantity", "value")
    table.show_header, table.columns[0].no_wrap = False, True
    attributes = dataset.attrs
    stored = f" (stored {attributes['created']})" if reused else ""
    table.add_row("model", f"{attributes['model_name']}, {attributes['ensemble']}{stored}")
    values = parameters(model_data(dataset), attributes["backend"])
    table.add_row("parameters", escape(values))
    table.add_row("engine", f"{attributes['engine']} [{attributes['backend']}]".replace("[", r"\["))
    for name in ("energy", "kinetic_energy", "interaction_energy", "total_energy"):
        if name in dataset:
            table.add_row(name.replace("_", " "), with_uncertainty(dataset, name))
    for name in ("density", "magnetization", "double_occupancy"):
        if name in dataset:
            table.add_row(f"{name.replace('_', ' ')} per site", _by_layer(dataset[name]))
    for name, form in _FORM.items():
        if name in dataset and not np.isnan(value := float(dataset[name])):
            shown = f"{value:{form}}" if np.isfinite(value) else "none, there is one level only"
            table.add_row(name.replace("_", " "), shown)
    if "tuning_cost" in dataset:
        cost = float(dataset["tuning_cost"])
        table.add_row("wished density per site", _by_layer(dataset["target_density"]))
        table.add_row("chemical potential", tuned_potentials(dataset))
        factor = "" if np.isnan(cost) else f", {cost:.1f} times the cost of the last"
        table.add_row("search", f"{dataset.sizes['step']} runs{factor}")
    verdict = "yes" if attributes["converged"] else "NO"
    table.add_row("converged", f"{verdict}: {attributes['converged_reason']}")
    return table


def with_uncertainty(dataset: xr.Dataset, name: str) -> str:
    """Return ``value +- stderr (bias ...)`` of a scalar."""
    text = f"{float(dataset[name]):.10f}"
    if f"{name}_stderr" in dataset:
        text = f"{float(dataset[name]):.6f} +- {float(dataset[f'{name}_stderr']):.6f}"
    bias = float(dataset[f"{name}_bias"])
    return text if np.isnan(bias) else f"{text}  (bias {bias:.1e})"


def tuned_potentials(dataset: xr.Dataset) -> str:
    """Return the tuned chemical potentials with their uncertainties."""
    texts = []
    for layer in dataset["layer"].values:
        value = float(dataset["chemical_potential"].sel(layer=layer))
        error = float(dataset["chemical_potential_uncertainty"].sel(layer=layer))
        shown = " (uncertainty not estimated)" if np.isnan(error) else f" +- {error:.1e}"
        texts.append(f"{layer} {value:.8g}{shown if error else ''}")
    return "  ".join(texts)


def _by_layer(values: xr.DataArray) -> str:
    """Return the means over all but the first dimension of the sites, and the sum of both spins."""
    if "spin" in values.dims:
        values = values.sum("spin", skipna=False)  # a label that no site has is NaN
    dim, *others = values.dims
    means = values.mean(others)
    return "  ".join(f"{one} {float(means.sel({dim: one})):.6f}" for one in means[dim].values)


def status_table(runs: list[RunDirectory], states: Mapping[str, tuple[str, str]]) -> Table:
    """Return one row per run.

    Parameters
    ----------
    states : mapping
        Name of a run -> its state and its message.
    """
    table = plain_table("run", "state", "since", "parameters", "message")
    for run in runs:
        state, message = states[run.path.name]
        record = run.record()
        since = (record.ended or record.started or "") if record else ""
        values = parameters(run.model_data(), record.backend if record else None)
        first_line = message.partition("\n")[0]
        table.add_row(escape(run.path.name), state, since, escape(values), escape(first_line))
    return table


def fit_table(one: xr.Dataset, kind: str) -> Table:
    """Return one line per layer and point."""
    names = [name for name in _SHOWN if f"{kind}_{name}" in one]
    dims = " ".join(str(dim) for dim in one[f"{kind}_status"].dims)
    short = [_SHOWN[name] for name in names]
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
    positions = [[one.item() for one in dataset[dim]] for dim in dims]
    for labels in itertools.product(*positions):
        row = dataset.sel(dict(zip(dims, labels, strict=True)))
        yield " ".join(map(shown, labels)), row
