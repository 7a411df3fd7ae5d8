"""Fits against exactly solvable models and synthetic data with known parameters."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from bilayer_orchestra.analysis.limits import extrapolate
from bilayer_orchestra.cli.app import app
from bilayer_orchestra.dataset.schema import write_atomic
from bilayer_orchestra.errors import OrchestraError
from bilayer_orchestra.fits.datasets import fit
from bilayer_orchestra.fits.forms import CORRECTION, pair
from bilayer_orchestra.fits.options import Options
from bilayer_orchestra.fits.pairs import pairs_of
from bilayer_orchestra.fits.scan import sensible
from bilayer_orchestra.fits.solve import Problem, Window
from bilayer_orchestra.fits.weights import statistical_weights
from tests.support.fits import (
    dataset,
    open_green,
    ring_green,
    ring_of,
    sampled,
    strings,
    thermal_green,
)


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


# filling 1/5 at beta = 4 is not low (the band's curvature counts); the error must say so
@pytest.mark.parametrize(
    ("size", "beta", "filling"),
    [(64, 4.0, 0.5), (64, 5.0, 1 / 3), (96, 8.0, 0.4), (96, 10.0, 0.3), (96, 12.0, 0.2)],
)
def test_hard_core_bosons_at_finite_temperature(size, beta, filling):
    matrix = strings(thermal_green(size, beta, -2 * np.cos(np.pi * filling)))
    found = fit(dataset(matrix, "open", beta=beta)).isel(layer=0)
    length = 2 * np.sin(np.pi * filling) * beta
    for name, exact in (("eta", 0.5), ("xi", length)):
        value, error = (float(found[f"pair_{name}{one}"]) for one in ("", "_systematic"))
        assert abs(value - exact) < 1.5 * error
        assert value == pytest.approx(exact, rel=0.05 if beta < 8 else 0.02)
        assert error < 0.1 * exact


def test_a_temperature_that_is_not_low_is_said():
    matrix = strings(thermal_green(64, 6.0, -2 * np.cos(0.1 * np.pi)))
    found = fit(dataset(matrix, "open", beta=6.0)).isel(layer=0)
    assert "temperature is not low" in found.pair_warnings.item()
    assert abs(float(found.pair_eta) - 0.5) < 1.5 * float(found.pair_eta_systematic)


@pytest.mark.lowest
def test_rings_at_finite_temperature():
    """Determinants for rings sum over both parities; a form with both ways around is made."""
    size, eta, xi = 96, 0.8, 14.0
    r = np.arange(1, size // 2 + 1)
    s = [xi / np.pi * np.sinh(np.pi * z / xi) for z in (r, size - r)]
    found = fit(dataset(ring_of(s[0] ** -eta + s[1] ** -eta, size), "periodic", beta=7.0))
    assert float(found.pair_eta[0]) == pytest.approx(eta, rel=1e-4)
    assert float(found.pair_xi[0]) == pytest.approx(xi, rel=1e-4)


@pytest.mark.parametrize(
    ("beta", "filling"), [(8.0, 0.3), (8.0, 0.4), (12.0, 0.2), (16.0, 0.3), (8.0, 0.5)]
)
def test_density_of_free_fermions_at_finite_temperature(beta, filling):
    """-G^2 holds both terms of the form with eta = 2; the nearest pole of the Fermi function says
    how it oscillates and decays: -2 cos k = mu + i pi / beta."""
    green = thermal_green(96, beta, -2 * np.cos(np.pi * filling))
    given = dataset(-(green**2), "open", beta=beta, name="density_density")
    given["density"] = (("layer", "x"), 2 * np.diag(green)[None])
    one = fit(given, "density").isel(layer=0)
    pole = np.arccos(np.cos(np.pi * filling) - 0.5j * np.pi / beta)
    assert float(one.density_wave_vector) == pytest.approx(2 * pole.real, rel=0.015)
    assert float(one.density_xi) == pytest.approx(np.pi / abs(pole.imag), rel=0.015)
    field_theory = {
        "eta": 2.0,
        "xi": 2 * np.sin(np.pi * filling) * beta,
        "wave_vector": 2 * np.pi * filling,
    }
    for name, exact in field_theory.items():
        error = float(one[f"density_{name}_systematic"])
        assert abs(float(one[f"density_{name}"]) - exact) < 2 * error
        assert error < 0.15 * exact


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
    r = np.arange(1, size // 2 + 1)
    exact = chord(r, size) ** -eta * (1 + contamination * np.exp(-(r - 1) / 1.5))
    sigma = 0.01 * exact * (0.3 + r / 6)
    correlation = np.exp(-np.abs(np.subtract.outer(r, r)) / 6)
    return sampled(seed, exact, np.outer(sigma, sigma) * correlation, blocks)


def common_mode(seed, contamination, blocks=64, size=32, eta=0.4):
    """Noise that moves all distances together; a correction r^-2 that no chi^2 sees."""
    distance = chord(np.arange(1, size // 2 + 1), size)
    exact = distance**-eta * (1 + contamination / distance**2)
    sigma = 0.004 * exact * (0.5 + np.arange(1, size // 2 + 1) / 8)
    correlation = 0.7 + 0.3 * np.eye(size // 2)
    return sampled(seed, exact, np.outer(sigma, sigma) * correlation, blocks)


def absolute(seed, contamination, blocks=32, size=64, eta=1.2):
    """The same noise at all distances, a correction that oscillates."""
    r = np.arange(1, size // 2 + 1)
    distance = chord(r, size)
    exact = distance**-eta * (1 + contamination * np.cos(2.1 * r) * distance**-1.5)
    return sampled(seed, exact, 4e-4**2 * 0.85 ** np.abs(np.subtract.outer(r, r)), blocks)


def chord(r, size):
    return size / np.pi * np.sin(np.pi * r / size)


@pytest.mark.slow
def test_stated_errors_cover_the_truth():
    """In 68 % of all cases, whatever the noise and what else there is at small distances."""
    families = [(noisy, 0.7, 0.0), (noisy, 0.7, 0.3), (common_mode, 0.4, 0.0)]
    families += [(common_mode, 0.4, 0.1), (absolute, 1.2, 0.0), (absolute, 1.2, 0.3)]
    shares = []
    for family, eta, contamination in families:
        pulls = []
        for seed in range(40):
            found = fit(family(seed, contamination)).isel(layer=0)
            error = np.hypot(float(found.pair_eta_stderr), float(found.pair_eta_systematic))
            pulls.append((float(found.pair_eta) - eta) / error)
        shares.append(np.mean(np.abs(pulls) < 1))
        assert 0.5 < shares[-1] < 0.85  # 68 % +- 7 % of 40
        assert np.mean(np.abs(pulls) < 2) > 0.82  # 95 % +- 3.5 %
        assert abs(np.mean(pulls)) < 0.8
    assert 0.6 < np.mean(shares) < 0.76  # +- 2.5 %


def test_what_no_chi_square_sees_is_in_the_error():
    """A correction r^-2 of 30 % moves a plain fit by more than two of its own errors."""
    misses, errors = [], []
    for seed in range(40):
        one = fit(common_mode(seed, 0.3)).isel(layer=0)
        plain = one.isel(window=np.flatnonzero(one.pair_scan_form == "periodic"))
        heaviest = plain.isel(window=int(np.argmax(plain.pair_scan_weight.values)))
        miss = abs(float(heaviest.pair_scan_eta) - 0.4)
        misses.append(miss / float(heaviest.pair_scan_eta_error))
        total = np.hypot(float(one.pair_eta_stderr), float(one.pair_eta_systematic))
        errors.append(abs(float(one.pair_eta) - 0.4) / total)
    assert np.median(misses) > 1.5
    assert np.mean(np.array(errors) < 1) > 0.4
    assert np.mean(np.array(errors) < 2) > 0.85


def test_a_correction_does_not_replace_the_leading_term():
    """r^-1.45 is also r^0.55 [1 + b r^-2] with a huge b, and a search may end there."""
    one = noisy(4, eta=1.45)
    form = pair(periodic=True, thermal=False, correction=CORRECTION)
    series = pairs_of(one, "pair", "P", True, None).by_distance()
    problem = Problem(Window(form, 1, 24, 1), series, statistical_weights(series))
    right, wrong = problem.solve(np.array([1.4])), problem.solve(np.array([-0.6]))
    assert right.value("eta") == pytest.approx(1.45, abs=0.1)
    assert wrong.value("eta") < 0
    assert wrong.chi2 < 2 * wrong.dof  # chi^2 alone does not tell
    assert sensible(right)
    assert not sensible(wrong)


def test_a_misfit_in_every_window_widens_the_error():
    totals, warnings = [], []
    for strength in (0.0, 0.3):
        r = np.arange(1, 25)
        exact = chord(r, 48) ** -0.7 * (1 + strength * np.cos(1.3 * r))
        one = fit(sampled(2, exact, np.diag((0.01 * exact) ** 2), 64)).isel(layer=0)
        totals.append(np.hypot(float(one.pair_eta_stderr), float(one.pair_eta_systematic)))
        warnings.append(one.pair_warnings.item())
        chi2 = float(one.pair_chi2_per_dof)
    assert "no window fits" not in warnings[0]
    assert "no window fits" in warnings[1]
    assert totals[1] > 0.7 * np.sqrt(chi2) * totals[0]


def test_errors_without_a_covariance_are_independent_and_that_is_said():
    alone = noisy(3).drop_vars("pair_deviation")
    alone["pair_stderr"] = 0.01 * alone["pair"]
    one = fit(alone).isel(layer=0)
    assert "no covariance stored" in one.pair_warnings.item()
    assert one.pair_weights.item().startswith("diagonal")
    assert float(one.pair_eta) == pytest.approx(0.7, abs=0.05)
    assert 0 < float(one.pair_eta_stderr) < 0.05


def test_blocks_and_normal_replicas_agree():
    one = noisy(3, contamination=0.3)
    totals = []
    for resampling in ("gaussian", "blocks"):
        found = fit(one, options=Options(replicas=4000, resampling=resampling)).isel(layer=0)
        totals.append(np.hypot(float(found.pair_eta_stderr), float(found.pair_eta_systematic)))
    assert totals[0] == pytest.approx(totals[1], rel=0.1)


def test_replicas_to_first_order_agree_with_searching_again():
    found = noisy(5, contamination=0.0)
    series = pairs_of(found, "pair", "P", True, None).by_distance()
    window = Window(pair(periodic=True, thermal=False), 1, 24, 1)
    problem = Problem(window, series, statistical_weights(series))
    best = problem.solve(np.array([0.7]))
    rng = np.random.default_rng(0)
    for _ in range(10):
        change = rng.standard_normal(len(series.deviations)) @ series.deviations
        again, _ = problem.search(best.shape, series.values + change)
        assert again[0] - best.shape[0] == pytest.approx(
            float(best.response[0] @ change), abs=0.05 * best.error("eta")
        )


def test_contaminated_distances_are_left_out():
    one = fit(noisy(1, contamination=0.5)).isel(layer=0)
    first = (one.pair_scan_r_min == 1) & (one.pair_scan_form == "periodic")
    assert float(one.pair_scan_weight[first].sum()) < 1e-3
    error = np.hypot(float(one.pair_eta_stderr), float(one.pair_eta_systematic))
    assert abs(float(one.pair_scan_eta[first][0]) - 0.7) > 3 * error


def test_a_result_that_drifts_with_the_window_is_said():
    r = np.arange(1, 49)
    drifting = chord(r, 96) ** -0.6 * (1 + 0.5 * np.log(r))
    assert "moves steadily" in fit(dataset(ring_of(drifting, 96), "periodic")).pair_warnings.item()
    steady = fit(dataset(ring_of(chord(r, 96) ** -0.6, 96), "periodic"))
    assert "moves steadily" not in steady.pair_warnings.item()


@pytest.mark.parametrize(("state", "said"), [(0, True), (1, False), (None, False)])
def test_input_that_did_not_converge_is_said(tmp_path, state, said):
    one = dataset(strings(open_green(32, 12)), "open")
    if state is not None:
        one.attrs |= {"converged": state, "converged_reason": "energy still falls; by 1e-3"}
    write_atomic(one, tmp_path / "result.nc")
    done = CliRunner().invoke(app, ["fit", str(tmp_path / "result.nc"), "--no-plot"])
    assert done.exit_code == 0, done.output
    assert ("NOT converged" in done.output) == said
    assert ("energy still falls, by 1e-3" in done.output) == said
    with xr.open_dataset(tmp_path / "fit.nc") as stored:
        assert stored.pair_input_converged.item() == (-1 if state is None else state)


@pytest.mark.lowest
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


@pytest.mark.lowest
def test_command_line(tmp_path):
    write_atomic(dataset(strings(open_green(32, 12)), "open"), tmp_path / "result.nc")
    done = CliRunner().invoke(app, ["fit", str(tmp_path / "result.nc"), "--what", "pair"])
    assert done.exit_code == 0, done.output
    assert "eta" in done.output
    with xr.open_dataset(tmp_path / "fit.nc") as stored:
        assert "luther-emery" in stored.pair_K.attrs["convention"]
        assert stored.pair_eta.attrs["units"] == "1"
    assert (tmp_path / "fit.png").stat().st_size > 10_000


@pytest.mark.lowest
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

    @pytest.mark.parametrize("values", [[0.3, 0.31, 0.29, 0.3, 0.31], [1, 2, 3, 4, 5.0]])
    @pytest.mark.parametrize("noise", [0.0, 0.01])
    def test_what_does_not_settle_has_no_gap_and_no_limit(self, values, noise):
        """Told were limits such as -61055 +- 0.004, at a gap of 1e-8."""
        data = xr.Dataset({"pair": ("beta", values)}, {"beta": [2.0, 4.0, 6.0, 8.0, 10.0]})
        if noise:
            data["pair_stderr"] = ("beta", np.full(5, noise))
        limit = extrapolate(data, "beta", "gap", ["pair"])
        assert np.isnan(limit.pair) or abs(limit.pair) < 0.5
        assert np.isnan(limit.pair_gap) or 0.02 < limit.pair_gap < 50

    def test_a_constant_has_its_limit_and_no_gap(self):
        data = xr.Dataset({"pair": ("beta", np.full(5, 0.3))}, {"beta": np.arange(2.0, 7.0)})
        limit = extrapolate(data, "beta", "gap", ["pair"])
        assert float(limit.pair) == pytest.approx(0.3)
        assert np.isnan(limit.pair_gap)
        named = data.assign_coords(beta=list("abcde"))
        with pytest.raises(OrchestraError, match="not names"):
            extrapolate(named, "beta", "gap", ["pair"])

    def test_too_few_points_are_refused(self):
        data = xr.Dataset({"energy": ("length", [1.0])}, {"length": [8]})
        with pytest.raises(OrchestraError, match="needs 2"):
            extrapolate(data, "length", "size", ["energy"])

    def test_lengths_of_free_fermions(self):
        """Energy per site of an open chain: -2/pi + (1 - 2/pi)/L + O(1/L^2)."""
        lengths = np.array([48, 96, 192])
        energy = [-2 * np.trace(open_green(n, n // 2), 1) / n for n in lengths]
        data = xr.Dataset({"energy": ("length", energy)}, {"length": lengths})
        limit = extrapolate(data, "length", "size", ["energy"])
        assert float(limit.energy) == pytest.approx(-2 / np.pi, abs=1e-4)
        assert abs(float(limit.energy) + 2 / np.pi) < 1.5 * float(limit.energy_systematic)
        assert np.isnan(limit.energy_stderr)
        assert "v(0) + c / L" in limit.energy.attrs["extrapolation"]

    def test_temperatures_of_free_fermions(self):
        """A Sommerfeld expansion begins with T^2."""
        betas = np.array([6.0, 8.0, 12.0, 16.0])
        energy = [-2 * thermal_green(128, beta, 0.0)[63, 64] for beta in betas]
        data = xr.Dataset({"energy": ("beta", energy)}, {"beta": betas})
        limit = extrapolate(data, "beta", "power", ["energy"])
        exact = -2 / np.pi  # far from the ends, which T > 0 screens
        assert float(limit.energy) == pytest.approx(exact, abs=5e-5)
        assert abs(energy[-1] - exact) > 5 * abs(float(limit.energy) - exact)
        assert abs(float(limit.energy) - exact) < 1.5 * float(limit.energy_systematic)

    def test_discarded_weight(self):
        weights = np.array([1e-6, 1e-5, 4e-5])
        data = xr.Dataset(
            {"energy": ("discarded_weight", -3 + 20 * weights + 1e4 * weights**2)},
            {"discarded_weight": weights},
        )
        limit = extrapolate(data, "discarded_weight", "truncation", ["energy"])
        assert abs(float(limit.energy) + 3) < 1.1 * float(limit.energy_systematic) < 1e-5

    def test_command_line(self, tmp_path):
        data = xr.Dataset(
            {
                "energy": ("dtau", [-1.9, -1.6]),
                "energy_stderr": ("dtau", [0.01, 0.01]),
                "density": (("layer", "dtau"), [[0.5, 0.5], [0.3, 0.6]]),
            },
            {"dtau": [0.1, 0.2], "layer": ["P", "M"]},
            {"orchestra_schema": 1, "study": ""},
        )
        write_atomic(data, tmp_path / "sweep.nc")
        arguments = ["extrapolate", str(tmp_path / "sweep.nc"), "--model", "trotter"]
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        assert "energy -2.000 +- 0.014" in " ".join(done.output.split())
        assert "density M 0.2" in " ".join(done.output.split())
        with xr.open_dataset(tmp_path / "limit.nc") as stored:
            assert float(stored.energy) == pytest.approx(-2.0)
            assert "trotter" in stored.attrs["history"]
        wrong = CliRunner().invoke(app, [*arguments[:-1], "size"])
        assert wrong.exit_code != 0
        assert "numbers along 'length'" in str(wrong.exception)
