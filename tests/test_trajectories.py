import functools

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jax import Array

from hyperpinn_eqx.problems import Lorenz
from hyperpinn_eqx.trajectories import Trajectories, simulate


def matrix(lam):
    """A damped oscillator of damping λ₀ and stiffness λ₁."""
    return [[0.0, 1.0], [-lam[1], -lam[0]]]


class Oscillators(eqx.Module):
    """Their family, with one float32 weight as a trained model has many."""

    one: Array

    def __call__(self, lam):
        # Strict promotion: it must be float64 by now.
        return lambda x: jnp.stack(
            [self.one * x[1], -lam[1] * x[0] - lam[0] * self.one * x[1]]
        )


OSCILLATORS = Oscillators(jnp.ones((), jnp.float32))
LAMS = np.array([[0.1, 1.0], [2.0, 5.0], [0.0, 3.0]])
STARTS = np.random.default_rng(0).normal(size=(3, 2, 2))


@functools.cache
def oscillations():
    return simulate(OSCILLATORS, LAMS, STARTS, duration=3.0, dt=0.1)


@functools.cache
def lorenz(rtol=1e-9):
    """Trajectories on and off the attractor, for one quiet and one chaotic λ."""
    lam = np.array([[10, 1.0, 8.0], [10, 8 / 3, 28]])
    start = np.random.default_rng(1).uniform(-10, 10, (2, 3, 3))
    return simulate(Lorenz(), lam, start, duration=4.0, dt=0.01, rtol=rtol)


def test_a_linear_system_follows_its_matrix_exponential():
    found = oscillations()
    assert found.states.shape == (3, 2, 31, 2)
    assert np.all(found.finished)
    for lam, starts, states in zip(LAMS, STARTS, found.states, strict=True):
        flow = scipy.linalg.expm(found.t[:, None, None] * np.array(matrix(lam)))
        expected = np.einsum("tij,nj->nti", flow, starts)
        np.testing.assert_allclose(states, expected, rtol=0, atol=1e-7)


def test_states_begin_at_the_start_and_lie_dt_apart():
    found = oscillations()
    np.testing.assert_array_equal(found.states[:, :, 0], STARTS)
    np.testing.assert_array_equal(found.lam, LAMS)
    np.testing.assert_allclose(found.t, np.arange(31) / 10, rtol=1e-15)


def test_every_step_of_the_data_is_one_for_another_solver_too():
    data = lorenz()
    assert np.all(data.finished)
    states = np.asarray(data.states)
    rng = np.random.default_rng(2)
    i, t = rng.integers(3, size=(2, 50)), rng.integers(400, size=(2, 50))
    rows = np.arange(2)[:, None]
    again = simulate(
        Lorenz(),
        data.lam,
        states[rows, i, t],
        duration=data.dt,
        dt=data.dt,
        rtol=1e-11,
        solver=dfx.Dopri8(),
    )
    gap = np.asarray(again.states[:, :, -1]) - states[rows, i, t + 1]
    assert np.max(np.abs(gap)) < 1e-6


def test_a_looser_tolerance_is_less_accurate():
    # Before chaos has made everything of it.
    early = slice(100)
    fine, coarse = (
        np.asarray(lorenz(rtol).states[:, :, early]) for rtol in (1e-9, 1e-5)
    )
    assert 1e-7 < np.max(np.abs(fine - coarse)) < 0.1


def test_the_same_call_gives_the_same_trajectories():
    again = simulate(OSCILLATORS, LAMS, STARTS, duration=3.0, dt=0.1)
    np.testing.assert_array_equal(again.states, oscillations().states)


def test_float32_weights_are_simulated_in_float64_in_either_mode():
    assert OSCILLATORS.one.dtype == jnp.float32
    assert oscillations().states.dtype == jnp.float64
    with jax.enable_x64(True):
        wide = simulate(OSCILLATORS, LAMS, STARTS, duration=3.0, dt=0.1)
    np.testing.assert_array_equal(wide.states, oscillations().states)


def test_a_trajectory_that_blows_up_is_unfinished_and_leaves_others_alone():
    # x' = λ x²: x(t) = 1 / (1 / x(0) - λ t).
    lam = np.array([[1.0], [1.0], [-1.0]])
    start = np.array([2.0, 0.5, 2.0])[:, None, None]
    found = simulate(
        lambda lam: lambda x: lam[0] * x**2, lam, start, duration=1.0, dt=0.1
    )
    np.testing.assert_array_equal(found.finished, [[False], [True], [True]])
    inverse = 1 / start[:, :, 0] - lam * found.t
    states = np.asarray(found.states)[:, 0, :, 0]
    np.testing.assert_allclose(states[1:], 1 / inverse[1:], rtol=1e-7)
    np.testing.assert_allclose(states[0, :5], 1 / inverse[0, :5], rtol=1e-7)
    assert not np.any(np.isfinite(states[0, 6:]))


@pytest.mark.parametrize(
    ("lam", "start"),
    [
        (np.ones(2), np.ones((2, 1, 2))),
        (np.ones((2, 2)), np.ones((3, 1, 2))),
        (np.ones((2, 2)), np.ones((2, 2))),
    ],
    ids=["flat lam", "other M", "flat start"],
)
def test_shapes_that_do_not_fit_are_errors(lam, start, unchecked):
    with pytest.raises(ValueError, match="expected .M, p. and .M, I, d."):
        simulate(OSCILLATORS, lam, start)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_start_that_is_not_finite_is_an_error(bad):
    start = STARTS.copy()
    start[1, 0, 1] = bad
    with pytest.raises(ValueError, match="start is not finite"):
        simulate(OSCILLATORS, LAMS, start)


@pytest.mark.parametrize("argument", ["duration", "dt", "rtol"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_times_and_tolerances_must_be_positive(argument, value):
    with pytest.raises(ValueError, match=f"{argument} = {value}, expected a positive"):
        simulate(OSCILLATORS, LAMS, STARTS, **{argument: value})


def test_a_duration_shorter_than_a_step_is_an_error():
    with pytest.raises(ValueError, match="duration = 0.05, expected at least dt = 0.1"):
        simulate(OSCILLATORS, LAMS, STARTS, duration=0.05, dt=0.1)


@pytest.fixture
def labelled():
    """500 states that tell where they come from: (index of λ, trajectory, time)."""
    m, i, t = np.meshgrid(range(3), range(4), range(500), indexing="ij")
    states = jnp.asarray(np.stack([m, i, t], axis=-1), jnp.float32)
    return Trajectories(jnp.arange(3.0)[:, None], states, 0.1, jnp.ones((3, 4), bool))


@eqx.filter_jit
def windows(data, length, n, key, early=2.0):
    return data.windows(length, n, early=early, key=key)


def test_a_window_is_a_run_of_one_trajectory_of_its_lambda(labelled, getkey):
    found = np.asarray(windows(labelled, 3, 400, getkey()))
    assert found.shape == (3, 400, 3, 3)
    m, i, t = np.moveaxis(found, -1, 0)
    np.testing.assert_array_equal(m, np.broadcast_to([[[0]], [[1]], [[2]]], m.shape))
    np.testing.assert_array_equal(i, np.broadcast_to(i[:, :, :1], i.shape))
    np.testing.assert_array_equal(t, t[:, :, :1] + np.arange(3))
    assert set(i.ravel()) == {0, 1, 2, 3}


def test_half_of_the_windows_begin_early_and_half_anywhere(labelled, getkey):
    begin = np.asarray(windows(labelled, 3, 400, getkey()))[:, :, 0, 2]
    early, rest = begin[:, :200], begin[:, 200:]
    assert early.max() == 19 and early.min() == 0  # the first 2 s, Δt = 0.1
    assert rest.max() > 480 and rest.min() < 20
    assert abs(rest.mean() - 497 / 2) < 30


def test_every_window_of_a_short_trajectory_is_drawn(labelled, getkey):
    short = eqx.tree_at(lambda d: d.states, labelled, labelled.states[:, :, :5])
    found = np.asarray(windows(short, 3, 100, getkey()))
    assert set(found[:, :50, 0, 2].ravel()) == {0, 1, 2}
    assert set(found[:, 50:, 0, 2].ravel()) == {0, 1, 2}
    whole = np.asarray(windows(short, 5, 10, getkey()))
    np.testing.assert_array_equal(whole[..., 2], np.broadcast_to(range(5), (3, 10, 5)))


def test_the_key_decides_the_windows(labelled):
    first, again, other = (
        windows(labelled, 3, 400, jax.random.key(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.mean(np.asarray(first != other)) > 0.3


def test_windows_of_simulated_data_keep_float64(getkey):
    found = windows(oscillations(), 2, 8, getkey())
    assert found.dtype == jnp.float64
    states = np.asarray(oscillations().states)
    for m in range(3):
        pairs = np.concatenate([states[m, :, :-1], states[m, :, 1:]], axis=-1)
        pairs = pairs.reshape(-1, 4)
        for window in np.asarray(found[m]).reshape(-1, 4):
            assert np.any(np.all(pairs == window, axis=1))


@pytest.mark.parametrize("length", [0, 501])
def test_windows_longer_than_the_trajectories_are_errors(length, labelled, getkey):
    with pytest.raises(
        ValueError, match=f"length = {length}, expected 1, ..., 500: trajectories"
    ):
        labelled.windows(length, 2, key=getkey())
