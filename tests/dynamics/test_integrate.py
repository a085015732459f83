import functools

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperpinn_eqx.dynamics.integrate import (
    check_ends,
    ends,
    field_of,
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
        (lambda y: {"x": -y["x"], "z": y["x"][0]}, "successful"),
        (lambda y: {"x": y["x"] ** 2, "z": y["z"]}, "dt_min_reached"),
        (lambda y: {"x": -y["x"], "z": -1 - jnp.sqrt(y["z"])}, "nonfinite"),
        (lambda y: {"x": -y["x"], "z": -1 + 0 * jnp.log(y["z"])}, "nonfinite"),
        (lambda y: {"x": y["x"], "z": y["z"] / (y["x"][0] - 1)}, "nonfinite"),
        (
            lambda y: {"x": 1e8 * (jnp.cos(y["x"]) - y["x"]), "z": y["z"]},
            "max_steps_reached",
        ),
    ],
    ids=["decay", "blow-up", "root", "logarithm", "infinite at once", "stiff"],
)
def test_a_solution_tells_how_it_ended(slope, end, x64):
    start = {"x": jnp.ones(2), "z": jnp.array(0.7)}
    states, found = end_of(slope, start, 2.0)
    assert found == getattr(dfx.RESULTS, end)
    assert np.all(np.isfinite(states["x"])) == (end == "successful")


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


def test_booleans_tell_only_what_finished():
    found = ends([True, False])
    np.testing.assert_array_equal(found == dfx.RESULTS.successful, [True, False])
    assert ends(found) is found
    for bad in ([0, 1], 1.0, "yes"):
        with pytest.raises(ValueError, match="result = .*expected"):
            ends(bad)


def test_there_is_an_end_for_each_solution_and_what_finished_is_finite():
    states = np.ones((2, 4, 1))
    states[1, 3] = np.nan
    check_ends(np.array([True, False]), states)
    jax.jit(lambda found: check_ends(found, states))(np.array([True, True]))
    with pytest.raises(ValueError, match=r"states holds nan at \(1, 3, 0\)"):
        check_ends(np.array([False, True]), states)
    with pytest.raises(ValueError, match="result has shape .*expected"):
        check_ends(np.array([True]), states)


def test_reasons_name_the_time_of_the_last_state_before_the_first_gap():
    states = np.ones((5, 5, 1))
    states[1, 3:] = np.inf
    states[2, 2] = states[3, 0] = np.nan
    names = ("successful", "dt_min_reached", "nonfinite", "max_steps_reached")
    each = [getattr(dfx.RESULTS, name) for name in (*names, "internal_error")]
    result = jax.tree.map(lambda *values: jnp.stack(values), *each)
    assert reasons(result, states, 0.5, 77).tolist() == [
        "",
        "no step was small enough (1e-12), last state at t = 1",
        "became infinite or NaN, last state at t = 0.5",
        "needed more than 77 steps, last state at t = 0",
        "did not finish, last state at t = 2",
    ]
