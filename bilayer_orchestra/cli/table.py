"""The table that ``orchestra run`` prints."""

from __future__ import annotations

import numpy as np
import xarray as xr
from rich.markup import escape
from rich.table import Table

from bilayer_orchestra.dataset.parameters import model_data, parameters

ENERGIES = ("energy", "kinetic_energy", "interaction_energy", "total_energy")


def result_table(dataset: xr.Dataset, reused: bool) -> Table:
    """Return energies, densities, double occupancy and the convergence of one result."""
    table = Table(show_header=False, title=None, pad_edge=False, box=None)
    table.add_column("quantity", no_wrap=True)
    table.add_column("value")
    attributes = dataset.attrs
    stored = f" (stored {attributes['created']})" if reused else ""
    table.add_row("model", f"{attributes['model_name']}, {attributes['ensemble']}{stored}")
    values = parameters(model_data(dataset), attributes["backend"])
    table.add_row("parameters", escape(values))
    table.add_row("engine", f"{attributes['engine']} [{attributes['backend']}]".replace("[", r"\["))
    for name in ENERGIES:
        if name in dataset:
            table.add_row(name.replace("_", " "), with_uncertainty(dataset, name))
    if "density" in dataset:
        per_layer = dataset["density"].sum("spin").mean("x")
        table.add_row("density per site", _by_layer(per_layer))
    if "magnetization" in dataset:
        table.add_row("magnetization per site", _by_layer(dataset["magnetization"].mean("x")))
    if "double_occupancy" in dataset:
        table.add_row("double occupancy per site", _by_layer(dataset["double_occupancy"].mean("x")))
    for name, form in (
        ("bond_dimension", "{:.0f}"),
        ("discarded_weight", "{:.1e}"),
        ("energy_variance", "{:.1e}"),
        ("gap", "{:.6g}"),
    ):
        if name in dataset and not np.isnan(value := float(dataset[name])):
            shown = form.format(value) if np.isfinite(value) else "none, there is one level only"
            table.add_row(name.replace("_", " "), shown)
    if "tuning_cost" in dataset:
        cost = float(dataset["tuning_cost"])
        table.add_row("wished density per site", _by_layer(dataset["target_density"]))
        table.add_row("chemical potential", tuned_potentials(dataset))
        table.add_row(
            "search",
            f"{dataset.sizes['step']} runs"
            + ("" if np.isnan(cost) else f", {cost:.1f} times the cost of the last"),
        )
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
    return "  ".join(
        f"{layer} {float(values.sel(layer=layer)):.6f}" for layer in values["layer"].values
    )
