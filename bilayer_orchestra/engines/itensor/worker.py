"""One Julia for many jobs: ``python -m bilayer_orchestra.engines.itensor.worker DESCRIPTOR``.

Loading the packages and what Julia compiles on first use cost seconds per process; here they are
paid once. The other side is :mod:`bilayer_orchestra.runtimes.child`. Julia solves a job by the
very function that ``julia dmrg.jl`` calls, and leaves the same files.
"""

import sys
from pathlib import Path
from typing import Any

from bilayer_orchestra.engine_side.worker import serve


def main() -> None:
    """Serve until the channel closes."""
    julia: Any = None

    def solve(directory: Path) -> None:
        nonlocal julia
        if julia is None:
            # the import starts Julia, whose options are in the environment by now
            from juliacall import Main

            Main.seval("using OrchestraITensor")
            julia = Main
        from juliacall import JuliaError

        try:
            # the path goes over as a string: nothing of it is ever parsed
            julia.OrchestraITensor.run(str(directory))
        except JuliaError as error:
            print(error, file=sys.stderr)  # noqa: T201 the log wants the backtrace
            raise RuntimeError(julia.seval("sprint")(julia.showerror, error.exception)) from None
        julia.GC.gc()

    serve(int(sys.argv[1]), solve)


if __name__ == "__main__":
    main()
