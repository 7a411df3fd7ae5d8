"""What a fit does not answer: options without a meaning, data that do not decay."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from bilayer_orchestra.cli.app import app
from bilayer_orchestra.dataset.schema import write_atomic
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.fits.datasets import fit
from bilayer_orchestra.fits.options import Options
from tests.support.fits import (
    dataset,
    open_green,
    ring_green,
    ring_of,
    sampled,
    strings,
    thermal_green,
)

VARIABLE = {"pair": "pair", "density": "density_density", "green": "green"}
SIZE = 24
R = np.abs(np.subtract.outer(np.arange(SIZE), np.arange(SIZE)))
RNG = np.random.default_rng(1)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    path = tmp_path_factory.mktemp("fits") / "result.nc"
    write_atomic(dataset(strings(open_green(SIZE, 10)), "open"), path)
    return path


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--power", value) for value in ("nan", "-1", "inf", "1")),  # 1: there is no green
        *(("--edge", value) for value in ("-3", "0", "13", "1000")),
        *(("--r-min", value) for value in ("-3", "0", "23", "1000")),
        *(("--r-max", value) for value in ("-3", "1", "24", "1000")),
        *(("--beta", value) for value in ("-3", "nan", "0", "-inf")),
        *(("--wave-vector", value) for value in ("nan", "-0.1", "3.2")),
        *(("--replicas", value) for value in ("-5", "99", "1000000")),
        ("--boundary", "closed"),
        ("--layer", "Q"),
        ("--what", "spin"),
        ("--convention", "mine"),
    ],
)
def test_options_without_a_meaning_are_refused_in_one_line(stored, option, value):
    done = CliRunner().invoke(app, ["fit", str(stored), option, value])
    assert isinstance(done.exception, OrchestraError), done.output
    assert done.stdout == ""
    text = str(done.exception)
    assert "\n" not in text
    assert value in text
    assert not list(stored.parent.glob("fit.*"))


def test_windows_the_wrong_way_around_and_ends_of_a_ring_are_refused(stored):
    with pytest.raises(OrchestraError, match="r_max = 5: should exceed r_min = 5"):
        Options(r_min=5, r_max=5)
    on_ring = dataset(strings(ring_green(SIZE, 10)), "periodic")
    with pytest.raises(OrchestraError, match="a ring has no ends"):
        fit(on_ring, options=Options(edge=2))
    assert float(fit(on_ring, beta=np.inf).pair_eta[0]) == pytest.approx(0.5, rel=0.02)


UNDECAYED = {
    "constant": np.full((SIZE, SIZE), 0.1),
    "zero": np.zeros((SIZE, SIZE)),
    "diagonal": 0.3 * np.eye(SIZE),
    "one neighbour": np.where(R <= 1, 0.3, 0.0),
    "rounding": 1e-17 * RNG.standard_normal((SIZE, SIZE)),
    "growing": 0.01 * (1.0 + R),
    "growing slowly": 0.01 * (1.0 + R) ** 0.3,
    "hardly decaying": 0.1 * (1.0 + R) ** -1e-3,
}
ORDERED = 0.1 + 0.3 * np.exp(-R / 2.0)


@pytest.mark.parametrize("boundary", ["open", "periodic"])
@pytest.mark.parametrize("name", UNDECAYED)
@pytest.mark.parametrize("what", VARIABLE)
def test_what_does_not_decay_has_no_exponent(what, name, boundary):
    matrix = UNDECAYED[name]
    if boundary == "periodic":
        matrix = ring_of(matrix[0, 1 : SIZE // 2 + 1], SIZE)
    with pytest.raises(OrchestraError, match=r"decay|no correlation|negative at|determine"):
        fit(dataset(matrix, boundary, name=VARIABLE[what]), what)


def test_order_at_all_distances_has_no_exponent():
    with pytest.raises(OrchestraError, match=r"does not decay: 0.1\d* at r = 14, 0.1 at r = 21"):
        fit(dataset(ORDERED, "open"))


@pytest.mark.parametrize("level", [0.0, 0.1])
def test_noise_around_a_constant_has_no_exponent(level):
    answers = []
    for seed in range(20):
        one = sampled(seed, np.full(24, level), 0.003**2 * np.eye(24), 64)
        try:
            answers.append(float(fit(one).pair_eta[0]))
        except OrchestraError:
            continue
    # in one of six cases a constant with noise seems to fall by more than one error
    assert len(answers) <= (0 if level == 0 else 7)
    assert all(eta > 0 for eta in answers)


@pytest.mark.slow
def test_numbers_that_must_be_positive_are():
    """In all points of the figures' data: what is told is positive, what is not has a reason."""
    from bilayer_orchestra.dataset.schema import open_result
    from tests.support.paths import DOCS_DATA

    told = refused = 0
    data = open_result(DOCS_DATA / "fig2.nc").sel(t_perp=[0.5, 1.5])
    for what in VARIABLE:
        found = fit(data, what)
        for name in ("eta", "K", "xi", "power"):
            if f"{what}_{name}" in found:
                values = found[f"{what}_{name}"].values
                assert (values[np.isfinite(values)] > 0).all(), (what, name)
                assert not np.isinf(values).any()
                told += np.isfinite(values).sum()
        ok = found[f"{what}_status"].values == "ok"
        main = found[f"{what}_{'inverse_xi' if what == 'green' else 'eta'}"].values
        assert np.isnan(main[~ok]).all()
        assert (np.char.str_len(found[f"{what}_status"].values[~ok]) > 20).all()
        refused += (~ok).sum()
    assert told > 40
    assert refused > 8
    # pairs of the P layer grow with distance there: eta = -0.568 +- 0.076 was told, K = -1.76
    grown = fit(data, "pair", ["P"]).pair_status.sel(t_perp=0.5, densities="non-diluted")
    assert "eta = -0.568 +- 0.076 is below zero" in grown.item()


def test_a_length_is_not_that_of_a_form_that_grows_first():
    """r^2 exp(-r/3) falls at last, and is no metal; r^-1 and exp(-r/3) r^-1 are."""
    r = np.maximum(R, 1)
    with pytest.raises(OrchestraError, match=r"power = -2 .*below zero"):
        fit(dataset(0.01 * r**2 * np.exp(-r / 3), "open", name="green"), "green")
    plain = fit(dataset(0.3 / r, "open", name="green"), "green").isel(layer=0)
    assert float(plain.green_power) == pytest.approx(1, abs=0.01)
    assert np.isnan(float(plain.green_xi))  # it was told as 1e9, or as infinite
    assert "xi > " in plain.green_warnings.item()
    both = fit(dataset(0.3 / r * np.exp(-r / 3), "open", name="green"), "green").isel(layer=0)
    assert float(both.green_xi) == pytest.approx(3, rel=0.01)


def test_a_search_that_stays_where_it_began_is_no_result():
    """Its chi^2 said so: 66 for each degree of freedom, where the error of form makes it one."""
    from bilayer_orchestra.dataset.schema import open_result
    from tests.support.paths import DOCS_DATA

    point = open_result(DOCS_DATA / "fig2.nc").sel(t_perp=1.5, densities="diluted")
    with pytest.raises(OrchestraError, match=r"chi\^2/dof = 66"):
        fit(point, "density", ["M"])


def test_a_kind_that_fails_does_not_stop_the_others(tmp_path):
    one = dataset(strings(open_green(32, 12)), "open")
    one["density_density"] = 0 * one["pair"]
    write_atomic(one, tmp_path / "result.nc")
    (tmp_path / "fit.png").write_bytes(b"of other options")
    asked = ["fit", str(tmp_path / "result.nc"), "--no-plot"]
    named = [*asked, "--what", "density", "--what", "pair", "--what", "green"]
    done = CliRunner().invoke(app, named)
    assert done.exit_code == 1, done.output
    assert "no fit: density, layer P: there is no correlation" in done.output
    assert "no fit: the dataset has no green" in done.output
    assert "eta" in done.output
    assert not (tmp_path / "fit.png").exists()
    with xr.open_dataset(tmp_path / "fit.nc") as stored:
        assert float(stored.pair_eta[0]) == pytest.approx(0.5, rel=0.02)
    assert CliRunner().invoke(app, asked).exit_code == 0  # what is there was fitted, the rest said
    alone = CliRunner().invoke(app, [*asked, "--what", "density"])
    assert "nothing in" in str(alone.exception)


NAMED = """\
axes:
  ensemble:
    path: state
    values:
      cold: {n_up: 24, n_down: 24}
      warm: {beta: 8.0}
  chain: {path: boundary, values: [open, periodic]}
"""


def test_every_point_is_fitted_as_its_own_model_says():
    """Temperatures and boundaries behind names: all were fitted as the first point."""
    cold, warm = strings(open_green(48, 24)), strings(thermal_green(48, 8.0, 0.0))
    ring = strings(ring_green(48, 24))
    points = [[dataset(matrix, "open") for matrix in row] for row in ([cold, ring], [warm, warm])]
    rows = [xr.concat(row, xr.IndexVariable("chain", ["open", "periodic"])) for row in points]
    swept = xr.concat(rows, xr.IndexVariable("ensemble", ["cold", "warm"]))
    swept.coords["chain"].attrs["model_path"] = "boundary"
    swept.coords["ensemble"].attrs["model_path"] = "state"
    swept.attrs |= {"study": NAMED, "study_name": "named"}
    found = fit(swept).isel(layer=0)
    assert found.pair_form.sel(ensemble="cold", chain="open").item() == "open"
    assert found.pair_form.sel(ensemble="cold", chain="periodic").item().startswith("periodic")
    thermal = found.sel(ensemble="warm", chain="open")
    assert thermal.pair_form.item().startswith("thermal")
    assert float(thermal.pair_xi) == pytest.approx(16, rel=0.05)  # v beta
    assert np.isnan(found.pair_xi.sel(ensemble="cold")).all()
    for matrix, chain in ((cold, "open"), (ring, "periodic")):
        alone = float(fit(dataset(matrix, chain)).pair_eta[0])
        together = float(found.pair_eta.sel(ensemble="cold", chain=chain))
        assert together == pytest.approx(alone)


def test_what_is_printed_has_an_error_that_is_no_zero():
    from bilayer_orchestra.fits.datasets import rounded

    assert rounded(3.7331, 0.42) == "3.73"
    assert rounded(0.0016, 0.42) == "0.002"  # a small statistical beside a large other error
    assert rounded(0.0, 0.42) == "0.00"


@pytest.mark.parametrize("size", [np.inf, 1e200])
def test_what_no_electrons_have_is_not_fitted(size):
    """1e200 r^-0.5 overflows in chi^2: the search stayed at its first guess, without an error."""
    data = dataset(size * (1.0 + R) ** -0.5, "open")
    with pytest.raises(OrchestraError, match="infinite, or beyond any correlation"):
        fit(data, "pair")


def test_a_fit_that_contradicts_its_model_says_so():
    data = dataset(strings(open_green(SIZE, 10)), "open")
    for more, text in (
        ({"boundary": "periodic"}, "fitted as if periodic, the model is open"),
        ({"beta": 50.0}, "fitted with beta = 50, the model has inf"),
        ({"boundary": "open", "beta": np.inf}, ""),
    ):
        warnings = fit(data, "pair", **more)["pair_warnings"].values.tolist()
        assert text in warnings[0]
        assert ("the model" in warnings[0]) == bool(text)
