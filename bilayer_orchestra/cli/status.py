"""``orchestra status``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from bilayer_orchestra.dataset.parameters import parameters
from bilayer_orchestra.display.console import output_console
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.running.directory import find_runs
from bilayer_orchestra.running.queued import known_states


def status_command(directory: Path) -> None:
    """Print the state of every run below ``directory``."""
    runs = find_runs(directory)
    if directory.is_file():
        raise OrchestraError(f"{directory} is a file; name the directory of a run, or of runs")
    if not runs:
        raise OrchestraError(f"there are no runs in {directory}")
    table = Table("run", "state", "since", "parameters", "message", box=None, pad_edge=False)
    states = known_states({run.path.name: run for run in runs})
    for run in runs:
        state, message = states[run.path.name]
        record = run.record()
        since = (record.ended or record.started or "") if record else ""
        first_line = message.splitlines()[0] if message else ""
        values = parameters(run.model_data(), record.backend if record else None)
        table.add_row(escape(run.path.name), state, since, escape(values), escape(first_line))
    console = output_console()
    console.print(table)
    for run in runs:
        state, message = states[run.path.name]
        if state == "failed" and "\n" in message:
            console.print(f"\n{run.path.name}: {message}", markup=False, soft_wrap=True)
    counts = Counter(state for state, _ in states.values())
    console.print(", ".join(f"{number} {state}" for state, number in sorted(counts.items())))
