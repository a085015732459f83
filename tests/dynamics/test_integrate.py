import functools

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperpinn_eqx.dynamics.integrate import (
    field_of,
    outcomes,
    reasons,
    solve,
    times,
)


@functools.partial(jax.jit, static_argnums=0)
def end_of(slope, start, duration):
    t = jnp.linspace(0, duration, 5)
    rtol = jnp.asarray(1e-6)
    return solve(slope, start, t, rtol, solver=dfx.Dopri5(), max_steps=2000)


@pytest.mark.parametrize(
    ("slope", "end"),
    [
        (lambda y: {"x": -y["x"], "z": y["x"][0]}, 0),
        (lambda y: {"x": y["x"] ** 2, "z": y["z"]}, 2),
        (lambda y: {"x": -y["x"], "z": -1 - jnp.sqrt(y["z"])}, 1),
        (lambda y: {"x": -y["x"], "z": -1 + 0 * jnp.log(y["z"])}, 1),
        (lambda y: {"x": y["x"], "z": y["z"] / (y["x"][0] - 1)}, 1),
        (lambda y: {"x": 1e8 * (jnp.cos(y["x"]) - y["x"]), "z": y["z"]}, 3),
    ],
    ids=["decay", "blow-up", "root", "logarithm", "infinite at once", "stiff"],
)
def test_a_solution_tells_how_it_ended(slope, end, x64):
    start = {"x": jnp.ones(2), "z": jnp.array(0.7)}
    states, found = end_of(slope, start, 2.0)
    assert found == end
    assert np.all(np.isfinite(states["x"])) == (end == 0)


def test_a_slope_has_the_precision_and_the_shape_of_the_state(x64):
    for slope in (lambda x: [1, 2], lambda x: jnp.ones(2, jnp.float32)):
        found = field_of(lambda lam: slope, jnp.ones(1))(jnp.ones(2))  # noqa: B023
        assert found.shape == (2,) and found.dtype == jnp.float64
    assert field_of(lambda lam: jnp.sum, jnp.ones(1))(jnp.ones(1)).shape == (1,)


def test_times_end_at_the_multiple_of_dt_next_to_the_duration():
    for duration, last in ((1.0, 1.0), (1.04, 1.0), (1.06, 1.1)):
        t = times(duration, 0.1, 1)
        np.testing.assert_allclose(t, 0.1 * np.arange(len(t)), rtol=1e-15)
        np.testing.assert_allclose(t[-1], last, rtol=1e-12)


def test_outcomes_are_integers_or_booleans(unchecked):
    states = np.ones((3, 4, 1))
    np.testing.assert_array_equal(outcomes([True, False, True], states), [0, 4, 0])
    np.testing.assert_array_equal(outcomes(np.array([0, 3, 1]), states), [0, 3, 1])
    traced = jax.jit(lambda found: outcomes(found, states))(jnp.array([0, 9, 1]))
    np.testing.assert_array_equal(traced, [0, 9, 1])  # not looked at
    for bad in (None, "text", [[True], [False, True]], 1.0, [True], [0, 1, -1]):
        with pytest.raises(ValueError, match="outcome = .*of shape .3,. for states"):
            outcomes(bad, states)


def test_what_finished_is_finite(unchecked):
    states = np.ones((2, 4, 1))
    states[1, 3] = np.nan
    assert list(outcomes([0, 2], states)) == [0, 2]
    with pytest.raises(ValueError, match=r"states holds nan at \(1, 3, 0\)"):
        outcomes([2, 0], states)


def test_reasons_name_the_time_of_the_last_state_before_the_first_gap():
    states = np.ones((4, 5, 1))
    states[1, 3:] = np.inf
    states[2, 2] = states[3, 0] = np.nan
    assert reasons(np.array([0, 2, 1, 3]), states, 0.5, 77).tolist() == [
        "",
        "no step was small enough (1e-12), last state at t = 1",
        "became infinite or NaN, last state at t = 0.5",
        "needed more than 77 steps, last state at t = 0",
    ]
