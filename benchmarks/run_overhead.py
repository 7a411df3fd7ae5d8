"""Whole-process time of ``orchestra run`` against the same block2 calls written by hand.

The peer is a script that makes the very calls of the engine (same sweeps, same measurements) in one
process and saves the numbers with numpy; the difference is what the orchestrator costs: checking,
directories, checkpoints, labelling, table. Prints every pair. With several lengths of the example
it separates what every run pays from what grows with the run, by a line through the medians.

    python benchmarks/run_overhead.py --pairs 3 --lengths 4 8 12
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

from bilayer_orchestra.engines.registry import get_engine
from bilayer_orchestra.machine import thread_environment
from bilayer_orchestra.model.spec import load_model
from bilayer_orchestra.running.point import make_request

EXAMPLE = Path(__file__).parents[1] / "examples" / "bilayer.yaml"

#: The same calls without checkpoints, progress, run directory, dataset or table.
DIRECT = """
import sys
from pathlib import Path
from bilayer_orchestra.engines.block2 import process as engine
engine.Block2Search._keep = lambda *a: None
engine.Block2Search.report = lambda *a, **k: None
engine.run(Path(sys.argv[1]))
"""


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """Wall time of one whole process."""
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **environment})
    return time.perf_counter() - started


def pair(model: Path) -> tuple[float, float]:
    """Seconds of ``orchestra run`` and of the direct calls, one after the other."""
    job = get_engine("block2").render(make_request(load_model(model), get_engine("block2")))
    with tempfile.TemporaryDirectory() as name:
        for file, text in job.files.items():
            (Path(name) / file).write_text(text)
        direct = seconds([sys.executable, "-c", DIRECT, name], thread_environment(1))
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "bilayer_orchestra.cli.main", "run", str(model)]
        whole = seconds([*command, "-b", "block2", "-o", name], {})
    return whole, direct


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--lengths", type=int, nargs="+", default=[8])
    arguments = parser.parse_args()
    example = yaml.safe_load(EXAMPLE.read_text())
    times, costs = [], []
    for length in arguments.lengths:
        with tempfile.TemporaryDirectory() as name:
            model = Path(name) / "model.yaml"
            electrons = round(3 * length / 8)  # the example's density
            state = {"n_up": electrons, "n_down": electrons}
            model.write_text(yaml.safe_dump({**example, "length": length, "state": state}))
            pairs = []
            for number in range(arguments.pairs):
                whole, direct = pair(model)
                pairs.append((whole - direct, direct))
                print(
                    f"L = {length} pair {number + 1}: "
                    f"orchestra {whole:6.2f} s  direct {direct:6.2f} s  "
                    f"difference {whole - direct:+.2f} s  ratio {whole / direct:.3f}",
                    flush=True,
                )
        costs.append(statistics.median(cost for cost, _ in pairs))
        times.append(statistics.median(direct for _, direct in pairs))
        print(f"L = {length} median: difference {costs[-1]:+.2f} s on {times[-1]:.1f} s")
    if len(times) > 1:
        slope, fixed = np.polyfit(times, costs, 1)
        print(f"fixed part {fixed:+.2f} s, growing part {100 * slope:+.2f} %")


if __name__ == "__main__":
    main()
