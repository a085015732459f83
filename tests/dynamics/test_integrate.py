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
        (lambda y: {"x": -y["x"], "z": -1 + 0 * jnp.log(y["z"])}, "nonfinite"),
        (lambda y: {"x": y["x"], "z": y["z"] / (y["x"][0] - 1)}, "nonfinite"),
        (
            lambda y: {"x": 1e8 * (jnp.cos(y["x"]) - y["x"]), "z": y["z"]},
            "max_steps_reached",
        ),
    ],
    ids=["decay", "blow-up", "logarithm", "infinite at once", "stiff"],
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
    assert len(times(0.2, 0.1, 2)) == 3
    for duration, least in ((0.15, 2), (1e8, 1)):
        with pytest.raises(ValueError, match="duration"):
            times(duration, 0.1, least)


def test_there_is_an_end_for_each_solution_and_what_finished_is_finite():
    found = ends([True, False])
    np.testing.assert_array_equal(found == dfx.RESULTS.successful, [True, False])
    assert ends(found) is found
    for bad in ([0, 1], 1.0, "yes"):
        with pytest.raises(ValueError, match="result"):
            ends(bad)
    states = np.ones((2, 4, 1))
    states[1, 3] = np.nan
    check_ends(np.array([True, False]), states)
    jax.jit(lambda found: check_ends(found, states))(np.array([True, True]))
    with pytest.raises(ValueError, match=r"states.*nan.*\(1, 3, 0\)"):
        check_ends(np.array([False, True]), states)
    with pytest.raises(ValueError, match="result"):
        check_ends(np.array([True]), states)


def test_reasons_name_the_time_of_the_last_state_before_the_first_gap():
    states = np.ones((5, 5, 1))
    states[1, 3:] = np.inf
    states[2, 2] = states[3, 0] = np.nan
    names = ("successful", "dt_min_reached", "nonfinite", "max_steps_reached")
    each = [getattr(dfx.RESULTS, name) for name in (*names, "internal_error")]
    result = jax.tree.map(lambda *values: jnp.stack(values), *each)
    found = reasons(result, states, 0.5, 77).tolist()
    assert found[0] == "" and "77" in found[3] and len({*found}) == 5
    last = [float(reason.split("t = ")[1]) for reason in found[1:]]
    assert last == [1, 0.5, 0, 2]
