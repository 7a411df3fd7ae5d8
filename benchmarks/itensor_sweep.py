"""A sweep through one Julia against a Julia for every point.

Ten points on two rungs, so that what is measured is the start of Julia and not physics: through one
worker, as `orchestra sweep` does, and as ten `julia dmrg.jl`, as `orchestra run` does. Prints the
processor time of the children, wall time, and the ratios.

    python benchmarks/itensor_sweep.py [points]
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from bilayer_orchestra.engines.itensor.julia import find_julia, juliacall_problem
from bilayer_orchestra.engines.registry import get_engine
from bilayer_orchestra.model.spec import load_model
from bilayer_orchestra.running.point import Runner, run_point
from bilayer_orchestra.runtimes.local import LocalRuntime

MODEL = Path(__file__).parents[1] / "examples" / "bilayer.yaml"


def solve(points: int, many: bool, root: Path) -> tuple[float, float]:
    """Return (wall, processor) seconds."""

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    begin, before = time.perf_counter(), spent()
    with closing(LocalRuntime(many)) as runtime:
        for k in range(points):
            small = ("length=2", "state.n_up=1", "state.n_down=1", f"t_perp={0.3 + 0.05 * k}")
            model = load_model(MODEL, small)
            run_point(model, get_engine("itensor"), Runner(root, runtime))
    return time.perf_counter() - begin, spent() - before


def main() -> None:
    points = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    problem = juliacall_problem(find_julia())
    if problem is not None:
        raise SystemExit(problem)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        # compiles, if that is still to be done, and fills the file cache
        solve(1, many=False, root=root / "warm")
        one = solve(points, many=True, root=root / "one")
        each = solve(points, many=False, root=root / "each")
    for label, k in (("wall", 0), ("processor", 1)):
        print(
            f"{points} points, {label:9s}: one Julia {one[k]:6.1f} s, one each {each[k]:6.1f} s, "
            f"ratio {each[k] / one[k]:.1f}"
        )


if __name__ == "__main__":
    main()
