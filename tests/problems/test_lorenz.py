import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx.problems import AbstractODE, Lorenz


@jax.jit
def lorenz(lam, x):
    return Lorenz()(lam)(x)


def test_the_field_is_the_papers_equation_four(x64):
    rng = np.random.default_rng(0)
    for _ in range(5):
        sigma, beta, rho = lam = rng.uniform([10, 2 / 3, 0], [10, 8 / 3, 28])
        x, y, z = state = rng.normal(0, 10, 3)
        expected = [sigma * (y - x), x * (rho - z) - y, x * y - beta * z]
        np.testing.assert_allclose(lorenz(lam, state), expected, rtol=1e-13)


def test_it_rests_at_its_fixed_points(x64):
    for beta, rho in ((1.0, 2.0), (8 / 3, 28.0)):
        lam, c = jnp.array([10, beta, rho]), np.sqrt(beta * (rho - 1))
        for point in ([0.0, 0.0, 0.0], [c, c, rho - 1], [-c, -c, rho - 1]):
            np.testing.assert_allclose(lorenz(lam, jnp.array(point)), 0, atol=1e-12)


def test_it_is_symmetric_and_shrinks_every_volume_alike(x64):
    lam, turn = jnp.array([10, 2.0, 20.0]), jnp.array([-1.0, -1.0, 1.0])
    state = jnp.asarray(np.random.default_rng(1).normal(0, 10, 3))
    np.testing.assert_allclose(
        lorenz(lam, turn * state), turn * lorenz(lam, state), rtol=1e-14
    )
    divergence = jnp.trace(jax.jit(jax.jacfwd(lorenz, 1))(lam, state))
    np.testing.assert_allclose(divergence, -(10 + 1 + 2.0), rtol=1e-14)


def test_parameters_are_in_the_papers_order():
    assert Lorenz().parameters.names == ("sigma", "beta", "rho")
    assert Lorenz().initial.names == ("x", "y", "z")


def test_a_whole_trajectory_of_states_can_be_vmapped(x64):
    states = jnp.asarray(np.random.default_rng(2).normal(size=(7, 3)))
    lam = jnp.array([10, 1.0, 10.0])
    slopes = jax.jit(lambda lam, x: jax.vmap(Lorenz()(lam))(x))(lam, states)
    np.testing.assert_allclose(slopes[4], lorenz(lam, states[4]), rtol=1e-14)


def test_slopes_have_the_precision_of_the_state(x64):
    lam = np.array([10, 2.0, 20.0])
    for dtype in (jnp.float32, jnp.float64):
        assert Lorenz()(lam)(jnp.ones(3, dtype)).dtype == dtype


@pytest.mark.parametrize("lam", [28.0, [10, 28], [10, 1, 20, 3]], ids=str)
def test_another_number_of_parameters_is_an_error(lam, unchecked):
    with pytest.raises(ValueError, match="3 value.s.: sigma, beta, rho"):
        Lorenz()(jnp.asarray(lam))


@pytest.mark.parametrize(
    ("lam", "match"),
    [
        ([10, np.nan, 20], "beta = nan, expected a positive number"),
        ([10, 2, np.inf], "rho = inf, expected a finite number"),
        ([-10, 2, 20], "sigma = -10.0, expected a positive number"),
        ([10, 0, 20], "beta = 0.0, expected a positive number"),
    ],
    ids=str,
)
def test_a_parameter_that_makes_no_sense_is_an_error(lam, match):
    with pytest.raises(ValueError, match=match):
        Lorenz()(np.array(lam))


@pytest.mark.parametrize(
    ("lam", "name"), [([12, 2, 20], "sigma"), ([10, 2, 30], "rho")], ids=str
)
def test_a_parameter_outside_the_range_is_a_warning(lam, name):
    with pytest.warns(UserWarning, match=f"{name} = .*outside the trained range"):
        field = Lorenz()(np.array(lam))
    assert np.all(np.isfinite(field(jnp.ones(3))))


def test_rho_may_be_zero():
    # Warnings would be errors here.
    slope = Lorenz()(np.array([10, 8 / 3, 0]))(jnp.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(slope, [10, -5, -6], rtol=1e-6)


def test_a_users_own_system_needs_a_field_and_two_boxes():
    class Decay(AbstractODE):
        initial = hpx.Box(x=(0, 1))
        parameters = hpx.Box(rate=(0.1, 2.0))

        def field(self, x, lam):
            return -lam[0] * x

    slope = jax.jit(lambda lam, x: Decay()(lam)(x))
    np.testing.assert_allclose(slope(0.5, jnp.array([3.0])), [-1.5], rtol=1e-6)
    np.testing.assert_allclose(slope(jnp.ones(1), jnp.array([3.0])), [-3], rtol=1e-6)
    with pytest.raises(ValueError, match="rate = -1.0, expected a positive number"):
        Decay()(-1.0)


def test_a_system_without_a_field_cannot_be_made():
    class Nothing(AbstractODE):
        initial = hpx.Box(x=(0, 1))
        parameters = hpx.Box(rate=(0.1, 2.0))

    with pytest.raises(TypeError, match="abstract"):
        Nothing()


def test_a_state_may_be_a_list_of_integers(unchecked):
    slope = Lorenz()([10, 2, 28])([1, 2, 3])
    np.testing.assert_array_equal(slope, [10, 23, -4])


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ([1.0, 2.0], r"x has shape \(2,\), expected \(3,\)"),
        (np.ones((3, 5)), r"x has shape \(3, 5\), expected \(3,\)"),
        ([1.0, np.nan, 2.0], r"x holds nan at \(1,\), expected finite numbers"),
    ],
)
def test_a_state_that_is_none_is_an_error(state, said, unchecked):
    with pytest.raises(ValueError, match=said):
        Lorenz()(np.array([10, 2, 28]))(state)
