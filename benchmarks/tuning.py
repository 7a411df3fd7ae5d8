"""Runs that a density target takes: the search of `filling`, bisection, and Brent's method.

Bisection and Brent (scipy) start from the same guess and the same doubling steps to a bracket, and
stop at the same deviation of the density. Ground states of four rungs, exact diagonalization.
`--dmrg` also measures the cost of a search with block2 on eight rungs in units of one plain run.

    python benchmarks/tuning.py [--dmrg]
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from scipy.optimize import brentq

from bilayer_orchestra.engines.registry import get_engine
from bilayer_orchestra.model.bilayer import BilayerModel
from bilayer_orchestra.running.point import Runner, run_point
from bilayer_orchestra.tuning.ground import TOLERANCE
from bilayer_orchestra.tuning.point import run_model
from bilayer_orchestra.tuning.search import layer_guess

CASES = [  # P, M, t_perp, U, boundary
    (0.5, 1.0, 0.5, -4.0, "open"),
    (0.8, 0.7, 0.5, -4.0, "open"),
    (0.3, 0.7, 0.5, -4.0, "periodic"),
    (0.3, 0.7, 0.3, -6.0, "open"),
    (0.3, 0.7, 0.15, -9.0, "open"),
]


class ReachedError(Exception):
    """The density is within the tolerance."""


def bilayer(
    length: int, p: float, m: float, t_perp: float, u: float, boundary: str
) -> BilayerModel:
    """Return a model with a filling."""
    data = {
        "version": 1,
        "name": "tuning",
        "model": "bilayer",
        "length": length,
        "boundary": boundary,
        "layers": {"P": {"hopping": 0.0, "interaction": u}, "M": {"hopping": 1.0}},
        "t_perp": t_perp,
        "filling": {"P": p, "M": m},
        "observables": ["density"],
    }
    return BilayerModel.model_validate(data)


def runs_of(model: BilayerModel, method: Callable[..., object], root: Path) -> int:
    """Count the runs of a bracketing root finder."""
    assert model.filling is not None
    target, backend, count = model.filling.M, get_engine("exact"), 0

    def miss(mu: float) -> float:
        nonlocal count
        count += 1
        dataset = run_point(model.at(0.0, mu), backend, Runner(root)).dataset
        value = float(dataset["density"].sum("spin").mean("x").sel(layer="M")) - target
        if abs(value) <= TOLERANCE:
            raise ReachedError
        return value

    layers = model.layers
    start = layer_guess(layers.M.hopping, 0.0, target, float("inf")) - layer_guess(
        0.0, layers.P.interaction, model.filling.P, float("inf")
    )
    known: dict[float, float] = {}

    def stored(mu: float) -> float:
        if mu not in known:
            known[mu] = miss(mu)
        return known[mu]

    try:
        last, step = start, abs(layers.P.interaction) / 2
        first = stored(last)
        while True:
            mu = last - step if first > 0 else last + step
            if stored(mu) * first < 0:
                break
            last, step = mu, 2 * step
        method(stored, min(last, mu), max(last, mu))
    except ReachedError:
        return count
    raise AssertionError("ended without reaching the density")


def bisection(function: Callable[[float], float], low: float, high: float) -> None:
    """Halve the bracket for ever."""
    while True:
        middle = 0.5 * (low + high)
        if function(middle) > 0:
            high = middle
        else:
            low = middle


def brent(function: Callable[[float], float], low: float, high: float) -> None:
    """Brent's method to the last digit."""
    brentq(function, low, high, xtol=1e-14, rtol=1e-14, maxiter=500)


def main() -> None:
    """Print one line per case."""
    print("  P    M   t_perp  U     boundary   search  brent  bisection")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for case in CASES:
            model = bilayer(4, *case)
            outcome = run_model(model, get_engine("exact"), Runner(root))
            counts = (
                outcome.dataset.sizes["step"],
                runs_of(model, brent, root),
                runs_of(model, bisection, root),
            )
            p, m, t_perp, u, boundary = case
            print(
                f"{p:4.2f} {m:4.2f}  {t_perp:4.2f}  {u:5.1f}   {boundary:9s}  {counts[0]:5d}  "
                f"{counts[1]:5d}  {counts[2]:8d}",
                flush=True,
            )
        if "--dmrg" in sys.argv:
            model = bilayer(8, 0.5, 0.25, 0.5, -4.0, "open")
            dataset = run_model(model, get_engine("block2"), Runner(root)).dataset
            print(
                f"block2, 8 rungs: {dataset.sizes['step']} runs, "
                f"{float(dataset['tuning_cost']):.2f} times one plain run"
            )


if __name__ == "__main__":
    main()
