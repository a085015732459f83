import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import Lorenz

pytestmark = pytest.mark.usefixtures("x64")


@jax.jit
def lorenz(lam, x):
    return Lorenz()(lam)(x)


def test_the_field_is_the_papers_equation_four():
    assert Lorenz().parameters.names == ("sigma", "beta", "rho")
    assert Lorenz().initial.names == ("x", "y", "z")
    rng = np.random.default_rng(0)
    # From ρ = 0 on, which may be.
    for least in (0, 0, 28):
        sigma, beta, rho = lam = rng.uniform([10, 2 / 3, 0], [10, 8 / 3, least])
        x, y, z = state = rng.normal(0, 10, 3)
        expected = [sigma * (y - x), x * (rho - z) - y, x * y - beta * z]
        np.testing.assert_allclose(lorenz(lam, state), expected, rtol=1e-13)


def test_it_rests_at_its_fixed_points():
    for beta, rho in ((1.0, 2.0), (8 / 3, 28.0)):
        lam, c = jnp.array([10, beta, rho]), np.sqrt(beta * (rho - 1))
        for point in ([0.0, 0.0, 0.0], [c, c, rho - 1], [-c, -c, rho - 1]):
            np.testing.assert_allclose(lorenz(lam, jnp.array(point)), 0, atol=1e-12)


def test_it_is_symmetric_and_shrinks_every_volume_alike():
    lam, turn = jnp.array([10, 2.0, 20.0]), jnp.array([-1.0, -1.0, 1.0])
    state = jnp.asarray(np.random.default_rng(1).normal(0, 10, 3))
    turned = lorenz(lam, turn * state)
    np.testing.assert_allclose(turned, turn * lorenz(lam, state), rtol=1e-14)
    divergence = jnp.trace(jax.jit(jax.jacfwd(lorenz, 1))(lam, state))
    np.testing.assert_allclose(divergence, -(10 + 1 + 2.0), rtol=1e-14)


def test_slopes_have_the_precision_of_the_states_that_may_be_many():
    lam = np.array([10, 2.0, 20.0])
    for dtype in (jnp.float32, jnp.float64):
        states = jnp.asarray(np.random.default_rng(2).normal(size=(7, 3)), dtype)
        slopes = jax.jit(lambda x: jax.vmap(Lorenz()(lam))(x))(states)
        assert slopes.dtype == dtype
        np.testing.assert_allclose(slopes[4], lorenz(lam, states[4]), rtol=1e-6)


def test_what_makes_no_sense_is_an_error(unchecked):
    np.testing.assert_array_equal(Lorenz()([10, 2, 28])([1, 2, 3]), [10, 23, -4])
    for state in ([1.0, 2.0], np.ones((3, 5)), [1.0, np.nan, 2.0]):
        with pytest.raises(ValueError, match=r"\bx\b"):
            Lorenz()([10, 2, 28])(state)
    for lam, name in (([10, 0, 20], "beta"), ([10, 2, np.inf], "rho")):
        with pytest.raises(ValueError, match=name):
            Lorenz()(lam)
    with pytest.warns(UserWarning, match="rho"):
        Lorenz()([10, 2, 30])


def test_a_users_own_system_needs_a_field_and_two_boxes():
    class Nothing(hpx.AbstractODE):
        initial = hpx.Box(x=(0, 1))
        parameters = hpx.Box(rate=(0.1, 2.0))

    class Decay(Nothing):
        def field(self, x, lam):
            return -lam[0] * x

    for rate in (0.5, jnp.array([0.5])):
        np.testing.assert_allclose(Decay()(rate)(jnp.array([3.0])), [-1.5])
    with pytest.raises(TypeError, match="abstract"):
        Nothing()
    for attribute in ("initial", "parameters"):
        wrong = type("Wrong", (Lorenz,), {attribute: {"x": (0, 1)}})
        with pytest.raises(TypeError, match=attribute):
            wrong()
