"""Processor time to equal energy accuracy: itensor, block2, and ITensorMPS written by hand.

All solve the same doped ladder (open, U_P = -4, t_M = 1) on one thread at the same largest bond
dimension. "strong" is a script with eigsolve_krylovdim = 10, eigsolve_maxiter = 3, "default" one
with ITensorMPS's own local solver (plain_dmrg.jl). Counted is the processor time after loading and
compiling until the first sweep whose energy is within a tolerance of the lowest that ours found.
Ours include their measurements and checkpoints, and come first: the scripts are stopped once they
are there. Prints seconds and ratios.

    python benchmarks/itensor_accuracy.py [rungs] [n_per_spin] [t_perp] [bond] [tolerances] [budget]

The budget is in processor seconds for each of them. Needs Linux.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bilayer_orchestra.engines.itensor.julia import find_julia
from bilayer_orchestra.engines.registry import get_engine
from bilayer_orchestra.machine import thread_environment
from bilayer_orchestra.model.spec import parse_model
from bilayer_orchestra.running.point import make_request

HERE = Path(__file__).parent
EVENTS = "progress.jsonl"
#: (processor seconds, energy) of every sweep
Course = list[tuple[float, float]]

MODEL = """
version: 1
name: ladder
model: bilayer
length: {rungs}
boundary: open
layers:
  P: {{hopping: 0.0, interaction: -4.0}}
  M: {{hopping: 1.0}}
t_perp: {t_perp}
state: {{n_up: {number}, n_down: {number}}}
numerics:
  {backend}: {{max_bond_dimension: {bond}, proof: false, threads: 1}}
"""

WARM_THEN_RUN = r"""
using OrchestraITensor
OrchestraITensor.run(ARGS[1])
write(joinpath(ARGS[2], "progress.jsonl"), "{\"step\": \"start\"}\n")
OrchestraITensor.run(ARGS[2])
"""


def processor_seconds(process: subprocess.Popen[bytes]) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def course(
    command: Sequence[str | Path], place: Path, budget: float, target: float = -math.inf
) -> Course:
    """Run ``command`` until it ends, is below ``target`` or spent its budget; read its events."""
    environment = {**os.environ, **thread_environment(1), **find_julia().environment}
    environment["JULIA_NUM_THREADS"] = "1"
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=place, env=environment, stdout=log, stderr=log)
        result: Course = []
        begin, text = None, ""
        events = place / EVENTS
        while True:
            ended = process.poll() is not None
            spent = result[-1][0] if ended and result else 0.0
            if not ended:
                spent = processor_seconds(process)
            fresh = events.read_text()[len(text) :] if events.exists() else ""
            for line in fresh.splitlines(keepends=True):
                if not line.endswith("\n"):
                    break
                text += line
                event = json.loads(line)
                if event["step"] == "sweep":
                    result.append((spent, event["energy"]))
            if begin is None and text:
                begin = spent
            if ended:
                break
            there = bool(result) and result[-1][1] < target
            if there or (begin is not None and spent - begin > budget):
                process.kill()
                process.wait()
                break
            time.sleep(0.02)
    if begin is None:
        raise SystemExit((place / "log").read_text())
    return [(seconds - begin, energy) for seconds, energy in result]


def job(text: str, backend_name: str, place: Path) -> Path:
    backend = get_engine(backend_name)
    request = make_request(parse_model(text), backend)
    place.mkdir()
    for file, content in backend.render(request).files.items():
        (place / file).write_text(content)
    return place


def report(label: str, steps: Course, lowest: float, tolerances: list[float], ours: Course) -> None:
    """Print the seconds to each tolerance, and their ratio to those of ``ours``."""

    def reached(course: Course, tolerance: float) -> float:
        return next((s for s, energy in course if energy < lowest + tolerance), math.inf)

    for tolerance in tolerances:
        seconds, reference = reached(steps, tolerance), reached(ours, tolerance)
        if math.isinf(seconds):
            best = min((energy for _, energy in steps), default=math.inf) - lowest
            after = steps[-1][0] if steps else 0.0
            text = f"not within {after:.0f} s, where it is {best:.1e} above"
        else:
            text = f"{seconds:.1f} s, {seconds / reference:.2f} times itensor's"
        print(f"{label:8s} to {tolerance:.0e}: {text}", flush=True)


def main() -> None:
    given = dict(enumerate(sys.argv))
    rungs, number = int(given.get(1, 16)), int(given.get(2, 12))
    t_perp, bond = float(given.get(3, 0.5)), int(given.get(4, 200))
    tolerances = sorted(map(float, given.get(5, "1e-3,1e-5").split(",")), reverse=True)
    budget = float(given.get(6, 300))
    julia = [find_julia().binary, "--startup-file=no"]

    def model(backend: str, rungs: int = rungs, number: int = number) -> str:
        return MODEL.format(rungs=rungs, number=number, t_perp=t_perp, bond=bond, backend=backend)

    print(f"{rungs} rungs, {number} + {number}, t_perp = {t_perp}, bond dimension {bond}")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        warm = job(model("itensor", 4, 3), "itensor", root / "warm")
        place = job(model("itensor"), "itensor", root / "itensor")
        ours = course([*julia, "-e", WARM_THEN_RUN, warm, place], place, budget)
        place = job(model("block2"), "block2", root / "block2")
        (place / EVENTS).write_text('{"step": "start"}\n')
        engine = [sys.executable, "-m", "bilayer_orchestra.engines.block2.process", "."]
        other = course(engine, place, budget)
        lowest = min(energy for _, energy in ours + other)
        print(f"lowest energy {lowest:.8f}; processor seconds to come near it:")
        report("itensor", ours, lowest, tolerances, ours)
        report("block2", other, lowest, tolerances, ours)
        for label, solver in (("strong", (10, 3)), ("default", (3, 1))):
            place = root / label
            place.mkdir()
            arguments = [place / EVENTS, rungs, number, t_perp, bond, *solver]
            command = [*julia, HERE / "plain_dmrg.jl", *map(str, arguments)]
            steps = course(command, place, budget, lowest + tolerances[-1])
            report(label, steps, lowest, tolerances, ours)


if __name__ == "__main__":
    main()
