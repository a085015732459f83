"""Calls at a prompt are compiled, and still read what holds at the call."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx.networks import main, model

DOMAIN, NU = hpx.Box(t=(0, 1), x=(-1, 1)), hpx.Box(nu=(1e-3, 1e-1, "log"))
SPEC = hpx.MainNetSpec((2, 5, 4, 1), DOMAIN)
POINTS = jnp.array([[0.1, -0.5], [0.3, 0.0], [1.0, 0.9]])

MODELS = {
    "HyperPINN": lambda key: hpx.HyperPINN(SPEC, NU, (6, 4), key=key),
    "ConcatPINN": lambda key: hpx.ConcatPINN(SPEC, NU, key=key),
    "FiLM": lambda key: hpx.FiLM(SPEC, NU, (4,), key=key),
    "LowRank": lambda key: hpx.LowRank(SPEC, NU, (4,), rank=2, key=key),
    "LastLayer": lambda key: hpx.LastLayer(SPEC, NU, (4,), key=key),
}


@pytest.mark.parametrize("name", MODELS)
def test_compiled_calls_return_what_the_layers_do(name):
    family = MODELS[name](jax.random.key(0))
    net = family(0.01)
    with jax.disable_jit():
        other = family.net_at(jnp.array([0.01]))
        u = jnp.stack([other.value(point) for point in POINTS])
    for one, two in zip(jax.tree.leaves(net), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
    for found in (
        jnp.stack([net(point) for point in POINTS]),
        jax.vmap(net)(POINTS),
        hpx.values(net, POINTS),
        jax.jit(jax.vmap(net))(POINTS),
        jax.jit(lambda net, points: hpx.values(net, points))(net, POINTS),
        hpx.values(lambda point: net(point), POINTS),
    ):
        np.testing.assert_allclose(found, u, rtol=1e-5, atol=1e-6)


def test_derivatives_go_through_compiled_calls():
    family, point = MODELS["HyperPINN"](jax.random.key(0)), POINTS[0]

    def typed(lam):
        return family(lam)(point)

    def plain(lam):
        scaled = NU.scale(lam[None])
        return family.generate(scaled).value(point)

    lam = jnp.array(0.01)
    np.testing.assert_allclose(jax.grad(typed)(lam), jax.grad(plain)(lam), rtol=1e-5)
    np.testing.assert_allclose(
        jax.jvp(typed, (lam,), (lam,))[1], jax.jvp(plain, (lam,), (lam,))[1], rtol=1e-5
    )


def test_networks_of_one_shape_share_a_program():
    family = MODELS["HyperPINN"](jax.random.key(0))
    family(0.01)(POINTS[0])
    before = main._value._cache_size(), model._net._cache_size()
    for nu in (0.002, 0.02, 0.05):
        for point in POINTS:
            family(nu)(point)
    assert (main._value._cache_size(), model._net._cache_size()) == before


def test_code_that_others_wrote_is_read_anew():
    size = 2.0

    class Own(hpx.AbstractModel):
        net: hpx.MainNet
        parameters: hpx.Box

        def generate(self, scaled):
            return self.net.replaced(size * self.net.flatten())

    spec = hpx.MainNetSpec((2, 3, 1), DOMAIN, hard=lambda x, lam: (size, 0.0))
    own = Own(SPEC.init(key=jax.random.key(0)), NU)
    built_in = hpx.HyperPINN(spec, NU, (4,), key=jax.random.key(0))
    first = own(0.01).flatten()
    assert built_in(0.01)(POINTS[0]) == 2
    np.testing.assert_array_equal(hpx.values(built_in(0.01), POINTS), [2.0, 2.0, 2.0])
    np.testing.assert_array_equal(hpx.on_grid(built_in(0.01), [0.5], [0.0]), [[2.0]])
    size = 4.0
    np.testing.assert_allclose(own(0.01).flatten(), 2 * first, rtol=1e-6)
    assert built_in(0.01)(POINTS[0]) == 4
    np.testing.assert_array_equal(hpx.values(built_in(0.01), POINTS), [4.0, 4.0, 4.0])
    np.testing.assert_array_equal(hpx.on_grid(built_in(0.01), [0.5], [0.0]), [[4.0]])


def test_code_that_is_built_in_is_not_kept_alive():
    class Hard:
        def __call__(self, x, lam):
            return 0.0, 1.0

    hard = Hard()
    spec = hpx.MainNetSpec((2, 3, 1), DOMAIN, hard=hard)
    net = hpx.HyperPINN(spec, NU, (4,), key=jax.random.key(0))(0.01)
    hpx.values(net, POINTS), net(POINTS[0]), hpx.on_grid(net, [0.5], [0.0])
    here = weakref.ref(hard)
    del hard, spec, net
    gc.collect()
    assert here() is None


def test_points_outside_are_refused_among_many():
    net = SPEC.init(key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"points.*x = 2"):
        hpx.values(net, POINTS.at[1, 1].set(2.0))
    with pytest.raises(ValueError, match=r"points.*t = nan"):
        hpx.values(net, POINTS.at[0, 0].set(jnp.nan))


def test_float64_without_the_switch():
    net = hpx.cast(SPEC.init(key=jax.random.key(0)), jnp.float64)
    assert net(POINTS[0]).dtype == hpx.values(net, POINTS).dtype == jnp.float64
    assert jax.vmap(net)(POINTS).dtype == jnp.float64
