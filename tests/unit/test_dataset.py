"""The labelled dataset: one schema, errors never silently zero, files that open plainly."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Literal, NamedTuple

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from bilayer_orchestra.analysis.truncation import extrapolate
from bilayer_orchestra.averages import Averages, observables_from_raw
from bilayer_orchestra.dataset.reading import by_site
from bilayer_orchestra.dataset.schema import append_history, build, open_result, write_atomic
from bilayer_orchestra.engines.registry import get_engine
from bilayer_orchestra.errors import EngineError, OrchestraError
from bilayer_orchestra.model.bilayer import OBSERVABLES as SELECTABLE
from bilayer_orchestra.model.spec import Model
from bilayer_orchestra.observables import OBSERVABLES
from bilayer_orchestra.running.point import Runner, run_point
from bilayer_orchestra.terms import Site, Terms
from tests.support.brute_force import oracle
from tests.support.commands import orchestra
from tests.support.models import make_model

TERMS = make_model({"n_up": 2, "n_down": 2}, 3).terms()


def numbered(terms):
    """Averages whose two-point elements encode their site labels."""
    n = terms.n_sites
    code = np.array([10 * site.x + (site.layer == "M") for site in terms.sites], float)
    return Averages(
        values={
            "energy": np.array(-1.0),
            "density": np.stack([code, -code]),
            "pair": 100 * code[:, None] + code[None, :],
            "green": np.zeros((2, n, n)),
        },
        bias={"pair": np.full((n, n), 1e-5)},
        stderr={"pair": np.full((n, n), 2e-3)},
        diagnostics={"gap": 0.1},
    )


def test_every_element_is_under_its_label():
    dataset = build(TERMS, numbered(TERMS), ("density", "pair"))
    for i in TERMS.sites:
        for j in TERMS.sites:
            value = dataset.pair.sel(layer=i.layer, x=i.x, layer_=j.layer, x_=j.x)
            expected = 100 * (10 * i.x + (i.layer == "M")) + 10 * j.x + (j.layer == "M")
            assert float(value) == expected
    assert float(dataset.density.sel(spin="down", layer="M", x=2)) == -21


def test_labels_do_not_depend_on_the_site_order():
    order = [3, 0, 5, 1, 4, 2]
    shuffled = TERMS.permuted(order)
    # layers are listed in order of first appearance, hence compare by label
    one = build(TERMS, numbered(TERMS), ("density", "pair"))
    other = build(shuffled, numbered(shuffled), ("density", "pair"))
    xr.testing.assert_equal(one, other.sel(layer=one.layer, layer_=one.layer_))


def test_what_is_not_estimated_is_nan_and_what_is_not_asked_for_is_absent():
    dataset = build(TERMS, numbered(TERMS), ("density", "pair"))
    assert np.isnan(dataset.density_bias).all()
    assert np.isnan(dataset.energy_bias)
    assert (dataset.pair_bias == 1e-5).all()
    assert (dataset.pair_stderr == 2e-3).all()
    assert "density_stderr" not in dataset
    assert "green" not in dataset


def test_sites_that_do_not_exist_are_nan():
    terms = make_model({"n_up": 1, "n_down": 1}, 2).terms()
    object.__setattr__(terms, "sites", (Site("P", 0), Site("M", 0), Site("P", 1), Site("M", 2)))
    dataset = build(terms, numbered(terms), ("density", "pair"))
    assert np.isnan(dataset.density.sel(layer="P", x=2)).all()
    assert not np.isnan(dataset.density.sel(layer="M", x=2)).any()


def test_units_and_definitions_survive_the_file(tmp_path, solve):
    model = make_model({"n_up": 1, "n_down": 1}, 2)
    path = tmp_path / "copy.nc"
    write_atomic(solve(model, "exact"), path)
    with xr.open_dataset(path) as dataset:  # plain, without any of our code
        measured = [name for name in OBSERVABLES if name in dataset]
        assert set(SELECTABLE) <= set(measured)
        for name in measured:
            assert {"units", "long_name", "definition"} <= set(dataset[name].attrs), name
        for key in ("model", "request_hash", "engine", "backend", "seed", "command", "created"):
            assert key in dataset.attrs
        assert dataset.attrs["converged"] == 1
        assert dataset.attrs["orchestra_schema"] == 1
        assert set(dataset.pair.dims) == {"layer", "x", "layer_", "x_"}
        assert dataset.attrs["history"].count("\n") == 0


def test_history_only_grows():
    dataset = xr.Dataset()
    append_history(dataset, "first")
    append_history(dataset, "second")
    lines = dataset.attrs["history"].splitlines()
    assert [line.split()[1] for line in lines] == ["first", "second"]


def test_foreign_files_are_refused(tmp_path):
    xr.Dataset({"a": 1}).to_netcdf(tmp_path / "foreign.nc")
    (tmp_path / "broken.nc").write_bytes(b"half a fi")
    for name, expected in [("foreign", "not a dataset"), ("broken", "cannot"), ("none", "cannot")]:
        with pytest.raises(OrchestraError, match=expected):
            open_result(tmp_path / f"{name}.nc")


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    "words",
    [("run", "MODEL"), ("fit", "RESULT"), ("check", "RESULT", "RESULT"), ("check", "--identities")],
)
def test_a_file_that_another_program_has_open_is_said_in_one_line(tmp_path, words):
    """Such as a notebook that opened a result for writing and holds HDF5's lock."""
    model = tmp_path / "model.yaml"
    model.write_text(make_model({"n_up": 2, "n_down": 2}, 3).to_yaml())
    assert orchestra("run", model, "-o", tmp_path / "runs", "--no-plot").returncode == 0
    (result,) = tmp_path.glob("runs/*/result.nc")
    names = {"MODEL": (model, "-o", tmp_path / "runs"), "RESULT": (result,)}
    command = [word for name in words for word in names.get(name, (name,))]
    command += [result] if words[-1] == "--identities" else []
    hold = "import netCDF4, sys; file = netCDF4.Dataset(sys.argv[1], 'a'); print(); input()"
    holder = subprocess.Popen(
        [sys.executable, "-uc", hold, result], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        told = orchestra(*command, cwd=tmp_path)
        assert holder.stdin is not None
        holder.stdin.write(b"\n")
        holder.stdin.close()
    assert told.returncode == (3 if words[0] == "check" else 1)
    assert told.stderr.count("\n") == 1, told.stderr
    assert f"{result} is open for writing in another program" in told.stderr
    assert orchestra(*command, cwd=tmp_path).returncode in (0, 1)  # too short for a fit


def test_nan_from_an_engine_is_an_error_and_not_a_result():
    raw = {"green": np.zeros((2, 6, 6)), "double_occupancy": np.full(6, np.nan)}
    with pytest.raises(EngineError, match="double_occupancy"):
        observables_from_raw(raw, TERMS)


@pytest.mark.parametrize("of", ["bias", "stderr"])
def test_a_negative_size_is_no_result(of):
    """Plots and fits take it for a size: no engine, of ours or a guest, gives a signed one."""
    with pytest.raises(ValueError, match="pair is negative"):
        Averages({"pair": np.zeros(2)}, **{of: {"pair": np.array([1e-5, -1e-5])}})
    Averages({"pair": np.zeros(2)}, **{of: {"pair": np.array([0.0, np.nan])}})


def test_signed_biases_of_earlier_versions_are_read_as_sizes(tmp_path):
    dataset = build(TERMS, numbered(TERMS), ("density", "pair"))
    dataset.attrs["orchestra_schema"] = 1
    dataset["pair_bias"] = -dataset.pair_bias
    dataset["energy_bias"] = dataset.energy_bias - 2e-3  # stays NaN: not estimated
    dataset.pair_bias.attrs["units"] = "1"
    write_atomic(dataset, tmp_path / "result.nc")
    read = open_result(tmp_path / "result.nc")
    assert (read.pair_bias == 1e-5).all()
    assert np.isnan(read.energy_bias)
    assert read.pair_bias.attrs["units"] == "1"
    xr.testing.assert_equal(read.pair, dataset.pair)


class TestExtrapolation:
    weights = np.array([1e-5, 1e-6, 1e-7])

    def test_a_line_is_extrapolated_exactly(self):
        values = np.array([2.0, -1.0]) + np.outer(self.weights, [3e3, -40.0])
        limit = extrapolate(self.weights, values, variational=True)
        np.testing.assert_allclose(limit.value, [2.0, -1.0], atol=1e-12)
        np.testing.assert_allclose(limit.bias, np.abs(values[-1] - [2.0, -1.0]), atol=1e-12)
        correlator = extrapolate(self.weights, values)
        np.testing.assert_allclose(correlator.value, [2.0, -1.0], atol=1e-12)
        assert np.all(correlator.bias >= limit.bias)

    def test_an_error_of_the_missing_amplitude_is_covered_in_correlators(self):
        """An element that is off by a sqrt(w): a line through it sees a quarter of its error."""
        values = 2.0 + 7.0 * np.sqrt(self.weights)
        limit = extrapolate(self.weights, values)
        assert abs(float(limit.value) - 2.0) <= float(limit.bias)
        line = extrapolate(self.weights, values, variational=True)
        assert abs(float(line.value) - 2.0) > 2 * float(line.bias)

    def test_the_value_never_moves_further_than_the_last_step(self):
        rng = np.random.default_rng(3)
        values = rng.standard_normal((3, 200))
        limit = extrapolate(self.weights, values)
        step = np.abs(values[-2] - values[-1])
        assert np.all(np.abs(limit.value - values[-1]) <= step + 1e-12)

    def test_weights_that_do_not_fall_give_the_last_value_and_the_last_step(self):
        limit = extrapolate(np.array([1e-6, 0.9e-6]), np.array([1.0, 1.5]))
        assert (float(limit.value), float(limit.bias)) == (1.5, 0.5)

    @given(st.lists(st.floats(0, 1e-2), min_size=2, max_size=5), st.integers(0, 99), st.booleans())
    def test_a_bias_is_a_size_whatever_the_stages(self, weights, seed, variational):
        values = np.random.default_rng(seed).normal(size=(len(weights), 3, 3))
        assert (extrapolate(np.array(weights), values, variational).bias >= 0).all()

    def test_one_stage_is_not_an_estimate(self):
        assert np.isnan(extrapolate(np.array([1e-6]), np.array([1.0])).bias)


class Place(NamedTuple):
    """Label of a site of a plane: not that of coupled chains."""

    kind: str
    row: int
    column: int


class Plane(Model):
    """Two by two rungs of two kinds of sites, as a geometry with labels of its own."""

    model: Literal["plane"] = "plane"
    observables: tuple[str, ...] = ("density", "pair", "green")

    @property
    def sites(self):
        return tuple(Place(k, r, c) for r in range(2) for c in range(2) for k in "ab")

    def terms(self):
        index = np.arange(8)
        h = -1.0 * (abs(index[:, None] - index) == 1)
        return Terms(self.sites, h, -2.0 * (index % 2), 0.1 * index, self.state.as_terms())


def test_a_geometry_declares_the_dimensions_of_its_sites(tmp_path):
    """Its labels' fields: through exact diagonalization, file and reading back."""
    model = Plane(version=1, name="plane", state={"n_up": 1, "n_down": 1})
    terms = model.terms()
    again = Terms.from_dict(json.loads(json.dumps(terms.to_dict())))
    assert again.sites == terms.sites
    assert again.dims == ("kind", "row", "column")
    outcome = run_point(model, get_engine("exact"), Runner(tmp_path))
    dataset = open_result(outcome.run.result, ("a result",))
    assert dataset.density.dims == ("spin", "kind", "row", "column")
    assert dataset.pair.dims == (*terms.dims, "kind_", "row_", "column_")
    assert dataset.pair_bias.dims == dataset.pair.dims
    expected = oracle(terms)
    for name in ("density", "double_occupancy", "pair", "green"):
        if name in dataset:
            np.testing.assert_allclose(
                by_site(dataset[name], terms.sites), expected[name], atol=1e-8
            )
    one, other = terms.sites[1], terms.sites[6]
    element = dataset.pair.sel(one._asdict() | {f"{k}_": v for k, v in other._asdict().items()})
    assert float(element) == pytest.approx(expected["pair"][1, 6], abs=1e-8)
