import functools

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jax import Array

import hyperpinn_eqx as hpx
from hyperpinn_eqx.dynamics import trajectories
from hyperpinn_eqx.dynamics.trajectories import Trajectories, simulate


class Oscillators(eqx.Module):
    """A family of damping λ₀ and stiffness λ₁, with one float32 weight.

    A trained model has many.
    """

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


def test_a_linear_system_follows_its_matrix_exponential():
    found = oscillations()
    assert found.states.shape == (3, 2, 31, 2) and np.all(found.finished)
    np.testing.assert_array_equal(found.states[:, :, 0], STARTS)
    np.testing.assert_array_equal(found.lam, LAMS)
    np.testing.assert_allclose(found.t, np.arange(31) / 10, rtol=1e-15)
    for (damping, stiffness), starts, states in zip(
        LAMS, STARTS, found.states, strict=True
    ):
        matrix = np.array([[0.0, 1.0], [-stiffness, -damping]])
        flow = scipy.linalg.expm(found.t[:, None, None] * matrix)
        expected = np.einsum("tij,nj->nti", flow, starts)
        np.testing.assert_allclose(states, expected, rtol=0, atol=1e-7)
    options = {"duration": 3.0, "dt": 0.1, "rtol": 1e-4}
    coarse = simulate(OSCILLATORS, LAMS, STARTS, **options).states
    assert 1e-6 < np.max(np.abs(coarse - found.states)) < 1e-3


def test_trajectories_are_float64_and_the_same_in_either_mode():
    assert oscillations().states.dtype == jnp.float64
    for x64 in (False, True):
        with jax.enable_x64(x64):
            again = simulate(OSCILLATORS, LAMS, STARTS, duration=3.0, dt=0.1)
        np.testing.assert_array_equal(again.states, oscillations().states)


# By the first of λ: decay, a blow-up at t = 1 / x, a root of what becomes negative, a
# stiff field, and one that is never finite.
FIELDS = (
    lambda x: -x,
    lambda x: x**2,
    lambda x: -1 - jnp.sqrt(x),
    lambda x: 1e6 * (jnp.cos(x) - x),
    lambda x: jnp.nan * x,
)


def one_of(lam):
    return lambda x: jnp.stack([f(x) for f in FIELDS])[lam[0].astype(int)]


@pytest.mark.parametrize("many", [False, True], ids=["one start", "two starts"])
def test_each_failure_has_its_reason_and_leaves_others_alone(many, monkeypatch):
    monkeypatch.setattr(trajectories, "_MAX_STEPS", 3000)
    lam = np.array([[0.0], [1], [2], [3], [4], [0]])
    start = np.array([[2.0], [1.8], [1.5], [2], [2], [1]])
    start = np.concatenate([start, start / 4], axis=1) if many else start
    found = simulate(one_of, lam, start[..., None], duration=1.0, dt=0.1)
    reasons = found.reasons()
    assert reasons.shape == found.finished.shape == start.shape
    ends = ["", "t = 0.5", "t = 0.8", "t = 0", "t = 0", ""]
    assert all(r.endswith(end) for r, end in zip(reasons[:, 0], ends, strict=True))
    assert len({*reasons[:, 0]}) == 5 and "3000" in reasons[3, 0]
    np.testing.assert_array_equal(found.finished, reasons == "")
    decay = start[[0, 5]][..., None] * np.exp(-found.t)
    states = np.asarray(found.states)[..., 0]
    np.testing.assert_allclose(states[[0, 5]], decay, rtol=0, atol=1e-8)
    # x(t) = 1 / (1 / x(0) - t), until there is none.
    blown = 1 / (1 / 1.8 - found.t[:6])
    np.testing.assert_allclose(states[1, 0, :6], blown, rtol=1e-7)
    assert not np.any(np.isfinite(states[1, 0, 6:]))


def test_trajectories_by_hand_may_tell_only_whether_they_finished(unchecked):
    states = np.array([[[[1], [2]], [[3], [np.inf]]]])
    found = Trajectories([[1]], states, 0.5, [[True, False]])
    ((fine, failed),) = found.reasons()
    assert fine == "" and failed.endswith("t = 0")
    coded = Trajectories(found.lam, found.states, 0.5, found.result)
    np.testing.assert_array_equal(coded.finished, [[True, False]])
    for wrong in ({"states": states * np.nan}, {"result": [[True]]}):
        good = {"lam": [[1]], "states": states, "result": [[True, False]]}
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Trajectories(**good | wrong, dt=0.5)


def test_trajectories_can_be_made_inside_of_jit(x64):
    @eqx.filter_jit
    def shifted(data):
        data = data.every(2)
        return Trajectories(data.lam, data.states + 1, data.dt, data.result)

    found = shifted(oscillations())
    np.testing.assert_allclose(found.states, oscillations().states[:, :, ::2] + 1)
    np.testing.assert_array_equal(found.t, 0.2 * np.arange(16))
    assert np.all(found.finished)


def test_what_makes_no_field_is_an_error(unchecked):
    for slope in (lambda x: x[:1], lambda x: None, 3):
        with pytest.raises(ValueError, match="family"):
            simulate(lambda lam: slope, LAMS, STARTS)  # noqa: B023
    with pytest.raises(ValueError, match="family"):
        simulate(hpx.Lorenz(), LAMS, STARTS)


def test_an_implicit_solver_masters_what_is_stiff():
    options = {"duration": 1.0, "dt": 0.1, "solver": dfx.Kvaerno5()}
    found = simulate(one_of, np.array([[3.0]]), np.array([[[2.0]]]), **options)
    assert np.all(found.finished)
    np.testing.assert_allclose(found.states[0, 0, -1, 0], 0.7390851332, atol=1e-8)
    with pytest.raises(ValueError, match="KenCarp4"):
        simulate(OSCILLATORS, LAMS, STARTS, solver=dfx.KenCarp4())


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
    other = windows(labelled, 3, 400, getkey())
    assert np.mean(np.asarray(found != other)) > 0.3


def test_half_of_the_windows_begin_early_and_half_anywhere(labelled, getkey):
    for early, last in ((2.0, 19), (0.0, 0), (1e300, 497)):  # seconds, Δt = 0.1
        begin = np.asarray(windows(labelled, 3, 400, getkey(), early))[:, :, 0, 2]
        first, rest = begin[:, :200], begin[:, 200:]
        assert first.min() < 10 and 0.95 * last <= first.max() <= last
        assert rest.max() > 480 and rest.min() < 20
        assert abs(rest.mean() - 497 / 2) < 30


def test_every_window_of_a_short_trajectory_is_drawn(labelled, getkey):
    short = eqx.tree_at(lambda d: d.states, labelled, labelled.states[:, :, :5])
    found = np.asarray(windows(short, 3, 100, getkey()))
    assert set(found[:, :50, 0, 2].ravel()) == {0, 1, 2}
    assert set(found[:, 50:, 0, 2].ravel()) == {0, 1, 2}
    whole = np.asarray(windows(short, 5, 10, getkey()))
    np.testing.assert_array_equal(whole[..., 2], np.broadcast_to(range(5), (3, 10, 5)))
    with pytest.raises(ValueError, match="length = 6"):
        short.windows(6, 2, key=getkey())
    assert windows(oscillations(), 2, 8, getkey()).dtype == jnp.float64


def test_unfinished_trajectories_have_no_windows(labelled, getkey):
    finished = labelled.finished.at[1, 2].set(False)
    states = labelled.states.at[1, 2, 7:].set(jnp.nan)
    data = Trajectories(labelled.lam, states, labelled.dt, finished)
    with pytest.raises(ValueError, match=r"data.*\(1, 2\)"):
        data.windows(3, 2, key=getkey())


def test_what_a_field_calls_back_is_that_of_the_call():
    def end(rate):
        def family(lam):
            shape = jax.ShapeDtypeStruct((1,), jnp.float64)
            return lambda x: jax.pure_callback(
                lambda x: rate * np.asarray(x), shape, x, vmap_method="sequential"
            )

        start = np.ones((1, 1, 1))
        run = hpx.simulate(family, np.ones((1, 1)), start, duration=0.2, dt=0.1)
        return run.states[0, 0, -1, 0]

    for rate in (-1.0, -2.0):
        np.testing.assert_allclose(end(rate), np.exp(0.2 * rate), rtol=1e-6)
