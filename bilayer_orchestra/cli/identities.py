"""``orchestra check --identities``."""

from __future__ import annotations

from pathlib import Path

import xarray as xr
from rich.console import Console
from rich.table import Table

from bilayer_orchestra.checking.comparison import Word
from bilayer_orchestra.checking.identities import Identity, check_identities
from bilayer_orchestra.dataset.schema import open_result
from bilayer_orchestra.display.progress import progress
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.model.load import load_model
from bilayer_orchestra.running.choice import engine_for
from bilayer_orchestra.runtimes.local import LocalRuntime
from bilayer_orchestra.tuning.point import run_model


def identities_command(
    targets: list[Path],
    backends: str | None,
    output: Path | None,
    overrides: tuple[str, ...],
    console: Console,
) -> Word:
    """Test stored results, or what the named engines return for a model file."""
    words: list[Word] = []
    for label, dataset in _results(targets, backends, output, overrides, console):
        identities = check_identities(dataset)
        console.print(f"\n{label}", markup=False, highlight=False)
        console.print(identity_table(identities))
        words.append(word_of(identities, bool(dataset.attrs["converged"])))
        console.print(words[-1].upper(), markup=False, highlight=False)
    if "disagree" in words:
        return "disagree"
    return "undecided" if "undecided" in words else "agree"


def word_of(identities: list[Identity], converged: bool) -> Word:
    """Return disagree if anything is violated, undecided if something is not told or not done."""
    outcomes = {identity.outcome for identity in identities}
    if "violated" in outcomes:
        return "disagree"
    if "undecided" in outcomes or not converged:
        return "undecided"
    return "agree"


def identity_table(identities: list[Identity]) -> Table:
    """Return one row per identity."""
    table = Table("identity", "outcome", "detail", box=None, pad_edge=False)
    for identity in identities:
        table.add_row(identity.name, identity.outcome, identity.detail)
    return table


def _results(
    targets: list[Path],
    backends: str | None,
    output: Path | None,
    overrides: tuple[str, ...],
    console: Console,
) -> list[tuple[str, xr.Dataset]]:
    results = []
    for target in targets:
        if target.suffix == ".nc":
            dataset = open_result(target, ("a result",))
            results.append((f"{target} ({dataset.attrs['engine']})", dataset))
            continue
        model = load_model(target, overrides)
        names = backends.split(",") if backends else ["auto"]
        root = output if output is not None else Path("runs") / model.name
        with progress(console) as show:
            for name in names:
                engine = engine_for(model, name.strip())
                outcome = run_model(model, engine, LocalRuntime(), root, show)
                results.append((f"{model.name} with {engine.name}", outcome.dataset))
    if not results:
        raise OrchestraError("nothing to test")
    return results
