"""Time and memory of reading ALF's bins, against pyALF's analysis of the same data.

    python benchmarks/alf_reading.py --bins 1000 --sites 64      # ratio, needs `pip install pyALF`
    python benchmarks/alf_reading.py --bins 100000 --only-ours   # peak memory of a long run

The data are synthetic: random matrices in ALF's formats. The long run links the same segment many
times (the scalars differ), so that it needs little disk but is read in full. Every measurement is
a fresh process, import time excluded from the time, included in the memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

MATRICES = ("Pair_eq", "Green_eq", "Den_eq", "SpinXY_eq")
SCALARS = ("Kin_scal", "Pot_scal", "Part_scal", "Ener_scal")
SEGMENT = 200  # bins

OURS = """
import json, sys, time, resource
from pathlib import Path
import numpy as np
from bilayer_orchestra.engines.alf.settings import ALFNumerics
from bilayer_orchestra.engines.alf.results import averages_from_job
from bilayer_orchestra.engines.base import Request
from bilayer_orchestra.terms import Terms
import scipy.stats, netCDF4
job = Path(sys.argv[1])
spec = json.loads((job / "job.json").read_text())
terms = Terms.from_dict(spec["terms"])
request = Request(terms, tuple(spec["observables"]), ALFNumerics(), "benchmark")
start = time.perf_counter()
averages = averages_from_job(job, request)
seconds = time.perf_counter() - start
np.save(sys.argv[2], averages.values["pair"])
print(json.dumps({"seconds": seconds, "bins": averages.diagnostics["bins"],
    "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""

PYALF = """
import json, sys, time, resource, contextlib, io, pickle
import numpy as np
from py_alf.analysis import analysis
start = time.perf_counter()
with contextlib.redirect_stdout(io.StringIO()):
    analysis(sys.argv[1], always=True, write_plain_text=False)
seconds = time.perf_counter() - start
np.save(sys.argv[2], pickle.load(open(sys.argv[1] + "/res.pkl", "rb"))["Pair_eqR"][:, :, 0])
print(json.dumps({"seconds": seconds,
    "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def number(x: float) -> str:
    """Format as Fortran does: 25 characters, mantissa below one."""
    digits, exponent = f"{abs(x):.16e}".split("e")
    power = int(exponent) + 1 if x else 0
    sign = "-" if x < 0 else " "
    return f"{sign}0.{digits.replace('.', '')}E{power:+04d}"


def write_text(segment: Path, bins: int, sites: int, rng: np.random.Generator) -> None:
    zero = number(0.0)
    header = f"{number(1.0)}{sites:>11d}{1:>11d}\n"
    for name in MATRICES:
        with (segment / name).open("w") as stream:
            for _ in range(bins):
                values = 0.1 + 0.05 * rng.standard_normal(sites * (sites + 1))
                lines = [f"({number(v)},{zero})\n" for v in values]
                stream.write(header + "".join(lines[:sites]) + f"{zero} {zero}\n")
                stream.write("".join(lines[sites:]))


def write_scalars(segment: Path, bins: int, rng: np.random.Generator) -> None:
    for name in SCALARS:
        values = -5 + 0.1 * rng.standard_normal(bins)
        lines = [f"{2:>10d} ({number(v)},{number(0.0)}) {number(1.0)}\n" for v in values]
        (segment / name).write_text("".join(lines))


def write_hdf5(segment: Path, bins: int, sites: int, rng: np.random.Generator) -> None:
    import h5py

    with h5py.File(segment / "data.h5", "w") as f:
        parameters = f.create_group("parameters/var_orchestra")
        parameters.attrs["dtau"] = 0.1
        for name in (*MATRICES, *SCALARS):
            group = f.create_group(name)
            inner = (sites, sites, 1, 1, 2) if name in MATRICES else (1, 2)
            parts = {"obser": inner, "sign": ()} | ({"back": (sites, 2)} if len(inner) > 2 else {})
            for key, shape in parts.items():
                group.create_dataset(
                    key, (bins, *shape), "f8", chunks=(1, *shape), compression="gzip",
                    compression_opts=1,
                )  # fmt: skip
            group["sign"][:] = 1.0
            for k in range(bins):
                group["obser"][k, ..., 0] = 0.1 + 0.05 * rng.standard_normal(inner[:-1])
            if name in MATRICES:
                group.attrs["dtau"] = 0.1
                lattice = group.create_group("lattice")
                for key, vector in {"a1": [1, 0], "a2": [0, 1], "L1": [1, 0], "L2": [0, 1]}.items():
                    lattice.attrs[key] = np.array(vector, float)
                lattice.attrs.update({"N_coord": 1, "Ndim": 2, "Norb": sites})
                for i in range(sites):
                    lattice.attrs[f"Orbital{i + 1}"] = np.array([i + 1.0, 0.0])
    (segment / "parameters").write_text("&VAR_errors\nN_skip=0\nN_rebin=1\nN_Cov=0\nN_Back=1\n/\n")


def make_job(job: Path, sites: int) -> Path:
    """Write job.json and return the directory of the only chain."""
    terms = {
        "sites": [["P", x] for x in range(sites)],
        "one_body": np.zeros((sites, sites)).tolist(),
        "interaction": [-4.0] * sites,
        "chemical_potential": [0.0] * sites,
        "state": {"beta": 4.0},
    }
    observables = ["density", "double_occupancy", "pair", "green", "density_density", "spin_spin"]
    job.mkdir()
    (job / "job.json").write_text(
        json.dumps({"terms": terms, "observables": observables, "dtau": [0.1]})
    )
    chain = job / "dtau-0" / "chain-0"
    chain.mkdir(parents=True)
    return chain


def new_segment(chain: Path, number_: int) -> Path:
    segment = chain / f"seg-{number_:04d}"
    segment.mkdir()
    (segment / "info").write_text(
        " Orchestra: dtau =  1.0E-01\n"
        "  Precision Green  Mean, Max :    1.3E-015   1.0E-014\n  Acceptance     :   0.6\n"
    )
    return segment


def measure(code: str, directory: Path, out: Path) -> dict[str, float]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(directory), str(out)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bins", type=int, default=1000)
    parser.add_argument("--sites", type=int, default=64)
    parser.add_argument("--only-ours", action="store_true")
    arguments = parser.parse_args()
    bins, sites = arguments.bins, arguments.sites
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        chain = make_job(root / "text", sites)
        for k in range(bins // SEGMENT):
            segment = new_segment(chain, k + 1)
            write_scalars(segment, SEGMENT, rng)
            if k == 0:
                write_text(segment, SEGMENT, sites, rng)
            else:
                for file in MATRICES:
                    (segment / file).hardlink_to(chain / "seg-0001" / file)
        ours = measure(OURS, root / "text", root / "ours.npy")
        print(f"{bins} bins of {len(MATRICES)} matrices of {sites} x {sites}")
        print(f"  ours, text   {ours['seconds']:8.2f} s  {ours['mib']:7.0f} MiB")
        if arguments.only_ours:
            return
        segment = new_segment(make_job(root / "hdf5", sites), 1)
        write_hdf5(segment, bins, sites, rng)
        hdf5 = measure(OURS, root / "hdf5", root / "ours.npy")
        theirs = measure(PYALF, segment, root / "theirs.npy")
        print(f"  ours, HDF5   {hdf5['seconds']:8.2f} s  {hdf5['mib']:7.0f} MiB")
        print(f"  pyALF, HDF5  {theirs['seconds']:8.2f} s  {theirs['mib']:7.0f} MiB")
        print(f"  pyALF / ours: HDF5 {theirs['seconds'] / hdf5['seconds']:.2f}, ", end="")
        print(f"pyALF HDF5 / ours text {theirs['seconds'] / ours['seconds']:.2f}")
        values = np.load(root / "theirs.npy")
        difference = np.abs((values + values.T) / 2 - np.load(root / "ours.npy")).max()
        print(f"  largest difference of the pair matrix {difference:.1e} (warm-up bins dropped)")


if __name__ == "__main__":
    main()
