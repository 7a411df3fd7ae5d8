"""Errors, autocorrelation, warm-up and extrapolation against series whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import lfilter

from bilayer_orchestra.analysis.estimates import Estimate, jackknife, student_factor
from bilayer_orchestra.analysis.series import (
    MAX_BLOCKS,
    autocorrelation,
    block_length,
    chains_disagree,
    drifts,
    merge,
    mser,
    warmup_length,
)
from bilayer_orchestra.analysis.trotter import extrapolate, limit_weights
from bilayer_orchestra.engines.alf.results import MINOR, too_coarse
from bilayer_orchestra.testing.statistics import chi_squared


def ar1(rng, tau, shape):
    """Stationary Gaussian series of unit variance with integrated autocorrelation time tau."""
    a = (2 * tau - 1) / (2 * tau + 1)
    noise = rng.standard_normal(shape) * np.sqrt(1 - a * a)
    noise[0] /= np.sqrt(1 - a * a)
    return lfilter([1], [1, -a], noise, axis=0)


@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0, 12.0])
def test_autocorrelation_time_of_an_autoregressive_process(tau):
    rng = np.random.default_rng(1)
    found = [autocorrelation([ar1(rng, tau, (4000, 1)) for _ in range(4)]) for _ in range(20)]
    assert np.mean([f.pooled for f in found]) == pytest.approx(tau, rel=0.05)
    assert all(f.resolved for f in found)


def test_short_chains_do_not_hide_autocorrelation():
    """The subtracted mean alone would make it 5 % too short; too long is the safe side."""
    rng = np.random.default_rng(6)
    found = [autocorrelation([ar1(rng, 3.0, (100, 1)) for _ in range(2)]) for _ in range(1000)]
    assert 3.0 < np.mean([f.pooled for f in found]) < 3.6


def test_the_slowest_element_counts_and_noise_does_not():
    rng = np.random.default_rng(2)
    fast = [ar1(rng, 0.5, (1000, 200)) for _ in range(2)]
    assert autocorrelation(fast).slowest < 0.7
    with_slow = [np.concatenate([f, ar1(rng, 10.0, (1000, 1))], axis=1) for f in fast]
    found = autocorrelation(with_slow)
    assert found.pooled < 0.7
    assert 4 < found.slowest < 20


def test_chains_with_different_means_are_not_resolved_or_very_slow():
    rng = np.random.default_rng(3)
    found = autocorrelation([ar1(rng, 0.5, (500, 1)) + shift for shift in (-2.0, 2.0)])
    assert not found.resolved or found.slowest > 50


def test_a_constant_has_no_autocorrelation():
    found = autocorrelation([np.full((50, 3), 0.3)])
    assert (found.slowest, found.resolved) == (0.5, True)


def coverage(rng, tau, chains, n, trials):
    """Share of 1-sigma intervals that hold a mean and a connected correlator."""
    hits = np.zeros(2)
    for _ in range(trials):
        z = [ar1(rng, tau, (n, 2)) for _ in range(chains)]
        x = [np.stack([1 + w[:, 0], 2 + 0.6 * w[:, 0] + 0.8 * w[:, 1]], axis=1) for w in z]
        product = [w[:, 0] * w[:, 1] for w in x]
        mean = np.mean(np.concatenate(x), axis=0)
        response = [
            p - mean[0] * w[:, 1] - mean[1] * w[:, 0] for p, w in zip(product, x, strict=True)
        ]
        times = [
            autocorrelation([w[:, :1] for w in x]),
            autocorrelation([r[:, None] for r in response]),
        ]
        length = block_length(times, [n] * chains)
        estimates = jackknife(
            {"x": merge(x, length), "xy": merge(product, length)},
            lambda r: {"mean": r["x"][:, 0], "connected": r["xy"] - r["x"][:, 0] * r["x"][:, 1]},
            {
                "mean": times[0].block_inflation(length),
                "connected": times[1].block_inflation(length),
            },
        )
        for k, (name, truth) in enumerate({"mean": 1.0, "connected": 0.6}.items()):
            hits[k] += abs(estimates[name].value - truth) < estimates[name].stderr
    return hits / trials


@pytest.mark.parametrize(
    ("tau", "chains", "n"),
    [(0.5, 2, 16), (0.5, 4, 25), (1.0, 4, 25), (2.0, 2, 200), (5.0, 4, 150), (20.0, 2, 2000)],
)
def test_errors_cover_68_percent_under_autocorrelation(tau, chains, n):
    mean, connected = coverage(np.random.default_rng(7), tau, chains, n, 1000)
    assert 0.64 <= mean <= 0.72
    assert 0.64 <= connected <= 0.72


def ensemble(rng, taus, mixing, chains, n, trials):
    """Coverage of every element of mixed series, and the mean of chi^2/dof of the whole vector."""
    hits, chi2 = np.zeros(len(taus)), []
    for _ in range(trials):
        x = [np.stack([ar1(rng, t, (n,)) for t in taus], axis=1) @ mixing for _ in range(chains)]
        time = autocorrelation(x)
        length = block_length([time], [n] * chains)
        factor = {"x": time.block_inflation(length)}
        found = jackknife({"x": merge(x, length)}, lambda r: {"x": r["x"]}, factor)["x"]
        hits += np.abs(found.value) < found.stderr
        chi2.append(chi_squared(found.value, found.deviations, found.degrees))
    return hits / trials, np.mean(chi2)


@pytest.mark.parametrize(
    ("taus", "n"),
    [
        ([0.2] * 6, 200),  # anticorrelated
        ([0.3] * 6, 100),
        ([0.5] * 12, 60),
        ([0.5] * 5 + [3.0] * 5, 1500),  # fast and slow elements of one matrix
        ([0.2] * 5 + [3.0] * 5, 1500),
        ([0.5] * 9 + [8.0], 1500),
    ],
)
@pytest.mark.parametrize("mixed", [False, True])
def test_errors_and_covariance_of_a_matrix_are_honest(taus, n, mixed):
    """Also for the small modes of an ill-conditioned covariance, which chi^2 is made of."""
    rng = np.random.default_rng(12)
    count = len(taus)
    mixing = np.diag(np.logspace(0, -3, count)) @ rng.standard_normal((count, count))
    hits, chi2 = ensemble(rng, taus, mixing if mixed else np.eye(count), 2, n, 200)
    assert 0.64 <= hits.mean() <= 0.72
    assert 0.88 <= chi2 <= 1.15


def test_ignoring_autocorrelation_would_fail_that_test():
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(400):
        x = ar1(rng, 5.0, (200,))
        hits += abs(x.mean()) < x.std(ddof=1) / np.sqrt(len(x))
    assert hits / 400 < 0.4


def test_jackknife_of_a_mean_is_the_textbook_error():
    x = np.random.default_rng(0).standard_normal((40, 3))
    estimate = jackknife({"x": x}, lambda r: {"x": r["x"]})["x"]
    np.testing.assert_allclose(estimate.value, x.mean(axis=0))
    textbook = x.std(axis=0, ddof=1) / np.sqrt(40) * student_factor(40)
    np.testing.assert_allclose(estimate.stderr, textbook)
    covariance = estimate.deviations.T @ estimate.deviations
    np.testing.assert_allclose(covariance, np.cov(x.T) / 40 * student_factor(40) ** 2, atol=1e-15)


def test_jackknife_removes_the_bias_of_a_square():
    x = np.random.default_rng(4).standard_normal((20000, 5))  # 20000 measurements of 5 blocks
    values = [jackknife({"x": row}, lambda r: {"s": r["x"] ** 2})["s"].value for row in x]
    plain = np.mean(x.mean(axis=1) ** 2)
    assert plain == pytest.approx(0.2, abs=0.01)  # <x>^2 = 0, biased by 1/5
    assert np.mean(values) == pytest.approx(0.0, abs=0.01)


def test_student_factor_widens_few_blocks_only():
    assert student_factor(2) == pytest.approx(1.8373, abs=1e-3)  # tan(pi/2 * 0.6827)
    assert student_factor(10_000) == pytest.approx(1.0, abs=1e-3)


def test_blocks_do_not_mix_chains_and_are_not_too_many():
    chains = [np.arange(10.0)[:, None], 100 + np.arange(7.0)[:, None]]
    np.testing.assert_array_equal(merge(chains, 3).ravel(), [2, 5, 8, 102, 105])
    white = autocorrelation([np.random.default_rng(0).standard_normal((1000, 1))])
    assert 1000 // block_length([white], [1000]) <= MAX_BLOCKS


def test_slow_series_get_long_blocks():
    rng = np.random.default_rng(8)
    slow = autocorrelation([ar1(rng, 20.0, (20000, 1))])
    assert block_length([slow], [20000]) >= 156  # bounded by the number of blocks
    moderate = [autocorrelation([ar1(rng, tau, (600, 1))]) for tau in (0.5, 3.0)]
    assert block_length(moderate, [600]) > block_length(moderate[:1], [600])


def test_warm_up_finds_a_transient_and_spares_stationary_data():
    rng = np.random.default_rng(9)
    t = np.arange(400)
    found = [
        warmup_length([{"e": ar1(rng, 1.0, (400,)) + 8 * np.exp(-t / 10)} for _ in range(4)])
        for _ in range(50)
    ]
    assert 15 < np.median(found) < 60
    stationary = [mser(ar1(rng, 1.0, (400,))) for _ in range(200)]
    assert np.mean(stationary) < 40
    assert mser(np.full(50, 1.5)) == 0


def test_chains_that_disagree_or_drift_are_noticed():
    rng = np.random.default_rng(10)
    false_alarms = 0
    for _ in range(300):
        blocks = rng.standard_normal((32, 100))
        false_alarms += chains_disagree(blocks, [16, 16]) or drifts(blocks, [16, 16])
    assert false_alarms == 0
    blocks = rng.standard_normal((32, 100))
    blocks[:16, 3] += 4
    assert chains_disagree(blocks, [16, 16])
    blocks = rng.standard_normal((64, 100))
    blocks[:, 5] += np.tile(np.linspace(0, 8, 32), 2)
    assert drifts(blocks, [32, 32])


def estimates_of(values, errors, rng, blocks=50):
    result = []
    for value, error in zip(values, errors, strict=True):
        deviations = rng.standard_normal((blocks, *np.shape(value)))
        deviations *= error / np.sqrt(np.sum(deviations**2, axis=0))
        result.append(Estimate(np.asarray(value), deviations, blocks - 1.0))
    return result


@pytest.mark.parametrize("dtau", [[0.2, 0.1], [0.05, 0.2, 0.1], [0.4, 0.05, 0.3, 0.2, 0.1]])
def test_extrapolation_is_exact_for_a_polynomial(dtau):
    rng = np.random.default_rng(0)
    limit, slope, curve = rng.standard_normal((3, 3, 4))
    if len(dtau) == 2:
        curve = 0.0
    values = [limit + slope * step**2 + curve * step**4 for step in dtau]
    found = extrapolate(dtau, estimates_of(values, [0.01] * len(dtau), rng))
    np.testing.assert_allclose(found.estimate.value, limit, atol=1e-12)
    smallest, second = sorted(dtau)[:2]
    correction = slope * smallest**2 + curve * smallest**4
    np.testing.assert_allclose(found.correction, correction, atol=1e-12)
    # two steps: the correction scaled down; more: the dtau^4 term that a line leaves
    left = correction / 4 if len(dtau) == 2 else -curve * smallest**2 * second**2
    np.testing.assert_allclose(found.remainder.value, left, atol=1e-12)
    # a size, and of no element much smaller than of the others
    size = np.abs(found.remainder.value)
    least = 0.5 * np.sqrt(np.mean(size**2))
    np.testing.assert_allclose(found.bias, np.maximum(size, least), rtol=1e-6)


def test_extrapolation_propagates_errors_and_tests_the_line():
    rng = np.random.default_rng(1)
    dtau, errors, truth = [0.4, 0.2, 0.1, 0.05], np.array([0.02, 0.01, 0.02, 0.03]), 1.0
    scores, left, chi2 = [], [], []
    for _ in range(2000):
        values = truth + 3 * np.array(dtau) ** 2 + errors * rng.standard_normal(4)
        found = extrapolate(dtau, estimates_of(values, errors, rng))
        scores.append((found.estimate.value - truth) / found.estimate.stderr)
        left.append(found.remainder.value / found.remainder.stderr)
        chi2.append(found.chi2)
    assert np.std(scores) == pytest.approx(1.0, abs=0.05)
    assert np.std(left) == pytest.approx(1.0, abs=0.05)
    assert np.mean(chi2) / found.dof == pytest.approx(1.0, abs=0.1)
    curved = truth + 800 * np.array(dtau) ** 6
    assert extrapolate(dtau, estimates_of(curved, errors / 10, rng)).chi2 > 20


def test_the_fourth_order_costs_little_error_with_steps_in_powers_of_two():
    line = np.linalg.norm(limit_weights(np.array([0.2, 0.1]), np.ones(2)))
    parabola = limit_weights(np.array([0.4, 0.2, 0.1]), np.ones(3))
    np.testing.assert_allclose(parabola, [1 / 45, -20 / 45, 64 / 45])
    assert np.linalg.norm(parabola) < 1.1 * line


@pytest.mark.parametrize("tail", [2.1, 2.5, 3.5])
@pytest.mark.parametrize("true_part", [0.3 * MINOR, MINOR, 3 * MINOR])
def test_a_step_with_a_minor_part_in_the_variance_may_be_short_and_heavy_tailed(tail, true_part):
    """Six bins with tails x^-(tail + 1) in the coarsest step: errors of the limit stay honest.

    Elements whose measured part is below ``MINOR`` count only, which is what the verdict forgives;
    that selection prefers runs in which the tail has not been seen.
    """
    rng = np.random.default_rng([int(10 * tail), int(1e6 * true_part)])
    elements, bins = 8000, 6
    mean = 1 / (tail - 1)
    deviation = np.sqrt(tail / ((tail - 1) ** 2 * (tail - 2)))
    coarse = (rng.pareto(tail, (bins, elements)) - mean) / deviation
    variance = ((64 / 45) ** 2 + (20 / 45) ** 2) / 100
    series = [
        45 * np.sqrt(true_part * variance * bins) * coarse,
        rng.standard_normal((100, elements)),
        rng.standard_normal((100, elements)),
    ]
    estimates = [jackknife({"a": rows}, dict)["a"] for rows in series]
    limit = extrapolate([0.4, 0.2, 0.1], estimates).estimate
    part = np.sum((estimates[0].deviations / 45) ** 2, axis=0) / limit.stderr**2
    forgiven = part < MINOR
    assert forgiven.mean() > 0.3
    pull = np.abs(limit.value / limit.stderr)[forgiven]
    assert np.mean(pull < 1) == pytest.approx(0.683, abs=0.03)
    assert np.mean(pull < 2) == pytest.approx(0.954, abs=0.012)


def test_one_step_has_no_bias_estimate():
    found = extrapolate([0.1], estimates_of([1.0], [0.1], np.random.default_rng(0)))
    assert np.isnan(found.bias)
    assert found.dof == 0


def test_deviations_of_the_limit_carry_the_covariance_of_both_steps():
    rng = np.random.default_rng(2)
    shared = rng.standard_normal((60, 1)) * 0.1
    steps = [Estimate(np.zeros(2), np.hstack([shared, shared]), 59.0) for _ in range(2)]
    found = extrapolate([0.2, 0.1], steps).estimate
    covariance = found.deviations.T @ found.deviations
    expected = ((4 / 3) ** 2 + (1 / 3) ** 2) * np.sum(shared**2)
    np.testing.assert_allclose(covariance, expected)
    assert 59 < found.degrees < 118


@given(
    st.lists(st.floats(0.01, 1.0), min_size=2, max_size=6, unique=True),
    st.integers(0, 2**31),
)
def test_extrapolation_weights_reproduce_polynomials(steps, seed):
    steps = np.array(steps)
    if np.min(np.diff(np.sort(steps))) < 1e-3:
        return
    stderr = np.random.default_rng(seed).uniform(1e-6, 1e-3, (len(steps), 3))
    weights = limit_weights(steps, stderr)
    scale = np.abs(weights).max()
    np.testing.assert_allclose(weights.sum(axis=0), 1.0, atol=1e-8 * scale)
    for power in (2, 4)[: len(steps) - 1]:
        moments = (weights * (steps / steps.max())[:, None] ** power).sum(axis=0)
        np.testing.assert_allclose(moments, 0.0, atol=1e-8 * scale)


def test_elements_without_an_error_are_extrapolated_too():
    found = extrapolate([0.2, 0.1], [Estimate(np.array(v), np.zeros(5), 4.0) for v in (1.4, 1.1)])
    assert found.estimate.value == pytest.approx(1.0)
    assert found.estimate.stderr == 0.0


@pytest.mark.parametrize("dtau", [[0.2, 0.1], [0.4, 0.2, 0.1], [0.4, 0.3, 0.2, 0.1]])
def test_rounding_is_not_extrapolated(dtau):
    """Free fermions have no Trotter error and no noise: steps differ by rounding alone."""
    rng = np.random.default_rng(4)
    truth = rng.standard_normal((6, 6))
    values = [truth * (1 + 1e-14 * rng.standard_normal((6, 6))) for _ in dtau]
    found = extrapolate(dtau, estimates_of(values, [1e-17] * len(dtau), rng))
    assert (np.abs(found.estimate.value - truth) <= found.bias).all()
    assert not too_coarse(found)
    assert not found.dof or np.max(found.chi2) < 1


def test_chi_squared_uses_the_covariance_and_is_one_on_average():
    rng = np.random.default_rng(3)
    mixing = rng.standard_normal((6, 6)) @ np.diag([3, 1, 0.3, 0.1, 0.03, 0.01])
    found = []
    for _ in range(1500):
        blocks = rng.standard_normal((30, 6)) @ mixing.T
        estimate = jackknife({"x": blocks}, lambda r: {"x": r["x"]})["x"]
        found.append(chi_squared(estimate.value, estimate.deviations, estimate.degrees))
    assert np.mean(found) == pytest.approx(1.0, abs=0.06)
    few = rng.standard_normal((7, 6))
    with pytest.raises(ValueError, match="too few"):
        chi_squared(np.zeros(6), few, 6)


def test_chi_squared_ignores_what_is_constant():
    rng = np.random.default_rng(5)
    free = rng.standard_normal((30, 2)) * 0.01
    deviations = np.column_stack([free, -free.sum(axis=1), np.zeros(30)])  # a fixed sum
    difference = np.array([0.02, -0.01, -0.01, 0.0])
    reduced = chi_squared(difference[:2], deviations[:, :2], 29)
    assert chi_squared(difference, deviations, 29) == pytest.approx(reduced, rel=1e-8)
