import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import Box, MainNetSpec

DOMAIN = Box(t=(0, 2), x=(-3, 1))
SPEC = MainNetSpec((2, 5, 4, 1), DOMAIN)
TWO = MainNetSpec((2, 5, 2), DOMAIN, Box(p=(0, 4), q=(-1, 7)))
FLAT = MainNetSpec((2, 1), DOMAIN, bounded=False)
ODD = MainNetSpec((2, 5, 4, 1), Box(t=(0, 2), x=(-3, 3)), odd="x")
RING = MainNetSpec((2, 5, 4, 1), Box(x=(-3, 1, "periodic"), t=(0, 2)))
LOG = MainNetSpec(
    (2, 4, 2), Box(t=(0.1, 10, "log"), x=(-3, 1)), Box(p=(1, 4, "log"), q=(-1, 7))
)


def at_random(spec):
    return spec.unflatten(jnp.asarray(np.random.default_rng(0).normal(size=spec.size)))


# What the first layer sees of a point, and what becomes of the last one's values.
BY_HAND = [
    (SPEC, lambda t, x: [t - 1, (x + 1) / 2], lambda u: u[0]),
    (FLAT, lambda t, x: [t - 1, (x + 1) / 2], lambda u: u[0]),
    (TWO, lambda t, x: [t - 1, (x + 1) / 2], lambda u: [2 + 2 * u[0], 3 + 4 * u[1]]),
    (ODD, lambda t, x: [t - 1, abs(x) / 1.5 - 1], lambda u: u[0]),
    (
        RING,
        lambda x, t: [np.cos(a := np.pi * (x + 1) / 2), t - 1, np.sin(a)],
        lambda u: u[0],
    ),
    (
        LOG,
        lambda t, x: [np.log10(t), (x + 1) / 2],
        lambda u: [2 * 2 ** u[0], 3 + 4 * u[1]],
    ),
]


@pytest.mark.parametrize(("spec", "seen", "made"), BY_HAND)
def test_it_is_a_tanh_network_over_scaled_coordinates(spec, seen, made, x64):
    net = at_random(spec)
    for point in ([0.3, 0.7], [2.0, 1.0], [0.2, 0.5]):
        h = np.array(seen(*point))
        for i, (w, b) in enumerate(zip(net.weights, net.biases, strict=True)):
            h = np.asarray(w) @ (np.tanh(h) if i else h) + np.asarray(b)
        np.testing.assert_allclose(net(jnp.array(point)), made(h), rtol=1e-13)


def test_an_odd_network_is_odd(x64):
    net = at_random(ODD)
    for t, x in ((0.3, 2.0), (2.0, 3.0), (0.7, 0.1)):
        assert net(jnp.array([t, -x])) == -net(jnp.array([t, x])) != 0


def test_a_periodic_network_is_periodic_with_its_derivatives(x64):
    net = at_random(RING)

    @jax.jit
    def everything(point):
        third = jax.jacfwd(jax.hessian(net))
        return net(point), jax.grad(net)(point), jax.hessian(net)(point), third(point)

    # The wall x = -3 is x = 1; and further round.
    for point, turns in (([-3.0, 0.4], 1), ([0.2, 1.9], -25)):
        there = everything(jnp.array(point))
        back = everything(jnp.array(point) + jnp.array([4.0 * turns, 0.0]))
        for a, b in zip(there, back, strict=True):
            size = np.max(np.abs(a))
            np.testing.assert_allclose(b, a, rtol=0, atol=1e-12 * size)


@pytest.mark.parametrize("spec", [SPEC, TWO, FLAT, ODD, RING, LOG])
def test_flatten_and_config_have_inverses(spec):
    theta = jnp.asarray(np.random.default_rng(0).normal(size=spec.size))
    net = spec.unflatten(theta)
    np.testing.assert_array_equal(net.flatten(), theta)
    assert hpx.count_parameters(net) == spec.size
    assert MainNetSpec.from_config(json.loads(json.dumps(spec.config()))) == spec
    # Each weight by rows, and then its bias.
    (out, width), *_ = spec.shapes
    np.testing.assert_array_equal(net.weights[0].ravel(), theta[: out * width])
    np.testing.assert_array_equal(net.biases[0], theta[out * width :][:out])


def test_init_is_glorot_normal_with_zero_biases(getkey):
    net = MainNetSpec((2, 300, 200, 1), DOMAIN).init(key=getkey())
    np.testing.assert_allclose(np.var(net.weights[1]), 2 / 500, rtol=0.05)
    assert not any(np.any(b) for b in net.biases)


def test_it_can_be_jitted_vmapped_and_differentiated(x64):
    net = at_random(SPEC)
    points = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (6, 2)))
    one_by_one = np.array([net(p) for p in points])
    np.testing.assert_allclose(jax.jit(jax.vmap(net))(points), one_by_one, rtol=1e-13)
    slope = jax.jit(jax.grad(net))(points[0])
    step = jnp.array([0, 1e-6])
    secant = (net(points[0] + step) - net(points[0] - step)) / 2e-6
    np.testing.assert_allclose(slope[1], secant, rtol=1e-7)
    grads = jax.jit(jax.grad(lambda net: net(points[0])))(net)
    assert all(np.all(leaf != 0) for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("spec", [SPEC, LOG, ODD, RING])
def test_it_computes_in_its_own_precision(spec, computes_in_its_own_precision):
    net = hpx.cast(at_random(spec), "float32")
    computes_in_its_own_precision(lambda net: lambda p: net(p), net, [0.3, 0.7])


@pytest.mark.parametrize("kind", [list, np.array, jnp.array])
def test_points_sizes_and_weights_may_be_any_sequence(kind, unchecked):
    net = at_random(SPEC)
    assert net(kind([1, -2])) == net(jnp.array([1.0, -2.0]))
    assert MainNetSpec(kind([2, 5, 4, 1]), DOMAIN) == SPEC
    net = hpx.MainNet([kind([[3, 4]])], [kind([5])], FLAT)
    assert eqx.tree_equal(net, FLAT.unflatten([3, 4, 5]))


@pytest.mark.parametrize(
    ("spec", "point", "said"),
    [
        (SPEC, [2.1, 0], "t = 2.1"),
        (SPEC, [-0.1, 0], "t = -0.1"),
        (SPEC, [1, np.nan], "x = nan"),
        (RING, [1e3, 2.5], "t = 2.5"),
        (SPEC, 0.0, "point"),
        (SPEC, [0.0], "point"),
        (SPEC, [[0.0, 0.0]], "point"),
    ],
)
def test_a_point_outside_the_domain_is_an_error(spec, point, said, unchecked):
    with pytest.raises(ValueError, match=said):
        at_random(spec)(jnp.array(point))
    assert np.isfinite(at_random(RING)(jnp.array([1e3, 2.0])))
    assert np.isfinite(at_random(FLAT)(jnp.array([100.0, -100.0])))


ONE = np.ones((1, 2))
ROUND = Box(t=(0, 2), x=(-3, 3, "periodic"))


@pytest.mark.parametrize(
    ("said", "make"),
    [
        ("sizes", lambda: MainNetSpec((2,), DOMAIN)),
        ("inputs", lambda: MainNetSpec((3, 1), DOMAIN)),
        ("outputs", lambda: MainNetSpec((2, 1), DOMAIN, DOMAIN)),
        ("odd", lambda: MainNetSpec((2, 1), DOMAIN, odd="x")),
        ("odd", lambda: MainNetSpec((2, 1), ODD.inputs, odd="y")),
        ("odd", lambda: MainNetSpec((2, 1), ODD.inputs, Box(u=(-1, 2)), odd="x")),
        ("odd", lambda: MainNetSpec((2, 1), ROUND, odd="x")),
        ("weights", lambda: hpx.MainNet([ONE, ONE], [[1.0]], FLAT)),
        (r"biases\[0\]", lambda: hpx.MainNet([ONE], [[1.0, 2.0]], FLAT)),
        ("float32", lambda: hpx.MainNet([ONE], [jnp.ones(1, "float32")], FLAT)),
        ("theta", lambda: SPEC.unflatten(jnp.zeros(3))),
        ("inputs", lambda: MainNetSpec.from_config(SPEC.config() | {"inputs": 3})),
        ("depth", lambda: MainNetSpec.from_config(SPEC.config() | {"depth": 3})),
        ("config", lambda: MainNetSpec.from_config({"inputs": DOMAIN.ranges()})),
    ],
)
def test_what_makes_no_network_is_an_error(said, make, x64, unchecked):
    with pytest.raises(ValueError, match=said):
        make()
