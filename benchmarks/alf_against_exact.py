"""Random small models on ALF against exact diagonalization: is chi^2/dof what it should be?

python benchmarks/alf_against_exact.py [--thermal 20] [--projector 8] [--seconds 15] [--seed 1]

Every model has its own seed of the chains. Printed per model: chi^2/dof of the four matrices with
their whole covariance, the largest deviation of an element in standard errors, and the verdict;
in the end the distribution for what called itself converged, beside the one expected from pure
noise: p-values of Hotelling's T^2 should be uniform.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import stats

from bilayer_orchestra.averages import Averages
from bilayer_orchestra.engines.registry import get_engine
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.running.point import Runner, make_request, run_point
from bilayer_orchestra.testing.statistics import chi_squared

MATRICES = ("pair", "green", "density_density", "spin_spin")


def random_model(kind: str, number: int, seed: int, seconds: float) -> Model:
    """Return a model of two to four rungs (thermal ones on four are rare: exact takes minutes)."""
    rng = np.random.default_rng([seed, number, kind == "projector"])
    thermal = kind == "thermal"
    if thermal:
        length = 4 if number % 10 == 9 else 2 + number % 2
        state: dict[str, object] = {"beta": float(rng.choice([0.5, 1, 2, 3, 4, 5, 8]))}
    else:
        length = 2 + number % 3
        pairs = int(rng.integers(1, 2 * length))
        state = {"n_up": pairs, "n_down": pairs}
    attraction = -float(rng.uniform(1, 8 if thermal else 6))
    weak = -float(rng.choice([0, 0, rng.uniform(0, 4)]))
    return Model.model_validate(
        {
            "version": 1,
            "name": f"{kind}-{number}",
            "model": "bilayer",
            "length": length,
            "boundary": "periodic" if length > 2 and rng.random() < 0.5 else "open",
            "layers": {
                "P": {
                    "hopping": float(rng.choice([0, 0, rng.uniform(0, 0.5)])),
                    "interaction": attraction,
                    "chemical_potential": attraction / 2 + float(rng.uniform(-0.8, 0.8)),
                },
                "M": {
                    "hopping": 1.0,
                    "interaction": weak,
                    "chemical_potential": weak / 2 + float(rng.uniform(-1.5, 0.5)),
                },
            },
            "t_perp": float(rng.uniform(0.2 if thermal else 0.7, 1.5)),
            "state": state,
            "numerics": {"alf": {"time_budget": seconds, "seed": 1000 * seed + number}},
        }
    )


def averages_of(model: Model, name: str, place: Path) -> Averages:
    backend = get_engine(name)
    run = run_point(model, backend, Runner(place)).run
    return backend.parse(run.job, make_request(model, backend))


class Comparison:
    """One model: chi^2/dof and p-value per matrix, and the largest deviation of an element."""

    def __init__(self, found: Averages, exact: Averages) -> None:
        self.chi2: dict[str, float] = {}
        self.p: dict[str, float] = {}
        scores, with_bias = [np.zeros(1)], [np.zeros(1)]
        for name, expected in exact.values.items():
            difference, error = found.values[name] - expected, found.stderr[name]
            moving = error > 1e-12
            size = np.abs(difference[moving])
            scores.append(size / error[moving])
            with_bias.append(size / np.hypot(error, found.bias[name])[moving])
        self.worst = max(float(s.max(initial=0)) for s in scores)
        self.worst_with_bias = max(float(s.max(initial=0)) for s in with_bias)
        for name in MATRICES:
            plane = (0,) if name == "green" else ()
            upper = np.triu_indices(exact.values["pair"].shape[0])
            deviations = found.deviations[name][(slice(None), *plane)][:, upper[0], upper[1]]
            degrees = found.attributes[name]["covariance_degrees_of_freedom"]
            difference = (found.values[name] - exact.values[name])[plane][upper]
            try:
                chi2, p = chi_squared(difference, deviations, degrees), fluctuating(deviations)
            except ValueError:
                continue  # fewer blocks than elements
            self.chi2[name] = chi2
            # chi_squared scales to mean 1; F(p, n - p + 1) has the mean (n - p + 1) / (n - p - 1)
            scale = (degrees - p + 1) / (degrees - p - 1)
            self.p[name] = float(stats.f.sf(chi2 * scale, p, degrees - p + 1))


def fluctuating(deviations: np.ndarray) -> int:
    scale = np.sqrt(np.sum(deviations**2, axis=0))
    singular = np.linalg.svd(deviations[:, scale > 0] / scale[scale > 0], compute_uv=False)
    return int((singular > 1e-6 * singular.max(initial=0.0)).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--thermal", type=int, default=20)
    parser.add_argument("--projector", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, help="keep the runs here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = options.output or Path(temporary)
        for kind in ("thermal", "projector"):
            campaign(kind, getattr(options, kind), options, place)


def campaign(kind: str, count: int, options: argparse.Namespace, place: Path) -> None:
    good: list[Comparison] = []
    finished = 0
    for number in range(count):
        model = random_model(kind, number, options.seed, options.seconds)
        begin = time.monotonic()
        try:
            found = averages_of(model, "alf", place)
            took = time.monotonic() - begin
            one = Comparison(found, averages_of(model, "exact", place))
        except OrchestraError as error:
            print(f"{model.name:12s} ERROR {error}", flush=True)
            continue
        finished += 1
        line = " ".join(f"{one.chi2.get(name, np.nan):5.2f}" for name in MATRICES)
        verdict = "converged" if found.converged else f"NOT: {found.reason}"
        title = f"L={model.terms().n_sites // 2} {found.diagnostics['effective_bins']:4.0f} bins"
        worst = f"max|z| {one.worst:4.2f} ({one.worst_with_bias:4.2f} with bias)"
        print(f"{model.name:12s} {title} chi2 {line} {worst} {took:3.0f} s {verdict}", flush=True)
        if found.converged:
            good.append(one)
    print(f"{kind}: {len(good)} of {finished} converged")
    for name in MATRICES:
        chi2 = np.array([one.chi2[name] for one in good if name in one.chi2])
        p = np.array([one.p[name] for one in good if name in one.p])
        if len(p) < 2:
            continue
        quantiles = " ".join(f"{q:.2f}" for q in np.quantile(chi2, [0, 0.25, 0.5, 0.75, 1]))
        uniform = stats.kstest(p, "uniform").pvalue
        print(
            f"{kind} {name:16s} chi2/dof mean {chi2.mean():.2f} +- "
            f"{chi2.std(ddof=1) / np.sqrt(len(chi2)):.2f}, quartiles {quantiles}; smallest p "
            f"{p.min():.2g} of {len(p)}, uniform: {uniform:.2g}"
        )
    if good:
        print(f"{kind} largest |z| {max(one.worst for one in good):.2f}", flush=True)


if __name__ == "__main__":
    main()
