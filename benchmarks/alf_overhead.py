"""Wall time of `orchestra run --backend alf` against ALF called by hand with the same parameters.

python benchmarks/alf_overhead.py [--sweeps 4000] [--length 8] [--beta 5] [--repeats 1]

By hand means: one directory per chain, one start of ALF with all bins in it, chains at the same
time; no segments, no supervision, no analysis, no dataset. The run is the whole command, from the
start of Python to result.nc. Both use the same seeds, and the bins are compared byte by byte. The
ratio of processor times is printed beside it, since on a busy machine wall times mean little.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bilayer_orchestra.engines.alf.installation import find_alf
from bilayer_orchestra.machine import available_cores, thread_environment

MODEL = """version: 1
name: overhead
model: bilayer
length: {length}
boundary: periodic
layers:
  P: {{hopping: 0.0, interaction: -4.0, chemical_potential: -2.2}}
  M: {{hopping: 1.0, interaction: 0.0, chemical_potential: -0.5}}
t_perp: 0.5
state: {{beta: {beta}}}
numerics:
  alf: {{dtau: 0.1, sweeps: {sweeps}, chains: {chains}}}
"""


def children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def timed(action) -> tuple[float, float]:
    wall, cpu = time.monotonic(), children_cpu()
    action()
    return time.monotonic() - wall, children_cpu() - cpu


def by_orchestra(model: Path, output: Path) -> None:
    command = [sys.executable, "-m", "bilayer_orchestra.cli.main", "run", str(model)]
    command += ["--backend", "alf", "--output", str(output), "--no-plot"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def prepare_by_hand(job: Path, place: Path, bins: int) -> list[Path]:
    chains = []
    for chain in sorted((job / "dtau-0").glob("chain-*")):
        directory = place / chain.name
        directory.mkdir(parents=True)
        parameters = (job / "dtau-0" / "parameters").read_text().replace("@NBIN@", str(bins))
        (directory / "parameters").write_text(parameters)
        shutil.copy(job / "terms.dat", directory)
        shutil.copy(chain / "seeds", directory)
        chains.append(directory)
    return chains


def run_by_hand(chains: list[Path]) -> None:
    environment = {**os.environ, **thread_environment(1)}
    processes = [
        subprocess.Popen(
            [str(find_alf().binary)], cwd=chain, env=environment, stdout=subprocess.DEVNULL
        )
        for chain in chains
    ]
    assert [process.wait() for process in processes] == [0] * len(chains)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=8000)
    parser.add_argument("--length", type=int, default=8)
    parser.add_argument("--beta", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        model = place / "model.yaml"
        model.write_text(
            MODEL.format(
                length=options.length,
                beta=options.beta,
                sweeps=options.sweeps,
                chains=available_cores(),
            )
        )
        ours, hands = [], []
        for repeat in range(options.repeats):
            output = place / f"out-{repeat}"
            ours.append(timed(lambda output=output: by_orchestra(model, output)))
            (job,) = output.glob("*/job")
            pieces = sorted((job / "dtau-0" / "chain-0").glob("seg-*"))
            bins = sum(int((piece / "bins").read_text()) for piece in pieces)
            chains = prepare_by_hand(job, place / f"hand-{repeat}", bins)
            hands.append(timed(lambda chains=chains: run_by_hand(chains)))
            for chain in chains:
                pieces = sorted((job / "dtau-0" / chain.name).glob("seg-*"))
                same = b"".join((piece / "Pair_eq").read_bytes() for piece in pieces)
                assert same == (chain / "Pair_eq").read_bytes(), "the bins differ"
        wall, cpu = min(one[0] for one in ours), min(one[1] for one in ours)
        wall_hand, cpu_hand = min(one[0] for one in hands), min(one[1] for one in hands)
        title = (
            f"{len(chains)} chains of {bins} bins, L = {options.length}, beta = {options.beta:g}"
        )
        print(title)
        print(f"wall time       orchestra {wall:7.2f} s  by hand {wall_hand:7.2f} s")
        print(f"processor time  orchestra {cpu:7.2f} s  by hand {cpu_hand:7.2f} s")
        print(f"alf_overhead_wall_ratio {wall / wall_hand:.4f}")
        print(f"alf_overhead_cpu_ratio {cpu / cpu_hand:.4f}")


if __name__ == "__main__":
    main()
