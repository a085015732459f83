import functools

import jax.numpy as jnp
import numpy as np
import pytest

from hyperpinn_eqx.attractors import (
    BEHAVIOURS,
    LongRun,
    classify,
    confusion,
    long_run,
    occupancy_divergence,
    spectrum_distance,
)
from hyperpinn_eqx.problems import Lorenz

LAMS = np.array([[-1.0, -0.3, -2.0], [-0.2, -0.5, -0.8], [0.1, -1.0, -2.0]])


def triangular(lam):
    """A linear field with the real eigenvalues λ, far from normal."""

    def field(x):
        coupling = jnp.stack([x[1] + 2 * x[2], -x[2], 0 * x[2]])
        return lam * x + coupling

    return field


def run_linear(lams):
    return long_run(triangular, lams, np.ones((3, 3)), duration=60.0, dt=0.5, rtol=1e-8)


@functools.cache
def linear():
    return run_linear(LAMS)


@functools.cache
def lorenz():
    """A quiet λ, one with stable C±, and the chaotic one of the textbooks."""
    lam = np.array([[10, 8 / 3, 0.5], [10, 1.0, 10], [10, 8 / 3, 28]])
    start = np.array([[1.0, 2.0, 3.0]] * 3)
    return long_run(Lorenz(), lam, start, duration=60.0)


def test_the_exponent_of_a_linear_system_is_its_largest_eigenvalue():
    run = linear()
    assert np.all(run.finished)
    np.testing.assert_allclose(run.lyapunov, LAMS.max(1), rtol=0, atol=1e-3)


def test_the_sum_of_exponents_of_a_linear_system_is_its_trace():
    np.testing.assert_allclose(linear().lyapunov_sum, LAMS.sum(1), rtol=1e-9)


def test_a_run_does_not_depend_on_its_neighbours():
    alike, mixed = run_linear(LAMS[[1, 1, 1]]), linear()
    for name in ("states", "growth", "contraction"):
        expected = getattr(mixed, name)[1]
        for found in getattr(alike, name):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_runs_are_float64_and_begin_at_the_start():
    run = linear()
    assert run.states.shape == (3, 121, 3) and run.states.dtype == np.float64
    np.testing.assert_array_equal(run.states[:, 0], np.ones((3, 3)))
    np.testing.assert_array_equal(run.growth[:, 0], np.zeros(3))
    np.testing.assert_array_equal(run.contraction[:, 0], np.zeros(3))


def test_lorenz_exponents_add_up_to_its_divergence():
    expected = [-(10 + 1 + 8 / 3), -12, -(10 + 1 + 8 / 3)]
    np.testing.assert_allclose(lorenz().lyapunov_sum, expected, rtol=1e-9)


def test_the_largest_lorenz_exponent_tells_chaos_from_rest():
    origin, fixed, chaos = lorenz().lyapunov
    # At the origin, the larger root of r² + 11 r + 10 (1 - ρ).
    np.testing.assert_allclose(origin, (-11 + np.sqrt(121 - 20)) / 2, atol=1e-3)
    assert fixed < -0.05
    assert 0.5 < chaos < 1.3


def test_lorenz_behaviours_are_found():
    assert np.all(lorenz().finished)
    assert classify(lorenz()) == ["origin", "fixed points C±", "chaos"]


def test_only_the_chaotic_attractor_has_a_size():
    origin, fixed, chaos = lorenz().size
    assert origin < 1e-3 and fixed < 0.1 and 10 < chaos < 20


@pytest.mark.parametrize(
    ("lam", "start"),
    [
        (np.ones(3), np.ones((3, 3))),
        (np.ones((2, 3)), np.ones((3, 3))),
        (np.ones((2, 3)), np.ones((2, 1, 3))),
    ],
    ids=["flat lam", "other M", "trajectories"],
)
def test_shapes_that_do_not_fit_are_errors(lam, start, unchecked):
    with pytest.raises(ValueError, match="expected .M, p. and .M, d."):
        long_run(triangular, lam, start)


@pytest.mark.parametrize(
    "options",
    [
        {"duration": 0.0},
        {"duration": float("nan")},
        {"dt": 0.0},
        {"dt": -1.0},
        {"duration": 1.0, "dt": 2.0},
        {"rtol": 0.0},
        {"rtol": 1.0},
    ],
    ids=str,
)
def test_bad_times_and_tolerances_are_errors(options):
    with pytest.raises(ValueError, match="expected 0 < dt < duration and 0 < rtol < 1"):
        long_run(triangular, LAMS, np.ones((3, 3)), **options)


DT = 0.1
T = DT * np.arange(1001)


def by_hand(states, exponent=0.0, finished=True):
    """A long run with these states and this exponent all along."""
    growth = exponent * T[None]
    return LongRun(
        jnp.ones((1, 1)), states[None], DT, growth, -3 * T[None], np.array([finished])
    )


def curve(x, y=None):
    return np.stack([x, 0 * x if y is None else y, 0 * x], axis=1)


def settling(switches, level):
    """x changes its sign so often in the first third, then comes to rest."""
    times = np.linspace(0, 33, switches + 1)[1:-1] if switches else []
    sign = (-1.0) ** (switches - np.searchsorted(times, T)) if switches else 1 + 0 * T
    return curve(level + (sign - 1) * (T < 33) * level)


def test_rates_are_taken_over_the_second_half():
    bent = np.where(T < 50, 7 * T, 350 + 0.25 * (T - 50))[None]
    run = LongRun(jnp.ones((1, 1)), curve(T)[None], DT, bent, -bent, np.array([True]))
    np.testing.assert_allclose(run.lyapunov, [0.25], rtol=1e-9)
    np.testing.assert_allclose(run.lyapunov_sum, [-0.25], rtol=1e-9)


def test_size_is_the_distance_to_the_mean_of_the_second_half():
    circle = curve(5 + 3 * np.cos(2 * np.pi * T), 3 * np.sin(2 * np.pi * T))
    circle[: len(T) // 2] = 100
    np.testing.assert_allclose(by_hand(circle).size, [3.0], rtol=1e-3)


CHAOTIC = np.random.default_rng(0).normal(0, 8, len(T))
# Around C+ for ever, slower and slower.
SPIRAL = curve(
    8 + np.exp(-0.01 * T) * np.cos(5 * T), 8 + np.exp(-0.01 * T) * np.sin(5 * T)
)


@pytest.mark.parametrize(
    ("run", "behaviour"),
    [
        (by_hand(curve(0.4 + np.exp(-T)), -0.3), "origin"),
        (by_hand(curve(0 * T)), "origin"),
        (by_hand(curve(8 + np.exp(-T)), -0.3), "fixed points C±"),
        (by_hand(settling(4, 8.0), -0.3), "fixed points C±"),
        (by_hand(SPIRAL, -0.01), "fixed points C±"),
        (by_hand(curve(8 + 0 * T), 0.3), "fixed points C±"),
        (by_hand(settling(12, -8.0), -0.3), "transient chaos"),
        (by_hand(curve(8 * np.sin(T), 8 * np.cos(T)), 1e-4), "limit cycle"),
        (by_hand(curve(CHAOTIC), 0.9), "chaos"),
        (by_hand(curve(CHAOTIC), 0.9, finished=False), "failed"),
        (by_hand(curve(0 * T), -0.3, finished=False), "failed"),
        (by_hand(curve(np.nan * T), np.nan, finished=False), "failed"),
    ],
)
def test_a_run_is_classified_by_what_it_does_in_the_end(run, behaviour):
    assert classify(run) == [behaviour]
    assert behaviour in BEHAVIOURS


def test_a_run_that_ends_in_infinities_has_failed():
    states = curve(T)
    states[300:] = np.inf
    growth = np.where(T < 30, T, np.inf)[None]
    run = LongRun(jnp.ones((1, 1)), states[None], DT, growth, growth, np.array([False]))
    assert classify(run) == ["failed"]


def test_confusion_counts_pairs_in_the_order_of_complexity():
    true = ["chaos", "origin", "chaos", "chaos", "limit cycle"]
    found = ["chaos", "origin", "failed", "chaos", "chaos"]
    table = confusion(true, found)
    assert table == {
        "origin": {"origin": 1, "chaos": 0, "failed": 0},
        "limit cycle": {"origin": 0, "chaos": 1, "failed": 0},
        "chaos": {"origin": 0, "chaos": 2, "failed": 1},
    }
    assert list(table) == [b for b in BEHAVIOURS if b in true]
    assert all(list(row) == ["origin", "chaos", "failed"] for row in table.values())


def test_confusion_of_lists_that_do_not_match_is_an_error():
    with pytest.raises(ValueError):
        confusion(["chaos"], ["chaos", "origin"])


def cloud(shift=0.0, seed=0):
    return np.random.default_rng(seed).normal(shift, 1, (4000, 2))


def test_equal_occupancies_do_not_diverge():
    assert occupancy_divergence(cloud(), cloud()) == 0
    # Neither the order of states nor their number matters.
    twice = np.concatenate([cloud()[::-1], cloud()])
    assert abs(occupancy_divergence(twice, cloud())) < 1e-6


def test_occupancies_diverge_more_the_further_apart_they_are():
    found = [occupancy_divergence(cloud(s, 1), cloud(), bins=8) for s in (0, 0.5, 2)]
    assert 0 < found[0] < 0.1 < found[1] < found[2]
    outside = occupancy_divergence(cloud(100.0), cloud(), bins=8)
    assert found[2] < outside and np.isfinite(outside)


def test_occupancy_divergence_is_kullback_and_leiblers():
    # Two cells: halves against a quarter and three quarters.
    true = np.array([[0.0], [0.1], [0.9], [1.0]])
    found = np.array([[0.2], [0.7], [0.8], [1.0]])
    expected = np.log(2) / 2 + np.log(2 / 3) / 2
    np.testing.assert_allclose(
        occupancy_divergence(found, true, bins=2), expected, rtol=1e-4
    )


def test_states_out_of_the_true_range_share_one_cell():
    true = np.linspace(0, 1, 50)[:, None]
    near, far = true.copy(), true.copy()
    near[::2] += 2
    far[::2] -= 1e3
    assert occupancy_divergence(near, true) == occupancy_divergence(far, true) > 0.5


def wave(frequency, phase=0.0, size=1.0):
    t = np.linspace(0, 100, 2000)
    return size * np.stack(
        [np.sin(frequency * t + phase), np.cos(frequency * t + phase)], axis=1
    )


def test_equal_spectra_have_no_distance():
    assert spectrum_distance(wave(2.0), wave(2.0)) < 1e-7
    # Neither do phase, size and mean matter.
    assert spectrum_distance(5 + wave(2.0, 1.0, 7.0), wave(2.0)) < 0.02


def test_spectra_are_further_apart_the_more_frequencies_differ():
    near, far, apart = (spectrum_distance(wave(f), wave(2.0)) for f in (2.1, 2.4, 20.0))
    assert 0 < near < far < apart <= 1
    assert apart > 0.9


def test_the_distance_of_spectra_is_symmetric_and_bounded():
    rng = np.random.default_rng(0)
    for _ in range(3):
        noise, walk = rng.normal(size=(500, 3)), rng.normal(size=(500, 3)).cumsum(0)
        there = spectrum_distance(noise, walk)
        assert 0 < there <= 1
        np.testing.assert_allclose(spectrum_distance(walk, noise), there, rtol=1e-12)


def test_smoother_spectra_are_closer():
    close, sharp = (
        spectrum_distance(wave(2.0), wave(2.4), smoothing=s) for s in (20.0, 2.0)
    )
    assert close < sharp
