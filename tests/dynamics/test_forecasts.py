import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx.dynamics.forecasts import (
    field_error,
    trajectory_errors,
    valid_prediction_time,
)
from hyperpinn_eqx.dynamics.trajectories import Trajectories
from hyperpinn_eqx.problems import Lorenz

LAMS = np.array([[10, 1.0, 0.0], [10, 2.0, 14], [10, 8 / 3, 28]])


def trajectories(states, dt=0.1, finished=None):
    """States of shape (M, I, T, d) by hand, in float64 like simulated ones."""
    done = np.ones(states.shape[:2], bool) if finished is None else finished
    with jax.enable_x64(True):
        lam, states = jnp.asarray(LAMS[: len(states)]), jnp.asarray(states)
    return Trajectories(lam, states, dt, jnp.asarray(done))


@pytest.fixture
def data():
    return trajectories(np.random.default_rng(0).normal(0, 5, (3, 2, 21, 3)))


def scaled(factor):
    """The Lorenz family, each field multiplied by factor(λ)."""

    def family(lam):
        field, by = Lorenz()(lam), factor(lam)
        return lambda x: by * field(x)

    return family


def sizes(data, every):
    """Σ |f|² for each λ, from the formula."""
    x, y, z = np.moveaxis(np.asarray(data.states, float)[:, :, ::every], -1, 0)
    s, b, r = np.asarray(data.lam, float).T[:, :, None, None]
    f = [s * (y - x), x * (r - z) - y, x * y - b * z]
    return np.sum(np.square(f), axis=(0, 2, 3))


def test_the_pooled_field_error_weighs_lambdas_by_their_slopes(data):
    # Wrong by ρ percent; only every fourth state counts.
    family = scaled(lambda lam: 1 + lam[2] / 100)
    weights = sizes(data, 4)
    expected = np.sqrt(np.sum(np.square([0, 0.14, 0.28]) * weights) / weights.sum())
    states = np.full((3, 2, 21, 3), np.nan)
    states[:, :, ::4] = data.states[:, :, ::4]
    thin = trajectories(states, finished=np.zeros((3, 2), bool))
    for some in (data, thin):
        pooled, each = field_error(family, Lorenz(), some, every=4)
        np.testing.assert_allclose(each, [0, 0.14, 0.28], rtol=1e-6)
        np.testing.assert_allclose(pooled, expected, rtol=1e-6)
    with pytest.raises(ValueError, match=r"trajectories.states.*nan"):
        field_error(family, Lorenz(), thin)


def test_a_float32_model_has_a_field_error_in_float64(data, getkey):
    box = hpx.Box(x=(-9, 9), y=(-9, 9), z=(-9, 9))
    main = hpx.MainNetSpec((3, 4, 3), box, bounded=False)
    model = eqx.filter_jit(hpx.ConcatPINN)(main, Lorenz().parameters, key=getkey())
    pooled, each = field_error(model, Lorenz(), data)
    assert 0.5 < pooled < 2  # as wrong as zero
    wide = field_error(hpx.cast(model, jnp.float64), Lorenz(), data)
    np.testing.assert_allclose(each, wide[1], rtol=1e-12)


def test_a_field_error_may_be_infinite_or_nan(data):
    pooled, each = field_error(scaled(lambda lam: lam[2] / lam[2]), Lorenz(), data)
    np.testing.assert_array_equal(np.isnan(each), [True, False, False])
    assert np.isnan(pooled)
    # At rest.
    pooled, each = field_error(Lorenz(), scaled(lambda lam: 0), data)
    assert pooled == np.inf and np.all(each == np.inf)


@pytest.mark.parametrize("argument", ["family", "exact"])
def test_a_family_for_other_states_is_an_error(argument, data):
    wrong = {"family": Lorenz(), "exact": Lorenz()}
    wrong[argument] = lambda lam: lambda x: x[:2]
    with pytest.raises(ValueError, match=argument):
        field_error(**wrong, trajectories=data)


def test_trajectory_errors_are_means_over_times_and_components(data):
    true = np.zeros((2, 2, 4, 3))
    found = true.copy()
    found[0, 1] = 2  # everywhere: 4
    found[1, 0, 3, 1] = 6  # one of 12 numbers: 36 / 12
    errors = trajectory_errors(trajectories(found), trajectories(true))
    np.testing.assert_allclose(errors, [[0, 4], [3, 0]], rtol=1e-6)
    np.testing.assert_array_equal(trajectory_errors(data, data), np.zeros((3, 2)))
    # A rounded λ is the same.
    assert np.all(trajectory_errors(hpx.cast(data, jnp.float32), data) < 1e-12)


@pytest.mark.parametrize("end", [0.0, np.nan, np.inf, 1e200])
def test_an_unfinished_trajectory_has_the_error_nan_and_is_wrong_from_its_end(end):
    states = np.zeros((2, 2, 4, 3))
    found = states.copy()
    found[0, 1, 2:] = end
    finished = np.array([[True, end == 1e200], [True, True]])
    found, true = trajectories(found, finished=finished), trajectories(states)
    errors = trajectory_errors(found, true)
    np.testing.assert_array_equal(
        errors, [[0, np.inf if end == 1e200 else np.nan], [0, 0]]
    )
    times = valid_prediction_time(found, true, np.ones(2))
    last = 0.2 if end else 0.3
    np.testing.assert_allclose(times, [[0.3, last], [0.3, 0.3]], rtol=1e-12)


def test_a_forecast_is_valid_until_it_first_leaves_its_tolerance():
    # Distance 3 along a diagonal, of |(1, 2, 2)|; the tolerance is half of the size.
    true, found = np.zeros((2, 2, 6, 3)), np.zeros((2, 2, 6, 3))
    found[0, 0, 2] = [1, 2, 2]  # wrong at the third state, though right after it
    found[0, 1, 4:] = [1, 2, 2]
    found[1, 0, 1:] = [1, 2, 2]  # within the tolerance of the second λ
    found[1, 1, 0] = [5, 0, 0]  # wrong from the start
    times = valid_prediction_time(
        trajectories(found), trajectories(true), np.array([4.0, 8.0]), threshold=0.5
    )
    np.testing.assert_allclose(times, [[0.2, 0.4], [0.5, 0.0]], rtol=1e-12)


def test_what_does_not_belong_together_is_an_error(data):
    states = np.asarray(data.states)
    finished = np.arange(6).reshape(3, 2) < 5
    for found, true, said in (
        (trajectories(states[:, :, :5]), data, "found"),
        (trajectories(states[:2]), data, "found"),
        (trajectories(states, dt=0.2), data, "found"),
        (eqx.tree_at(lambda d: d.lam, data, data.lam[::-1]), data, "found.lam"),
        (data, trajectories(states, finished=finished), r"true .*\(2, 1\)"),
    ):
        with pytest.raises(ValueError, match=f"(?s){said}"):
            trajectory_errors(found, true)
        with pytest.raises(ValueError, match=f"(?s){said}"):
            valid_prediction_time(found, true, np.ones(3))
    for scale in ([1.0, 0.0, 1.0], [1.0, 1.0]):
        with pytest.raises(ValueError, match="scale"):
            valid_prediction_time(data, data, np.array(scale))
