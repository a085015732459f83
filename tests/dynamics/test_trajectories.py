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
from hyperpinn_eqx.problems import Lorenz


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
    assert reasons[:, 0].tolist() == [
        "",
        "no step was small enough (1e-12), last state at t = 0.5",
        "became infinite or NaN, last state at t = 0.8",
        "needed more than 3000 steps, last state at t = 0",
        "became infinite or NaN, last state at t = 0",
        "",
    ]
    np.testing.assert_array_equal(found.finished, reasons == "")
    decay = start[[0, 5]][..., None] * np.exp(-found.t)
    states = np.asarray(found.states)[[0, 5], ..., 0]
    np.testing.assert_allclose(states, decay, rtol=0, atol=1e-8)


def test_a_model_with_a_broken_weight_has_unfinished_trajectories(getkey):
    box = hpx.Box(x=(-9, 9), y=(-9, 9), z=(-9, 9))
    main = hpx.MainNetSpec((3, 4, 3), box, bounded=False)
    model = eqx.filter_jit(hpx.ConcatPINN)(main, Lorenz().parameters, key=getkey())
    model = eqx.tree_at(lambda m: m.net.biases[0], model, jnp.full(4, jnp.nan))
    lam, start = np.array([[10, 2, 20.0]]), np.array([[[1.0, 2, 3]]])
    found = simulate(model, lam, start, duration=1.0)
    assert found.reasons().item() == "became infinite or NaN, last state at t = 0"


def test_trajectories_by_hand_may_tell_only_whether_they_finished(unchecked):
    states = np.array([[[[1], [2]], [[3], [np.inf]]]])
    found = Trajectories([[1]], states, 0.5, [[True, False]])
    assert found.reasons().tolist() == [["", "did not finish, last state at t = 0"]]
    coded = Trajectories(found.lam, found.states, 0.5, found.result)
    np.testing.assert_array_equal(coded.finished, [[True, False]])


def test_trajectories_can_be_made_inside_of_jit(x64):
    @eqx.filter_jit
    def shifted(data):
        data = data.every(2)
        return Trajectories(data.lam, data.states + 1, data.dt, data.result)

    found = shifted(oscillations())
    np.testing.assert_allclose(found.states, oscillations().states[:, :, ::2] + 1)
    np.testing.assert_array_equal(found.t, 0.2 * np.arange(16))
    assert np.all(found.finished)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"states": np.full((2, 1, 2, 1), np.nan)}, r"holds nan at \(0, 0, 0, 0\)"),
        ({"result": np.array([[0], [5]])}, "(?s)result = .*expected"),
        ({"result": np.ones((1, 1), bool)}, "result has shape .*expected"),
    ],
)
def test_trajectories_that_are_none_are_errors(changes, said, unchecked):
    good = {"lam": np.ones((2, 1)), "states": np.ones((2, 1, 2, 1)), "dt": 0.1}
    with pytest.raises(ValueError, match=said):
        Trajectories(**{**good, "result": np.ones((2, 1), bool), **changes})


@pytest.mark.parametrize(
    ("family", "error", "said"),
    [
        (lambda lam: 3, ValueError, "family = .*'int' object is not callable"),
        (lambda lam: lambda x: x[:1], ValueError, r"family\(lam\)\(x\) has shape \(1,"),
        (lambda lam: lambda x: None, ValueError, "family = .*expected for lam of"),
        (Lorenz(), ValueError, "family = Lorenz.*lam has shape .2,., expected 3 value"),
    ],
)
def test_what_makes_no_field_is_an_error(family, error, said, unchecked):
    with pytest.raises(error, match=said):
        simulate(family, LAMS, STARTS)


def test_a_field_may_return_a_list_or_a_scalar(unchecked):
    listed = simulate(
        lambda lam: lambda x: [x[1], -lam[1] * x[0] - lam[0] * x[1]],
        LAMS.tolist(),
        STARTS.tolist(),
        duration=3,
        dt=np.float32(0.1),
    )
    assert listed.dt != 0.1  # but that of float32
    np.testing.assert_allclose(
        listed.states[:, :, -1], oscillations().states[:, :, -1], rtol=0, atol=1e-6
    )
    scalar = simulate(lambda lam: lambda x: -x[0], [[1]], [[[1]]], duration=1, dt=0.5)
    np.testing.assert_allclose(scalar.states.ravel(), np.exp([0, -0.5, -1]), atol=1e-8)


@pytest.mark.parametrize("duration", [0.05, 1e9])
def test_a_duration_of_less_than_a_step_or_of_far_too_many_is_an_error(duration):
    said = f"duration = {duration} and dt = 0.1, expected a duration of 1 to 1e9 times"
    with pytest.raises(ValueError, match=said):
        simulate(OSCILLATORS, LAMS, STARTS, duration=duration, dt=0.1)


@pytest.mark.parametrize(
    ("solver", "error", "said"),
    [
        (dfx.Euler(), TypeError, "solver = Euler.*expected"),
        (dfx.KenCarp4(), ValueError, "solver = KenCarp4, expected"),
    ],
)
def test_a_solver_that_cannot_do_it_is_an_error(solver, error, said):
    with pytest.raises(error, match=said):
        simulate(OSCILLATORS, LAMS, STARTS, solver=solver)


def test_an_implicit_solver_masters_what_is_stiff():
    found = simulate(
        one_of,
        np.array([[3.0]]),
        np.array([[[2.0]]]),
        duration=1.0,
        dt=0.1,
        solver=dfx.Kvaerno5(),
    )
    assert np.all(found.finished)
    np.testing.assert_allclose(found.states[0, 0, -1, 0], 0.7390851332, atol=1e-8)


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


def test_windows_longer_than_the_trajectories_are_errors(labelled, getkey):
    said = "length = 501, expected 1, ..., 500: trajectories have 500 states"
    with pytest.raises(ValueError, match=said):
        labelled.windows(501, 2, key=getkey())


def test_unfinished_trajectories_have_no_windows(labelled, getkey):
    finished = labelled.finished.at[1, 2].set(False)
    states = labelled.states.at[1, 2, 7:].set(jnp.nan)
    data = Trajectories(labelled.lam, states, labelled.dt, finished)
    said = (
        r"data holds unfinished trajectories, expected finished ones; 1 did not "
        r"finish, the first at \(1, 2\): did not finish, last"
    )
    with pytest.raises(ValueError, match=said):
        data.windows(3, 2, key=getkey())


def test_windows_of_no_early_time_begin_at_the_start(labelled, getkey):
    begin = np.asarray(windows(labelled, 3, 40, getkey(), early=0.0))[:, :20, 0, 2]
    assert np.all(begin == 0)
    anywhere = np.asarray(windows(labelled, 3, 400, getkey(), early=1e300))[:, :, 0, 2]
    assert anywhere[:, :200].max() > 400


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
