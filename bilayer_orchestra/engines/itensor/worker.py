"""One Julia for many jobs: ``python -m bilayer_orchestra.engines.itensor.worker DESCRIPTOR``.

Loading the packages and what Julia compiles on first use cost seconds per process; here they are
paid once. The other side is :mod:`bilayer_orchestra.runtimes.child`. Julia solves a job by the
very function that ``julia dmrg.jl`` calls, and leaves the same files.
"""

import sys
from functools import cache
from pathlib import Path
from typing import Any

from bilayer_orchestra.engine_side.worker import serve


@cache
def _juliacall() -> Any:
    """Return juliacall with our half loaded in Julia."""
    import juliacall  # this starts Julia, whose options are in the environment by now

    juliacall.Main.seval("using OrchestraITensor")
    return juliacall


def solve(directory: Path) -> None:
    """Solve the job in ``directory``."""
    juliacall = _juliacall()
    julia = juliacall.Main
    try:
        # the path goes over as a string: nothing of it is ever parsed
        julia.OrchestraITensor.run(str(directory))
    except juliacall.JuliaError as error:
        print(error, file=sys.stderr)  # noqa: T201 the log wants the backtrace
        raise RuntimeError(julia.seval("sprint")(julia.showerror, error.exception)) from None
    julia.GC.gc()


if __name__ == "__main__":
    serve(int(sys.argv[1]), solve)
