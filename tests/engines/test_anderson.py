"""The Anderson lattice through the particle-hole map, against its own direct diagonalization."""

from __future__ import annotations

import numpy as np
import pytest

from bilayer_orchestra.averages import Averages
from bilayer_orchestra.errors import OrchestraError, SpecError
from bilayer_orchestra.model.spec import Model, parse_model
from bilayer_orchestra.running.point import make_request
from tests.support.alf import missing_alf
from tests.support.anderson_force import anderson_oracle

TWO_POINT = ("spin_flip", "green", "density_density", "spin_spin")
ENERGIES = (
    "energy",
    "kinetic_energy",
    "interaction_energy",
    "level_energy",
    "field_energy",
    "total_energy",
)


def anderson(state, length=2, f=(), c=(), **changes) -> Model:
    """Return an Anderson lattice with U = 4, t_c = 1, V = 0.7 and the given changes."""
    data = {
        "version": 1,
        "name": "anderson",
        "model": "anderson",
        "length": length,
        "layers": {
            "f": {"interaction": 4.0} | dict(f),
            "c": {"hopping": 1.0} | dict(c),
        },
        "hybridization": 0.7,
        "state": state,
    }
    return Model.model_validate(data | changes)


def sites_first(array) -> np.ndarray:
    """Return values with sites in the order f0 c0 f1 c1 ..., spin first where there is one."""
    if "x_" in array.dims:
        order = [(x, layer) for x in array.x.values for layer in ("f", "c")]
        stacked = array.stack(i=("x", "layer"), j=("x_", "layer_"))
        return stacked.sel(i=order, j=order).transpose(..., "i", "j").values
    if "x" in array.dims:
        values = array.transpose(..., "x", "layer").values
        return values.reshape(*values.shape[:-2], -1)
    return array.values


def assert_matches(dataset, expected, tolerance):
    for name in ENERGIES:
        assert float(dataset[name]) == pytest.approx(float(expected[name]), abs=tolerance), name
    for name in (*TWO_POINT, "density", "double_occupancy", "magnetization"):
        np.testing.assert_allclose(
            sites_first(dataset[name]), expected[name], atol=tolerance, err_msg=name
        )
    if "log_partition" in expected:
        assert float(dataset.log_partition) == pytest.approx(
            float(expected["log_partition"]), abs=tolerance
        )


H, T = {"field": 0.5}, {"hopping": 1.0, "field": -0.2}
FIELDS = {
    "f": {"interaction": 3.0, "field": 0.4, "hopping": 0.2},
    "c": {"field": -0.3, "hopping": 1.0},
}
CASES = [
    anderson({"n_up": 2, "n_down": 2}),
    anderson({"n_up": 2, "n_down": 1}, boundary="periodic", **FIELDS),
    anderson({"n_up": 3, "n_down": 2}, c={"hopping": 1.0, "interaction": 1.5, "field": 0.2}),
    anderson({"n_up": 1, "n_down": 2}, **FIELDS),
    anderson({"beta": 1.3}, **FIELDS),
    anderson({"beta": 4.0}, boundary="periodic", f={"interaction": 4.0, "field": 0.7}),
    anderson({"beta": 0.8}, boundary="periodic", c={"hopping": 1.0, "interaction": 2.0}),
]


@pytest.mark.parametrize("model", CASES)
def test_every_observable_against_direct_diagonalization(solve, model):
    assert_matches(solve(model, "exact"), anderson_oracle(model), 1e-10)


@pytest.mark.parametrize(
    "model",
    [
        anderson({"n_up": 2, "n_down": 2}),  # singlet of the attractive model: SU(2)
        anderson({"n_up": 3, "n_down": 2}, boundary="periodic", **FIELDS),
    ],
)
def test_dmrg_against_direct_diagonalization(solve, model):
    pytest.importorskip("block2", reason="block2 is missing: pip install block2")
    dataset = solve(model, "block2")
    assert dataset.attrs["converged"], dataset.attrs["converged_reason"]
    assert_matches(dataset, anderson_oracle(model), 1e-6)


@pytest.mark.skipif(missing_alf() is not None, reason=f"{missing_alf()}")
def test_monte_carlo_against_direct_diagonalization(solve):
    """Every element within its error, which for sums and products needs their covariance."""
    alf = {"dtau": [0.1, 0.05], "sweeps": 6000, "sweeps_per_bin": 20, "chains": 2}
    model = anderson(
        {"beta": 2.0}, boundary="periodic", numerics={"alf": alf}, f={"interaction": 2.0, **H}, c=T
    )
    dataset, expected = solve(model, "alf"), anderson_oracle(model)
    for name in (*ENERGIES, *TWO_POINT, "density", "magnetization", "double_occupancy"):
        actual, error = (sites_first(dataset[f"{name}{end}"]) for end in ("", "_stderr"))
        pull = (actual - np.reshape(expected[name], actual.shape))[error > 1e-9]
        pull /= error[error > 1e-9]
        assert np.abs(pull).max(initial=0.0) < 4.5, name
        assert pull.size < 4 or 0.05 < np.mean(pull**2) < 4, name
        assert (error < 0.02).all(), name
        fixed = np.abs(actual - np.reshape(expected[name], actual.shape))[error <= 1e-9]
        assert (fixed < 1e-8).all(), name  # n = 1 at half filling


def test_names_and_definitions_are_those_of_the_anderson_lattice(solve):
    dataset = solve(anderson({"n_up": 2, "n_down": 2}), "exact")
    assert "pair" not in dataset
    assert dataset.spin_flip.attrs["definition"].startswith("<S^+_i S^-_j>")
    assert "level" in dataset.energy.attrs["definition"]
    assert list(dataset.layer.values) == ["f", "c"]
    only = solve(anderson({"n_up": 2, "n_down": 2}, observables=["spin_spin"]), "exact")
    assert {"spin_spin", "energy"} <= set(only)
    assert not {"spin_flip", "density"} & set(only)


def noisy(rng, n, blocks=7) -> tuple[Averages, dict[str, np.ndarray]]:
    shapes = {
        "energy": (),
        "kinetic_energy": (),
        "interaction_energy": (),
        "density": (2, n),
        "double_occupancy": (n,),
        "pair": (n, n),
        "green": (2, n, n),
        "density_density": (n, n),
        "spin_spin": (n, n),
    }
    values = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    deviations = {name: 1e-6 * rng.normal(size=(blocks, *shape)) for name, shape in shapes.items()}
    bias = {name: 1e-3 * rng.random(size=shape) for name, shape in shapes.items()}
    stderr = {name: np.sqrt(np.sum(one**2, axis=0)) for name, one in deviations.items()}
    return Averages(values, bias, stderr, deviations, converged=True), deviations


def test_errors_follow_from_changed_averages():
    """Deviations and bias are those of the map itself, by finite differences."""
    rng = np.random.default_rng(1)
    measured, deviations = noisy(rng, 4)
    model = anderson({"n_up": 2, "n_down": 2}, f={"interaction": 0.7, **H}, c={"interaction": 0.2})
    result = model.reported(measured)
    for block in range(7):
        moved = Averages({k: v + deviations[k][block] for k, v in measured.values.items()})
        shifted = model.reported(moved)
        for name, value in shifted.values.items():
            np.testing.assert_allclose(
                result.deviations[name][block],
                value - result.values[name],
                atol=1e-10,
                err_msg=name,
            )
    for name in result.values:
        np.testing.assert_allclose(
            result.stderr[name], np.sqrt(np.sum(result.deviations[name] ** 2, axis=0))
        )
    # never smaller than what the map makes of errors of these sizes, whatever their signs
    for _ in range(50):
        signed = {k: rng.choice([-1, 1], size=b.shape) * b for k, b in measured.bias.items()}
        moved = Averages({k: v + signed[k] for k, v in measured.values.items()})
        shifted = model.reported(moved)
        for name, value in shifted.values.items():
            change = np.abs(value - result.values[name])
            assert (result.bias[name] >= change - 1e-5).all(), name
    assert set(result.stderr) == set(result.values) == set(result.bias)


def test_what_was_not_estimated_stays_so():
    measured, _ = noisy(np.random.default_rng(2), 4)
    del measured.bias["density"], measured.deviations["pair"], measured.stderr["pair"]
    result = anderson({"n_up": 2, "n_down": 2}).reported(measured)
    assert "spin_flip" not in result.stderr
    assert "spin_spin" not in result.bias  # it needs the densities
    assert "spin_flip" in result.bias


GOOD = """\
version: 1
name: kondo
model: anderson
length: 4
boundary: open
layers:
  f: {interaction: 4.0, field: 0.1}
  c: {hopping: 1.0}
hybridization: 0.5
state: {n_up: 3, n_down: 5}
observables: [spin_flip, spin_spin]
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "expected"),
    [
        ("model: anderson", "model: andersn", 3, "did you mean `anderson`?"),
        ("model: anderson", "model: hubbard", 3, "'bilayer' or 'anderson'"),
        ("hybridization: 0.5", "hybridisation: 0.5", 9, "did you mean `hybridization`?"),
        ("hybridization: 0.5\n", "", None, "`hybridization` is missing"),
        ("interaction: 4.0", "interaction: -4.0", 7, "greater than or equal to 0"),
        ("field: 0.1", "feild: 0.1", 7, "did you mean `field`?"),
        ("  f: {", "  P: {", 7, "did you mean `f`?"),
        ("n_down: 5", "n_down: 9", 10, "does not fit"),
        ("[spin_flip, spin_spin]", "[pair]", 11, "'spin_flip'"),
        ("length: 4\nboundary: open", "length: 5\nboundary: periodic", 4, "not bipartite"),
    ],
)
def test_broken_files(old, new, line, expected):
    assert old in GOOD
    with pytest.raises(SpecError) as caught:
        parse_model(GOOD.replace(old, new, 1), "model.yaml")
    first = caught.value.problems[0]
    assert expected in first, caught.value.problems
    if line is not None:
        assert first.startswith(f"line {line}: ")


def test_yaml_round_trip():
    model = parse_model(GOOD)
    assert parse_model(model.to_yaml()) == model


def test_a_ring_of_two_and_odd_open_chains_are_bipartite():
    anderson({"beta": 1.0}, 2, boundary="periodic")
    anderson({"beta": 1.0}, 3)
    anderson({"beta": 1.0}, 1, boundary="periodic")


def test_refusals_explain_the_map(solve):
    from bilayer_orchestra.engines.registry import get_engine
    from bilayer_orchestra.running.point import checked_request

    with pytest.raises(OrchestraError, match=r"n_down = 8 - 3 = 5.*n_up \+ n_down = 8"):
        checked_request(anderson({"n_up": 3, "n_down": 3}, 4), get_engine("alf"))


def test_targets_of_the_anderson_lattice_reach_the_engine():
    from bilayer_orchestra.engines.registry import get_engine

    targets = {"spin_flip": 0.01, "spin_spin": 0.02, "energy": 0.1}
    model = anderson({"beta": 2.0}, numerics={"alf": {"target_stderr": targets}})
    request = make_request(model, get_engine("alf"))
    assert request.numerics.target_stderr == {"pair": 0.01, "density_density": 0.08, "energy": 0.1}
    assert set(request.observables) == {
        "density",
        "double_occupancy",
        "pair",
        "green",
        "spin_spin",
        "density_density",
    }
