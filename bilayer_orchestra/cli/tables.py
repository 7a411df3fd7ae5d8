"""The tables that the commands print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from rich.markup import escape
from rich.table import Table

from bilayer_orchestra.dataset.parameters import model_data, parameters

if TYPE_CHECKING:
    from bilayer_orchestra.checking.identities import Identity
    from bilayer_orchestra.checking.verdict import PairVerdict
    from bilayer_orchestra.running.directory import RunDirectory

ENERGIES = ("energy", "kinetic_energy", "interaction_energy", "total_energy")


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
    for name in ENERGIES:
        if name in dataset:
            table.add_row(name.replace("_", " "), with_uncertainty(dataset, name))
    if "density" in dataset:
        per_site = dataset["density"].sum("spin", skipna=False)  # a label that no site has is NaN
        table.add_row("density per site", _by_layer(per_site.mean(per_site.dims[1:])))
    for name in ("magnetization", "double_occupancy"):
        if name in dataset:
            words = name.replace("_", " ")
            per_site = dataset[name].mean(dataset[name].dims[1:])
            table.add_row(f"{words} per site", _by_layer(per_site))
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
    """Return the values over their one dimension, which a geometry may call otherwise."""
    (dim,) = values.dims
    return "  ".join(f"{one} {float(values.sel({dim: one})):.6f}" for one in values[dim].values)


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


def verdict_table(verdict: PairVerdict) -> Table:
    """Return one row per observable."""
    table = plain_table(
        *("observable", "verdict", "p", "chi2/dof", "worst", "pull", "systematic"),
        *("up to", "would notice", "why"),
    )
    for finding in verdict.findings:
        test = finding.test
        if test is None:
            table.add_row(finding.name, finding.word, *[""] * 7, finding.reason)
            continue
        named = ", ".join(
            f"{what.split(' (')[0]} {size:.1g}"
            for what, size in finding.systematics.items()
            if size > 1e-12
        )
        table.add_row(
            finding.name,
            finding.word,
            f"{finding.corrected_p:.2g}",
            f"{test.chi2:.2f} ({test.modes})" if test.modes else "",
            _site_label(finding.worst_label) if test.pulls[test.worst] else "",
            f"{test.pulls[test.worst]:+.1f}",
            named,
            "" if finding.distance is None else str(max(finding.distance, 0)),
            f"{100 * finding.detectable:.2g} %",
            "" if finding.word == "agree" else finding.reason,
        )
    return table


def _site_label(label: str) -> str:
    """Shorten ``spin=up layer=P x=0 layer_=M x_=3`` to ``up P0 M3``."""
    text = ""
    for part in label.split():
        key, _, value = part.partition("=")
        text += value if key in ("x", "x_") else f" {value}"
    return text.strip()


def identity_table(identities: list[Identity]) -> Table:
    """Return one row per identity."""
    table = plain_table("identity", "outcome", "detail")
    for identity in identities:
        table.add_row(identity.name, identity.outcome, identity.detail)
    return table
