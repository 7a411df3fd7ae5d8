"""Are `converged` and the stated errors right? Every engine against exact diagonalization.

python benchmarks/calibration.py block2 itensor alf [--seeds 24] [--output DIR]

Per case and seed one run, classed by what it says (`converged` yes or NO) and by what it is: right
if every element of every observable lies within its stated errors. For DMRG these are three times
`_bias`; for Monte Carlo, an element is wrong if what exceeds `_bias` is improbable (1e-3 in all
elements together) for its statistical error. Where no bias is stated, 1e-6 is allowed. Wrong and
"yes" is a wrong word; right and "NO" is a lost result, unless the case asks for one. Printed
beside: how often elements exceed their bias, and the root mean square of difference over error.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtr

from bilayer_orchestra.averages import Averages
from bilayer_orchestra.engines.registry import get_engine
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.running.point import Runner, make_request, run_point

#: What is allowed where no systematic error is stated.
UNSTATED = 1e-6
#: Probability, over all elements of a run, below which a deviation is no chance.
IMPROBABLE = 1e-3
#: Below this discarded weight the bias rests on the solver's floor.
NEGLIGIBLE = 1e-14


class PairVerdict(NamedTuple):
    """One run: what it says, what it is, and its elements as (error, bias, stderr)."""

    says: bool
    reason: str
    right: bool
    elements: np.ndarray
    weight: float


def ladder(state: dict[str, Any], length: int, engine: str, numerics: dict[str, Any], **more: Any):
    """Return an open ladder with t_perp = 0.5 and U_P = -4; ``more`` changes it."""
    layers = {
        "P": {"hopping": 0.0, "interaction": -4.0, "chemical_potential": 0.0},
        "M": {"hopping": 1.0, "interaction": 0.0, "chemical_potential": 0.0},
    }
    for name in layers:
        layers[name] |= more.pop(name, {})
    data = {"version": 1, "name": "c", "model": "bilayer", "length": length, "boundary": "open"}
    data |= {"layers": layers, "t_perp": 0.5, "state": state, "numerics": {engine: numerics}}
    return Model.model_validate(data | more)


def random_ground_state(seed: int, engine: str, **settings: Any) -> Model:
    """Two to four rungs, any sector and filling, some with large common chemical potentials."""
    rng = np.random.default_rng([seed, 77])
    length = int(rng.integers(2, 5))
    n_up = int(rng.integers(1, 2 * length))
    n_down = n_up if rng.random() < 0.6 else int(rng.integers(1, 2 * length))
    common, between = float(rng.choice([0, 0, 100])), float(rng.choice([0, 0, 0.5, -1, 40]))
    return ladder(
        {"n_up": n_up, "n_down": n_down},
        length,
        engine,
        settings,
        boundary="periodic" if length > 2 and rng.random() < 0.4 else "open",
        t_perp=float(rng.choice([0, 0.2, 0.3, 0.5, 0.8, 1.2])),
        P={
            "interaction": -float(rng.uniform(1, 8)),
            "hopping": float(rng.choice([0, 0, 0.3])),
            "chemical_potential": common,
        },
        M={
            "interaction": float(rng.choice([0, 0, -1, 1.5])),
            "chemical_potential": common + between,
        },
    )


Case = Callable[[int], Model]


def dmrg_cases(engine: str) -> Iterator[tuple[str, Case]]:
    """Default settings, and some under which searches end early or truncate."""
    for title, settings in (
        ("default settings", {}),
        ("bond dimension 24", {"initial_bond_dimension": 12, "max_bond_dimension": 24}),
        ("bond dimension 48", {"initial_bond_dimension": 12, "max_bond_dimension": 48}),
        ("no noise, 8 sweeps", {"noise": 0.0, "max_sweeps_per_stage": 8}),
    ):
        yield title, lambda seed, chosen=settings: random_ground_state(seed, engine, **chosen)


def alf_cases(_: str) -> Iterator[tuple[str, Case]]:
    """Automatic steps at 2 to 4 rungs; then what must not be believed."""
    half = {"P": {"chemical_potential": -1.9}, "M": {"chemical_potential": -0.1}}
    ring = {"P": {"chemical_potential": -2.2}, "M": {"chemical_potential": -0.5}}
    hot, cold = {"beta": 2.0}, {"beta": 4.0}

    def case(title: str, state: dict[str, Any], length: int, sweeps: int, **more: Any):
        alf = {"chains": 2, "sweeps": sweeps, **more.pop("alf", {})}
        return title, lambda seed: ladder(state, length, "alf", alf | {"seed": seed}, **more)

    yield case("2 rungs, beta 2", hot, 2, 3000, **ring)
    yield case("3 rungs, beta 4, quickstart", cold, 3, 2000)
    yield case("3 rungs, beta 4, quickstart, long", cold, 3, 12000)
    yield case("4 rungs, ring, beta 4", cold, 4, 1500, boundary="periodic", **ring)
    yield case("3 rungs, beta 2, half filling", hot, 3, 2000, **half)
    free = {"P": {"interaction": 0.0}}
    yield case("3 rungs, beta 4, U = 0", cold, 3, 400, **free)
    yield case("2 rungs, projector", {"n_up": 1, "n_down": 1}, 2, 1500, t_perp=0.8)
    yield case("3 rungs, projector", {"n_up": 2, "n_down": 2}, 3, 1000, t_perp=0.8)
    yield case("few sweeps", cold, 3, 200)
    yield case("3 rungs, steps 1, 0.5", cold, 3, 3000, alf={"dtau": [1.0, 0.5]})
    yield case("3 rungs, steps 1, 0.5, 0.25", cold, 3, 3000, alf={"dtau": [1.0, 0.5, 0.25]})
    strong = {"P": {"interaction": -16.0, "chemical_potential": -8.3}, "t_perp": 1.5}
    yield case("U = -16, steps 1, 0.5, 0.25", cold, 2, 4000, alf={"dtau": [1, 0.5, 0.25]}, **strong)
    resonant = {"P": {"interaction": -4.84, "chemical_potential": -2.42}, "t_perp": 0.33}
    yield case("resonant step", {"beta": 3.0}, 2, 8000, alf={"dtau": [0.3, 0.15]}, **resonant)
    yield case("theta too short", {"n_up": 2, "n_down": 2}, 3, 1000, alf={"projection_time": 2.0})
    yield case("gap below 1/theta", {"n_up": 3, "n_down": 3}, 4, 400)
    yield case("degenerate level", {"n_up": 2, "n_down": 2}, 3, 400, t_perp=0.0)


def judged(found: Averages, exact: Averages) -> PairVerdict:
    """Compare one run with exact averages."""
    rows, improbable, wrong = [], 1.0, False
    for name, expected in exact.values.items():
        if name not in found.values:
            continue
        error = np.abs(found.values[name] - expected).ravel()
        bias = found.bias.get(name, np.full(expected.shape, np.nan)).ravel()
        stated = np.where(np.isnan(bias), UNSTATED, bias)
        stderr = found.stderr.get(name, np.zeros(expected.shape)).ravel()
        if name in found.stderr:
            degrees = found.attributes[name]["covariance_degrees_of_freedom"]
            excess = np.maximum(error - stated, 0.0) / np.maximum(stderr, 1e-300)
            improbable = min(improbable, float(np.min(2 * stdtr(degrees, -excess))))
        else:
            wrong = wrong or bool((error > 3 * stated).any())
        rows.append(np.stack([error, bias, stderr]))
    elements = np.concatenate(rows, axis=1)
    wrong = wrong or improbable * elements.shape[1] < IMPROBABLE
    weight = float(found.diagnostics.get("discarded_weight", np.nan))
    return PairVerdict(found.converged, found.reason, not wrong, elements, weight)


def averages_of(model: Model, name: str, place: Path) -> Averages:
    """Return the averages of a run, in the order of sites."""
    backend = get_engine(name)
    run = run_point(model, backend, Runner(place)).run
    return backend.parse(run.job, make_request(model, backend))


def report(title: str, runs: list[PairVerdict]) -> None:
    """Print one case."""
    counts = Counter((run.says, run.right) for run in runs)
    print(
        f"{title:32s} yes: {counts[True, True]:2d} right {counts[True, False]:2d} wrong   "
        f"NO: {counts[False, True]:2d} right {counts[False, False]:2d} wrong",
        flush=True,
    )
    believed = [run for run in runs if run.says]
    for which, chosen in (
        ("", [run for run in believed if not run.weight <= NEGLIGIBLE]),
        (f" (weight below {NEGLIGIBLE:.0e})", [r for r in believed if r.weight <= NEGLIGIBLE]),
    ):
        if not chosen:
            continue
        error, bias, stderr = np.concatenate([run.elements for run in chosen], axis=1)
        noisy = stderr > 1e-12
        if noisy.any():
            pull = error[noisy] / np.hypot(stderr, np.nan_to_num(bias))[noisy]
            print(
                f"    rms of difference / error {np.sqrt(np.mean(pull**2)):.2f}, within 2: "
                f"{np.mean(pull < 2):.1%} of {noisy.sum()}"
            )
        known = ~noisy & np.isfinite(bias)
        if known.any():
            ratio = error[known] / bias[known]
            print(
                f"    error > bias {np.mean(ratio > 1):.2%}, > 3 bias {np.mean(ratio > 3):.2%}, "
                f"largest {ratio.max():.1f}, median {np.median(ratio):.0e} of {known.sum()}{which}"
            )
    reasons = Counter(run.reason.split(";")[0][:100] for run in runs if not run.says)
    for reason, count in reasons.most_common(4):
        print(f"    NO {count}: {reason}")


def main() -> None:
    """Run the cases of the engines that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engines", nargs="+", choices=["block2", "itensor", "alf"])
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--only", default="", help="cases whose title contains this")
    parser.add_argument("--output", type=Path, help="keep the runs here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = options.output or Path(temporary)
        for engine in options.engines:
            for title, case in (alf_cases if engine == "alf" else dmrg_cases)(engine):
                if options.only not in title:
                    continue
                runs = []
                for seed in range(1, options.seeds + 1):
                    model = case(seed)
                    try:
                        found = averages_of(model, engine, place)
                        runs.append(judged(found, averages_of(model, "exact", place)))
                    except OrchestraError as error:
                        print(f"    seed {seed}: {error}", flush=True)
                report(f"{engine}: {title}", runs)


if __name__ == "__main__":
    main()
