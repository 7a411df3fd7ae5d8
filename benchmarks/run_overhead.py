"""Whole-process time of ``orchestra run`` against the same block2 calls written by hand.

The peer is a script that makes the very calls of the engine (same sweeps, same measurements) in one
process and saves the numbers with numpy; the difference is what the orchestrator costs: checking,
directories, checkpoints, labelling, table. Prints each pair and the median ratio.

    python benchmarks/run_overhead.py [pairs]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bilayer_orchestra.backends.registry import get_backend
from bilayer_orchestra.machine import thread_environment
from bilayer_orchestra.model.load import load_model
from bilayer_orchestra.pipeline import make_request

MODEL = Path(__file__).parents[1] / "examples" / "bilayer.yaml"

#: The same calls without checkpoints, progress, run directory, dataset or table.
DIRECT = """
import sys
from pathlib import Path
from bilayer_orchestra.backends.block2 import engine
engine.save_checkpoint = lambda *a: None
engine.report = lambda *a, **k: None
engine.run(Path(sys.argv[1]))
"""


def seconds(command: list[str], environment: dict[str, str]) -> float:
    import os

    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **environment})
    return time.perf_counter() - started


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    backend = get_backend("block2")
    request = make_request(load_model(MODEL), backend)
    job = backend.render(request)
    differences, ratios = [], []
    for number in range(pairs):
        with tempfile.TemporaryDirectory() as name:
            place = Path(name)
            for file, text in job.files.items():
                (place / file).write_text(text)
            direct = seconds([sys.executable, "-c", DIRECT, name], thread_environment(1))
        with tempfile.TemporaryDirectory() as name:
            command = [sys.executable, "-m", "bilayer_orchestra.cli.main", "run", str(MODEL)]
            whole = seconds([*command, "-b", "block2", "-o", name], {})
        differences.append(whole - direct)
        ratios.append(whole / direct)
        print(
            f"pair {number + 1}: orchestra {whole:6.2f} s  direct {direct:6.2f} s  "
            f"difference {whole - direct:+.2f} s  ratio {whole / direct:.3f}",
            flush=True,
        )
    print(
        f"median: difference {statistics.median(differences):+.2f} s, "
        f"ratio {statistics.median(ratios):.3f}"
    )


if __name__ == "__main__":
    main()
