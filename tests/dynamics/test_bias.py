from operator import attrgetter

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx.dynamics.bias import add_bias, remove_bias
from hyperpinn_eqx.dynamics.multistep import (
    adams_bashforth,
    adams_moulton,
    bdf,
    residual,
)


def curved(x):
    """A field with the trajectory (1 / (1 + t), √(1 + t)) from (1, 1)."""
    return jnp.stack([-(x[0] ** 2), x[0] * x[1] / 2])


def curve(scheme, dt):
    t = 0.2 + dt * jnp.arange(scheme.steps + 1.0)
    return jnp.stack([1 / (1 + t), jnp.sqrt(1 + t)], axis=1)


BIASED = [adams_bashforth(1), adams_moulton(1), adams_bashforth(2), bdf(1), bdf(3)]


@pytest.mark.parametrize("scheme", BIASED, ids=attrgetter("name"))
def test_without_its_bias_a_learned_field_is_better_by_a_power_of_the_step(
    scheme, order_of, x64
):
    # What the scheme makes of x' = x is g(x) = m x, exactly. For the trapezoid rule
    # m = 2 / Δt tanh(Δt / 2).
    steps = np.array([0.2, 0.1, 0.05])
    alpha, beta = np.array(scheme.alpha, float), np.array(scheme.beta, float)
    past = np.exp(-steps[:, None] * np.arange(scheme.steps + 1))
    factors = past @ alpha / steps / (past @ beta)

    @eqx.filter_jit
    def debiased(x):
        fields = [
            remove_bias(lambda x, m=m: m * x, scheme, dt)
            for m, dt in zip(factors.tolist(), steps.tolist(), strict=True)
        ]
        return jnp.stack([field(x)[0] for field in fields])

    before, after = np.abs(factors - 1), np.abs(debiased(jnp.ones(1)) - 1)
    assert np.all(after < before)
    assert abs(order_of(steps, before) - scheme.order) < 0.2
    assert order_of(steps, after) > scheme.order + 0.8
    if scheme == adams_moulton(1):  # which is symmetric, and gains two powers
        np.testing.assert_allclose(factors, 2 / steps * np.tanh(steps / 2), rtol=1e-12)
        assert abs(order_of(steps, after) - 4) < 0.1


@pytest.mark.parametrize("scheme", BIASED, ids=attrgetter("name"))
def test_with_its_bias_a_nonlinear_field_fits_the_scheme_better(scheme, order_of, x64):
    steps = [0.02, 0.01, 0.005]

    @eqx.filter_jit
    def sizes():
        found = []
        for dt in steps:
            states = curve(scheme, dt)
            fields = (curved, add_bias(curved, scheme, dt))
            r = jnp.stack([residual(scheme, f, states, dt) for f in fields])
            found.append(jnp.linalg.norm(r, axis=1))
        return jnp.stack(found, axis=1)

    true, biased = sizes()
    assert abs(order_of(steps, true) - scheme.order) < 0.2
    assert order_of(steps, biased) > scheme.order + 0.8


def test_the_field_of_one_component_may_be_a_scalar():
    for shape in ((), (1,)):
        field = lambda x, shape=shape: jnp.reshape(x**2, shape)  # noqa: E731
        better = remove_bias(field, adams_moulton(1), 0.5)(jnp.ones(1))
        # D_g² g = (g' g)' g = 6 x⁴ for g = x².
        np.testing.assert_allclose(better, [1 + 6 * 0.5**2 / 12], rtol=1e-6)


def test_a_network_computes_in_its_own_precision(computes_in_its_own_precision, getkey):
    spec = hpx.MainNetSpec((2, 5, 2), hpx.Box(x=(-2, 2), y=(-2, 2)))
    net = eqx.filter_jit(spec.init)(key=getkey())
    state = np.random.default_rng(0).normal(size=2)
    computes_in_its_own_precision(
        lambda net: remove_bias(net, adams_bashforth(2), 0.1), net, state
    )


@pytest.mark.parametrize("shape", [(), (2, 2)], ids=str)
def test_a_field_without_its_bias_takes_one_state(shape, unchecked):
    with pytest.raises(ValueError, match="x has shape"):
        remove_bias(jnp.sin, adams_moulton(1), 0.1)(jnp.ones(shape))
