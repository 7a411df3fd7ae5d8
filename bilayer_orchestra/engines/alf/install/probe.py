"""Whether an ALF binary works: a tiny model whose answer is known in closed form."""

from __future__ import annotations

import math
import os
import subprocess
import tempfile
from pathlib import Path

from bilayer_orchestra.errors import EngineError
from bilayer_orchestra.machine import thread_environment

#: Two sites, t = 1, beta = 1: <H> = -2 tanh(1/2); the interaction is switched on in a second run.
_TERMS = """orchestra-terms 1
sites 2
onsite
1 {interaction} {potential}
2 {interaction} {potential}
hopping
0.0 -1.0
-1.0 0.0
end
"""
_PARAMETERS = """&VAR_ham_name
ham_name = 'Orchestra'
/
&VAR_Orchestra
dtau = 0.1
beta = 1.0
/
&VAR_QMC
Nwrap = 10
NSweep = 200
NBin = 5
Ltau = 0
LOBS_ST = 0
LOBS_EN = 0
CPU_MAX = 0.0
/
&VAR_errors
/
"""
TIMEOUT = 60.0


def probe(binary: Path) -> str | None:
    """Return why ``binary`` is not usable, or None if it is."""
    exact = -2.0 * math.tanh(0.5)
    try:
        free = _solve(binary, 0.0)
        if not abs(free - exact) < 1e-8:
            return f"two free sites have kinetic energy {free:.10f} instead of {exact:.10f}"
        attractive = _solve(binary, -2.0)
    except EngineError as problem:
        return str(problem)
    # attraction at half filling binds pairs and costs kinetic energy (exact: -0.8352)
    if not -0.90 < attractive < -0.77:
        return f"two attractive sites have kinetic energy {attractive:.4f} instead of -0.835"
    return None


def _solve(binary: Path, interaction: float) -> float:
    """Return the kinetic energy of two sites, or raise EngineError."""
    with tempfile.TemporaryDirectory(prefix="orchestra-probe-") as name:
        directory = Path(name)
        terms = _TERMS.format(interaction=interaction, potential=interaction / 2)
        (directory / "terms.dat").write_text(terms)
        (directory / "parameters").write_text(_PARAMETERS)
        (directory / "seeds").write_text("".join(f"{k}\n" for k in range(1, 5)))
        try:
            answer = subprocess.run(
                [str(binary)],
                cwd=directory,
                env={**os.environ, **thread_environment(1)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise EngineError(
                f"a model of two sites did not finish within {TIMEOUT:.0f} s"
            ) from error
        except OSError as error:
            raise EngineError(f"it cannot be started: {error.strerror}") from error
        if answer.returncode != 0:
            text = (answer.stderr + answer.stdout).decode(errors="replace")
            last = " | ".join(text.strip().splitlines()[-2:]) or "it printed nothing"
            raise EngineError(
                f"a model of two sites ends with exit code {answer.returncode}: {last}"
            )
        return kinetic_energy(directory, 2)


def kinetic_energy(directory: Path, n_sites: int) -> float:
    """Return the mean over the bins of a directory, from text or from HDF5 output.

    Raises
    ------
    EngineError
        If there are none that can be read.
    """
    from bilayer_orchestra.engines.alf.output.bins import open_segment

    try:
        segment = open_segment(directory, n_sites)
        if segment.has("Kin_scal") and segment.bins:
            return float(segment.scalars("Kin_scal").values.mean())
    except EngineError as error:
        raise EngineError(f"it writes bins in an unknown format: {error}") from error
    raise EngineError("it runs, but does not write what the Orchestra Hamiltonian writes")
