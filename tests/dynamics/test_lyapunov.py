import functools

import jax.numpy as jnp
import numpy as np
import pytest

from hyperpinn_eqx.dynamics import lyapunov
from hyperpinn_eqx.dynamics.lyapunov import LongRun, long_run
from hyperpinn_eqx.paper import classify
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


def test_a_run_has_at_least_two_steps():
    with pytest.raises(ValueError, match="dt = 1.0, expected"):
        long_run(triangular, LAMS, np.ones((3, 3)), duration=1.9, dt=1.0)


SHORT = {
    "family": lambda lam: lambda x: -lam[0] * x,
    "lam": np.ones((1, 1)),
    "start": np.ones((1, 2)),
    "duration": 1.0,
    "dt": 0.5,
    "rtol": 1e-3,
}


def test_the_shortest_run_has_an_exponent():
    run = long_run(**SHORT)
    assert run.states.shape == (1, 3, 2)
    np.testing.assert_allclose(run.lyapunov, [-1], rtol=1e-2)


def test_each_failure_has_its_reason_and_leaves_others_alone(monkeypatch):
    monkeypatch.setattr(lyapunov, "_MAX_STEPS", 3000)
    # Decay, a blow-up at t = 1, a root of what becomes negative, and a stiff field.
    fields = (
        lambda x: -x,
        lambda x: x**2,
        lambda x: -1 - jnp.sqrt(x),
        lambda x: 1e6 * (jnp.cos(x) - x),
    )
    run = long_run(
        lambda lam: lambda x: jnp.stack([f(x) for f in fields])[lam[0].astype(int)],
        np.array([[0.0], [1], [2], [3], [0]]),
        np.array([[1.0], [0.9], [1], [2], [2]]),
        duration=4.0,
        dt=0.25,
    )
    assert run.reasons().tolist() == [
        "",
        "no step was small enough (1e-12), last state at t = 1",
        "became infinite or NaN, last state at t = 0.5",
        "needed more than 3000 steps, last state at t = 0",
        "",
    ]
    assert classify(run) == ["origin", "failed", "failed", "failed", "origin"]
    decay = np.exp(-4) * np.array([1, 2])
    np.testing.assert_allclose(run.states[[0, 4], -1, 0], decay, rtol=1e-4)
    np.testing.assert_allclose(run.lyapunov[[0, 4]], [-1, -1], rtol=1e-5)
    np.testing.assert_array_equal(np.isfinite(run.size), run.finished)


GOOD = {
    "lam": np.ones((1, 1)),
    "states": np.ones((1, 4, 2)),
    "dt": 0.1,
    "growth": np.ones((1, 4)),
    "contraction": np.ones((1, 4)),
    "result": [True],
}
FIELDS = ("states", "growth", "contraction")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({k: np.ones((1, 2, 2)[: np.ndim(GOOD[k])]) for k in FIELDS}, "expected T"),
        ({"states": np.full((1, 4, 2), np.inf)}, r"states holds inf at \(0, 0, 0\)"),
        ({"result": [7]}, r"result = \[7\], expected"),
    ],
)
def test_a_long_run_that_is_none_is_an_error(changes, said):
    with pytest.raises(ValueError, match=said):
        LongRun(**GOOD | changes)


DT = 0.1
T = DT * np.arange(1001)


def curve(x, y=None):
    return np.stack([x, 0 * x if y is None else y, 0 * x], axis=1)


def test_rates_are_taken_over_the_second_half():
    bent = np.where(T < 50, 7 * T, 350 + 0.25 * (T - 50))[None]
    run = LongRun(jnp.ones((1, 1)), curve(T)[None], DT, bent, -bent, np.array([True]))
    np.testing.assert_allclose(run.lyapunov, [0.25], rtol=1e-9)
    np.testing.assert_allclose(run.lyapunov_sum, [-0.25], rtol=1e-9)


def test_size_is_the_distance_to_the_mean_of_the_second_half():
    circle = curve(5 + 3 * np.cos(2 * np.pi * T), 3 * np.sin(2 * np.pi * T))
    circle[: len(T) // 2] = 100
    run = LongRun(jnp.ones((1, 1)), circle[None], DT, T[None], T[None], [True])
    np.testing.assert_allclose(run.size, [3.0], rtol=1e-3)
