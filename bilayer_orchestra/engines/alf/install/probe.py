"""Whether an ALF binary works: a tiny model whose answer is known in closed form."""

from __future__ import annotations

import math
import os
import re
import subprocess
import tempfile
from pathlib import Path

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
    free = _kinetic_energy(binary, 0.0)
    if isinstance(free, str):
        return free
    exact = -2.0 * math.tanh(0.5)
    if not abs(free - exact) < 1e-8:
        return f"two free sites have kinetic energy {free:.10f} instead of {exact:.10f}"
    attractive = _kinetic_energy(binary, -2.0)
    if isinstance(attractive, str):
        return attractive
    # attraction at half filling binds pairs and costs kinetic energy (exact: -0.8352)
    if not -0.90 < attractive < -0.77:
        return f"two attractive sites have kinetic energy {attractive:.4f} instead of -0.835"
    return None


def _kinetic_energy(binary: Path, interaction: float) -> float | str:
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
        except subprocess.TimeoutExpired:
            return f"a model of two sites did not finish within {TIMEOUT:.0f} s"
        except OSError as error:
            return f"it cannot be started: {error.strerror}"
        if answer.returncode != 0:
            text = (answer.stderr + answer.stdout).decode(errors="replace")
            last = " | ".join(text.strip().splitlines()[-2:]) or "it printed nothing"
            return f"a model of two sites ends with exit code {answer.returncode}: {last}"
        return _mean(directory)


def _mean(directory: Path) -> float | str:
    """Mean over the bins, from text or from HDF5 output."""
    try:
        text = (directory / "Kin_scal").read_text()
        bins = [float(re.split(r"[(,]", line)[1]) for line in text.splitlines()]
        return sum(bins) / len(bins)
    except FileNotFoundError:
        if (directory / "data.h5").exists():
            return _mean_hdf5(directory)
        return "it runs, but does not write what the Orchestra Hamiltonian writes"
    except (ValueError, IndexError, ZeroDivisionError):
        return "it writes bins in an unknown format"


def _mean_hdf5(directory: Path, n_sites: int = 2) -> float | str:
    from bilayer_orchestra.engines.alf.output.bins import open_segment
    from bilayer_orchestra.errors import EngineError

    try:
        return float(open_segment(directory, n_sites).scalars("Kin_scal").values.mean())
    except EngineError as error:
        return f"it writes bins in an unknown format: {error}"
