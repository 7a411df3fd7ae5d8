"""Fits against exactly solvable models and synthetic data with known parameters."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from bilayer_orchestra.analysis.limits import extrapolate
from bilayer_orchestra.cli.app import app
from bilayer_orchestra.dataset import write_atomic
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.fits.fit import fit
from tests.fit_support import dataset, open_green, ring_green, strings, thermal_green


def test_the_determinants_are_hard_core_bosons():
    """Against the two-boson problem on four sites, by brute force."""
    size = 4
    pairs = [(a, b) for a in range(size) for b in range(a + 1, size)]
    h = np.zeros((6, 6))
    for p, one in enumerate(pairs):
        for q, other in enumerate(pairs):
            moved = set(one) ^ set(other)
            if len(moved) == 2 and abs(np.subtract(*moved)) == 1:
                h[p, q] = -1.0
    state = np.linalg.eigh(h)[1][:, 0]
    expected = 0.0
    for p, one in enumerate(pairs):
        if 3 in one and 0 not in one:
            q = pairs.index(tuple(sorted(set(one) - {3} | {0})))
            expected += state[p] * state[q]
    assert strings(open_green(4, 2))[0, 3] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("particles", [12, 30, 48, 60])
@pytest.mark.parametrize("boundary", ["open", "periodic"])
def test_hard_core_bosons_at_zero_temperature_have_eta_one_half(boundary, particles):
    green = {"open": open_green, "periodic": ring_green}[boundary](96, particles)
    found = fit(dataset(strings(green), boundary))
    eta, error = float(found.pair_eta[0]), float(found.pair_eta_systematic[0])
    assert eta == pytest.approx(0.5, rel=0.01)
    assert abs(eta - 0.5) < 3 * error + 1e-4
    assert np.isnan(found.pair_eta_stderr[0])  # there is no statistical error
    assert float(found.pair_K[0]) == pytest.approx(1 / eta)


def test_a_plain_power_law_on_the_same_open_chain_is_wrong():
    matrix = strings(open_green(96, 48))
    x, y = np.triu_indices(96, 4)
    slope = -np.polyfit(np.log(y - x), np.log(matrix[x, y]), 1)[0]
    assert slope > 0.53


def test_hard_core_bosons_at_finite_temperature():
    mu = -0.6
    found = fit(dataset(strings(thermal_green(96, 8.0, mu)), "open", beta=8.0))
    velocity = 2 * np.sin(np.arccos(-mu / 2))
    assert float(found.pair_eta[0]) == pytest.approx(0.5, rel=0.02)
    assert float(found.pair_xi[0]) == pytest.approx(velocity * 8.0, rel=0.02)


def test_density_of_free_fermions():
    green = open_green(64, 20)
    found = fit(dataset(-(green**2), "open", name="density_density"), "density")
    assert float(found.density_eta[0]) == pytest.approx(2.0, rel=0.01)
    assert float(found.density_wave_vector[0]) == pytest.approx(2 * np.pi * 20.5 / 65, rel=0.01)


def test_thermal_green_decays_with_v_beta_over_pi():
    green = thermal_green(96, 6.0, -0.5)
    found = fit(dataset(green, "open", beta=6.0, name="green"), "green")
    velocity = 2 * np.sin(np.arccos(0.25))
    assert float(found.green_xi[0]) == pytest.approx(velocity * 6.0 / np.pi, rel=0.03)
    assert float(found.green_wave_vector[0]) == pytest.approx(np.arccos(0.25), rel=0.02)


def noisy(seed, contamination=0.0, blocks=64, size=48, eta=0.7):
    """A ring with correlated noise; the first distances may lie above the form."""
    rng = np.random.default_rng(seed)
    r = np.arange(1, size // 2 + 1)
    distance = size / np.pi * np.sin(np.pi * r / size)
    exact = distance**-eta * (1 + contamination * np.exp(-(r - 1) / 1.5))
    sigma = 0.01 * exact * (0.3 + r / 6)
    correlation = np.exp(-np.abs(np.subtract.outer(r, r)) / 6)
    samples = exact + rng.multivariate_normal(
        np.zeros(len(r)), blocks * np.outer(sigma, sigma) * correlation, size=blocks
    )
    deviations = (samples - samples.mean(axis=0)) / np.sqrt(blocks * (blocks - 1))
    x = np.arange(size)
    separation = np.abs(np.subtract.outer(x, x))
    index = np.minimum(separation, size - separation) - 1
    return dataset(samples.mean(axis=0)[index], "periodic", deviations=deviations[:, index])


@pytest.mark.parametrize("contamination", [0.0, 0.3])
def test_stated_errors_cover_the_truth(contamination):
    from bilayer_orchestra.fits.point import Options

    inside, deviations = 0, []
    for seed in range(60):
        found = fit(noisy(seed, contamination), options=Options(replicas=500))
        error = np.hypot(float(found.pair_eta_stderr[0]), float(found.pair_eta_systematic[0]))
        deviations.append(float(found.pair_eta[0]) - 0.7)
        inside += abs(deviations[-1]) < error
    assert 0.55 < inside / 60 < 0.95
    assert abs(np.mean(deviations)) < 0.6 * np.std(deviations)


def test_contaminated_distances_are_left_out():
    found = fit(noisy(1, contamination=0.5))
    scan = found.isel(layer=0)
    weight_of_all = float(scan.pair_scan_weight[scan.pair_scan_r_min == 1].sum())
    assert weight_of_all < 1e-3
    first = float(scan.pair_scan_eta[scan.pair_scan_r_min == 1][0])
    assert abs(first - 0.7) > 5 * abs(float(scan.pair_eta) - 0.7)


def test_sweeps_keep_their_dimensions_and_skip_missing_points():
    one = dataset(strings(ring_green(32, 16)), "periodic")
    other = dataset(strings(ring_green(32, 10)), "periodic")
    empty = one.copy(deep=True)
    empty["pair"][:] = np.nan
    swept = xr.concat(
        [one, empty, other], xr.DataArray([0.1, 0.2, 0.3], dims="t_perp", name="t_perp")
    )
    swept.attrs = one.attrs
    found = fit(swept)
    assert found.pair_eta.dims == ("layer", "t_perp")
    assert np.isnan(found.pair_eta.sel(t_perp=0.2)).all()
    assert "no values" in str(found.pair_status.sel(t_perp=0.2).item())
    alone = fit(other)
    assert float(found.pair_eta.sel(t_perp=0.3)[0]) == pytest.approx(float(alone.pair_eta[0]))


def test_what_the_data_cannot_determine_is_refused():
    with pytest.raises(OrchestraError, match="do not determine"):
        fit(dataset(strings(open_green(5, 2)), "open"))
    with pytest.raises(OrchestraError, match="negative"):
        fit(dataset(open_green(32, 10), "open"))
    nameless = dataset(strings(open_green(24, 10)), "open")
    nameless.attrs["model"] = ""
    with pytest.raises(OrchestraError, match="boundary"):
        fit(nameless)


def test_command_line(tmp_path):
    write_atomic(dataset(strings(open_green(32, 12)), "open"), tmp_path / "result.nc")
    done = CliRunner().invoke(app, ["fit", str(tmp_path / "result.nc"), "--what", "pair"])
    assert done.exit_code == 0, done.output
    assert "eta" in done.output
    with xr.open_dataset(tmp_path / "fit.nc") as stored:
        assert "luther-emery" in stored.pair_K.attrs["convention"]
        assert stored.pair_eta.attrs["units"] == "1"
    assert (tmp_path / "fit.png").stat().st_size > 10_000


class TestLimits:
    def test_trotter_line_with_errors(self):
        rng = np.random.default_rng(0)
        dtau = np.array([0.05, 0.1, 0.15, 0.2])
        inside = []
        for _ in range(300):
            values = 2.0 - 3.0 * dtau**2 + 0.01 * rng.standard_normal(4)
            data = xr.Dataset(
                {"energy": ("dtau", values), "energy_stderr": ("dtau", np.full(4, 0.01))},
                {"dtau": dtau},
            )
            limit = extrapolate(data, "dtau", "trotter", ["energy"])
            inside.append(abs(float(limit.energy) - 2.0) < float(limit.energy_stderr))
        assert 0.6 < np.mean(inside) < 0.76

    def test_temperature_with_a_gap(self):
        beta = np.array([2.0, 4.0, 6.0, 8.0, 10.0])
        data = xr.Dataset(
            {"pair": (("x", "beta"), 1 + np.outer([1.0, -2.0], np.exp(-0.5 * beta)))},
            {"beta": beta},
        )
        limit = extrapolate(data, "beta", "gap", ["pair"])
        np.testing.assert_allclose(limit.pair, 1.0, atol=1e-6)
        np.testing.assert_allclose(limit.pair_gap, 0.5, rtol=1e-4)
        assert limit.pair.dims == ("x",)

    def test_too_few_points_are_refused(self):
        data = xr.Dataset({"energy": ("length", [1.0])}, {"length": [8]})
        with pytest.raises(OrchestraError, match="needs 2"):
            extrapolate(data, "length", "size", ["energy"])
