import functools

import jax.numpy as jnp
import numpy as np
import pytest

from hyperpinn_eqx.dynamics.lyapunov import LongRun, long_run
from hyperpinn_eqx.problems import Lorenz

LAMS = np.array([[-1.0, -0.3, -2.0], [-0.2, -0.5, -0.8], [0.1, -1.0, -2.0]])


def triangular(lam):
    """A linear field with the real eigenvalues λ, far from normal."""

    def field(x):
        coupling = jnp.stack([x[1] + 2 * x[2], -x[2], 0 * x[2]])
        return lam * x + coupling

    return field


@functools.cache
def linear():
    start, options = np.ones((3, 3)), {"dt": 0.5, "rtol": 1e-8}
    return long_run(triangular, LAMS, start, duration=60.0, **options)


@functools.cache
def lorenz():
    """A quiet λ, one with stable C±, and the chaotic one of the textbooks."""
    lam = np.array([[10, 8 / 3, 0.5], [10, 1.0, 10], [10, 8 / 3, 28]])
    start = np.array([[1.0, 2.0, 3.0]] * 3)
    return long_run(Lorenz(), lam, start, duration=60.0)


def test_exponents_of_a_linear_system_are_its_eigenvalues():
    run = linear()
    assert np.all(run.finished)
    np.testing.assert_allclose(run.lyapunov, LAMS.max(1), rtol=0, atol=1e-3)
    np.testing.assert_allclose(run.lyapunov_sum, LAMS.sum(1), rtol=1e-9)
    # In float64, from the start on.
    assert run.states.shape == (3, 121, 3) and run.states.dtype == np.float64
    np.testing.assert_array_equal(run.states[:, 0], np.ones((3, 3)))
    for integral in (run.growth, run.contraction):
        np.testing.assert_array_equal(integral[:, 0], np.zeros(3))


def test_lorenz_exponents_tell_chaos_from_rest_and_add_up_to_the_divergence():
    origin, fixed, chaos = lorenz().lyapunov
    # At the origin, the larger root of r² + 11 r + 10 (1 - ρ).
    np.testing.assert_allclose(origin, (-11 + np.sqrt(121 - 20)) / 2, atol=1e-3)
    assert fixed < -0.05 and 0.5 < chaos < 1.3
    divergence = [-(10 + 1 + 8 / 3), -12, -(10 + 1 + 8 / 3)]
    np.testing.assert_allclose(lorenz().lyapunov_sum, divergence, rtol=1e-9)
    origin, fixed, chaos = lorenz().size
    assert origin < 1e-3 and fixed < 0.1 and 10 < chaos < 20


def test_a_short_run_and_one_that_fails():
    def run(duration):
        # Decay, and a blow-up at t = 1 / 0.9.
        family = lambda lam: lambda x: -x + lam[0] * (x + x**2)  # noqa: E731
        lam, start = np.array([[0.0], [1.0]]), np.array([[1.0], [0.9]])
        return long_run(family, lam, start, duration=duration, dt=0.5, rtol=1e-4)

    short, longer = run(1.0), run(2.0)
    assert short.states.shape == (2, 3, 1)
    np.testing.assert_allclose(short.lyapunov[0], -1, rtol=1e-3)
    fine, failed = longer.reasons()
    assert fine == "" and failed.endswith("t = 1")
    np.testing.assert_array_equal(np.isfinite(longer.size), [True, False])
    with pytest.raises(ValueError, match="duration"):
        run(0.9)


DT = 0.1
T = DT * np.arange(1001)


def by_hand(states, growth=T):
    one = np.array([True])
    return LongRun(np.ones((1, 1)), states[None], DT, growth[None], -growth[None], one)


def test_rates_and_sizes_are_taken_over_the_second_half():
    bent = np.where(T < 50, 7 * T, 350 + 0.25 * (T - 50))
    angle = 2 * np.pi * T
    circle = np.stack([5 + 3 * np.cos(angle), 3 * np.sin(angle)], axis=1)
    circle[: len(T) // 2] = 100
    run = by_hand(circle, bent)
    np.testing.assert_allclose(run.lyapunov, [0.25], rtol=1e-9)
    np.testing.assert_allclose(run.lyapunov_sum, [-0.25], rtol=1e-9)
    np.testing.assert_allclose(run.size, [3.0], rtol=1e-3)


@pytest.mark.parametrize("states", [np.ones((2, 2)), np.full((4, 2), np.inf)], ids=str)
def test_a_long_run_that_is_none_is_an_error(states):
    with pytest.raises(ValueError, match="states"):
        by_hand(states, np.ones(len(states)))
