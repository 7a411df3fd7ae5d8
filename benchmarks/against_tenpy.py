"""Time to equal energy accuracy: the block2 engine against a plain TeNPy script.

Both solve the same doped bilayer (open, U_P = -4, t_M = 1) on one thread and stop at the first
sweep whose energy is within 1e-6 of the reference; TeNPy with its usual two-site engine and mixer,
block2 as this program drives it, its own measurements included. Prints seconds and the ratio.

    python benchmarks/against_tenpy.py [rungs] [n_per_spin] [t_perp]
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"

TOLERANCE = 1e-6


def block2_seconds(model_text: str) -> tuple[float, float]:
    """Return (final energy, seconds until TOLERANCE above it)."""
    from bilayer_orchestra.engines.block2 import process as engine
    from bilayer_orchestra.engines.registry import get_engine
    from bilayer_orchestra.model.spec import parse_model
    from bilayer_orchestra.running.point import make_request

    backend = get_engine("block2")
    job = backend.render(make_request(parse_model(model_text), backend))
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for file, text in job.files.items():
            (place / file).write_text(text)
        events: list[tuple[float, float]] = []
        started = time.perf_counter()

        class Watched(engine.Block2Search):
            def report(self, **event: object) -> None:
                if event["step"] == "sweep":
                    events.append((time.perf_counter() - started, float(str(event["energy"]))))
                super().report(**event)

        Watched(place).climb()
    final = events[-1][1]
    return final, next(seconds for seconds, energy in events if energy < final + TOLERANCE)


def tenpy_seconds(length: int, number: int, t_perp: float, target: float) -> float:
    from tenpy.algorithms import dmrg
    from tenpy.models.lattice import Ladder
    from tenpy.models.model import CouplingMPOModel, NearestNeighborModel  # noqa: F401
    from tenpy.networks.mps import MPS
    from tenpy.networks.site import SpinHalfFermionSite

    class Bilayer(CouplingMPOModel):
        def init_sites(self, params):
            return SpinHalfFermionSite(cons_N="N", cons_Sz="Sz")

        def init_lattice(self, params):
            return Ladder(params["L"], self.init_sites(params), bc="open", bc_MPS="finite")

        def init_terms(self, params):
            self.add_onsite(-4.0, 0, "NuNd")
            for spin in ("u", "d"):
                self.add_coupling(-t_perp, 0, f"Cd{spin}", 1, f"C{spin}", [0], plus_hc=True)
                self.add_coupling(-1.0, 1, f"Cd{spin}", 1, f"C{spin}", [1], plus_hc=True)

    started = time.perf_counter()
    model = Bilayer({"L": length})
    sites = ["empty"] * (2 * length)
    for k in range(number):
        sites[2 * ((2 * k + 1) * length // (2 * number))] = "full"
    state = MPS.from_product_state(model.lat.mps_sites(), sites, bc="finite")
    bond = 50
    for sweep in range(60):
        engine = dmrg.TwoSiteDMRGEngine(
            state,
            model,
            {
                "mixer": True if sweep < 12 else None,
                "mixer_params": {"amplitude": 1e-4, "decay": 1.0, "disable_after": 100},
                "trunc_params": {"chi_max": min(400, bond), "svd_min": 1e-9},
                "max_sweeps": 1,
                "min_sweeps": 1,
                "N_sweeps_check": 1,
            },
        )
        energy, state = engine.run()
        seconds = time.perf_counter() - started
        print(f"  tenpy sweep {sweep:2d}  E = {energy:.9f}  {seconds:.1f} s", flush=True)
        if energy < target + TOLERANCE:
            return seconds
        if sweep % 3 == 2:
            bond *= 2
    return float("inf")


def main() -> None:
    length = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    number = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    t_perp = float(sys.argv[3]) if len(sys.argv) > 3 else 0.8
    text = json.dumps(
        {
            "version": 1,
            "name": "benchmark",
            "length": length,
            "layers": {"P": {"hopping": 0.0, "interaction": -4.0}, "M": {"hopping": 1.0}},
            "t_perp": t_perp,
            "state": {"n_up": number, "n_down": number},
        }
    )
    energy, ours = block2_seconds(text)
    print(f"block2 engine: E = {energy:.10f}, within {TOLERANCE:g} after {ours:.1f} s")
    theirs = tenpy_seconds(length, number, t_perp, energy)
    print(f"tenpy: {theirs:.1f} s; ratio tenpy / block2 engine {theirs / ours:.1f}")


if __name__ == "__main__":
    main()
