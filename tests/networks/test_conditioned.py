import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import Box, ConcatPINN, MainNetSpec, count_parameters

MAIN = MainNetSpec((2, 5, 4, 1), Box(t=(0, 1), x=(-1, 1)))
RING = MainNetSpec((2, 5, 4, 1), Box(t=(0, 1), x=(-1, 1, "periodic")))
LAM = Box(a=(2, 4), phi=(0, 2, "periodic"), nu=(1e-3, 1e-1, "log"))
POINTS = ((0.3, -0.5, 2.5, 0.3, 0.01), (1.0, 0.9, 4.0, 1.7, 0.05))
STATE, LORENZ = Box(x=(-5, 5), y=(-5, 5), z=(2, 22)), hpx.Lorenz().parameters


def seen(a, phi, nu):
    """What a layer sees of λ, with both scalings by hand."""
    angle = np.pi * (phi - 1)
    return np.array([a - 3, np.cos(angle), np.log10(nu) + 2, np.sin(angle)])


@pytest.mark.parametrize("main", [MAIN, RING], ids=["plain", "periodic"])
def test_folding_lambda_into_the_bias_is_concatenating_it(main, x64, getkey):
    model = eqx.filter_jit(ConcatPINN)(main, LAM, augmented=True, key=getkey())
    model = moved(model)
    first = np.concatenate([model.net.weights[0], model.lam_weight], axis=1)
    weights = [first, *map(np.asarray, model.net.weights[1:])]
    for t, x, *lam in POINTS:
        at = [x] if main is MAIN else [np.cos(np.pi * x), np.sin(np.pi * x)]
        h = np.array([2 * t - 1, *at, *seen(*lam)])
        for w, b in zip(weights[:-1], model.net.biases[:-1], strict=True):
            h = np.tanh(w @ h + np.asarray(b))
        expected = weights[-1] @ h + np.asarray(model.net.biases[-1])
        net = model(jnp.array(lam))
        assert net.spec == main and net.flatten().size == main.size
        np.testing.assert_allclose(net(jnp.array([t, x])), expected[0], rtol=1e-13)
    # What is constant are the three parameters, not what the network sees of them.
    assert [leaf.shape for leaf in model.lam_slope] == [(3, 4), (3,)]


def test_the_first_layer_is_glorot_over_points_and_lambda(getkey):
    main = MainNetSpec((2, 400, 1), MAIN.inputs)
    model = eqx.filter_jit(ConcatPINN)(main, LAM, key=getkey())
    # The columns of the points are a Glorot network's own.
    np.testing.assert_allclose(np.var(model.net.weights[0]), 2 / 402, rtol=0.2)
    np.testing.assert_allclose(np.var(model.lam_weight), 2 / 406, rtol=0.2)


def test_the_outputs_for_the_parameters_are_zero_and_do_nothing():
    main = MainNetSpec((3, 16, 3), STATE)
    plain, augmented = (
        eqx.filter_jit(ConcatPINN)(main, LORENZ, augmented=more, key=jr.key(1))
        for more in (False, True)
    )
    assert plain.lam_slope is None and "augmented" not in plain.config()
    assert augmented.config()["augmented"]
    assert not any(np.any(leaf) for leaf in augmented.lam_slope)
    # As the paper's: (x, λ) in and (dx/dt, dλ/dt) out.
    assert count_parameters(augmented) == (6 * 16 + 16) + (16 * 6 + 6)
    lam, state = jnp.array([10.0, 2.0, 14.0]), jnp.array([1.0, -2.0, 10.0])
    assert eqx.tree_equal(plain(lam), augmented(lam))

    @jax.jit
    @jax.grad
    def gradient(model):
        return jnp.sum(model(lam)(state) ** 2)

    slopes = gradient(augmented)
    assert not any(np.any(leaf) for leaf in slopes.lam_slope)
    assert np.any(slopes.lam_weight) and np.all(slopes.net.weights[0])


WAYS = {
    "FiLM": hpx.FiLM,
    "LowRank": functools.partial(hpx.LowRank, rank=3),
    "LastLayer": hpx.LastLayer,
}


@pytest.fixture(params=WAYS)
def way(request):
    return request.param


def build(way):
    return _build(way, jax.config.jax_enable_x64)


@functools.cache
def _build(way, x64):
    make = eqx.filter_jit(lambda key: WAYS[way](MAIN, LAM, (6, 3), key=key))
    return make(jr.key(0))


# As after a training: no bias is zero, and no modulation is small.
def moved(model):
    leaves, tree = jax.tree.flatten(model)
    rng = np.random.default_rng(1)
    leaves = [a + jnp.asarray(rng.normal(0, 0.5, a.shape), a.dtype) for a in leaves]
    return jax.tree.unflatten(tree, leaves)


def numbers(model, seen):
    """m(λ) in NumPy."""
    z, trunk = seen, model.modulator.trunk
    for w, b in zip(trunk.weights, trunk.biases, strict=True):
        z = np.tanh(np.asarray(w) @ z + np.asarray(b))
    return np.asarray(model.modulator.head) @ z


def film(model, m, h):
    """Layer by layer with the modulation where it acts, nothing folded."""
    *hidden, last = zip(model.net.weights, model.net.biases, strict=True)
    scale, shift = [m[:5], m[5:9]], [m[9:14], m[14:]]
    for (w, b), g, s in zip(hidden, scale, shift, strict=True):
        h = np.tanh((1 + g) * (w @ h + b) + s)
    return last[0] @ h + last[1]


def low_rank(model, m, h):
    layers = zip(model.net.weights, model.net.biases, strict=True)
    for i, (w, b) in enumerate(layers):
        # [W b] + U diag(s) Vᵀ, one direction after the other.
        a = w @ h + b
        for k in range(3):
            a = a + model.left[i][:, k] * m[3 * i + k] * (
                model.right[i][:-1, k] @ h + model.right[i][-1, k]
            )
        h = np.tanh(a)
    return a


def last_layer(model, m, h):
    *hidden, last = zip(model.net.weights, model.net.biases, strict=True)
    for w, b in hidden:
        h = np.tanh(w @ h + b)
    # A weight starts by Glorot's √(2 / (1 + 4)).
    m = np.sqrt(2 / 5) * m
    return (last[0][0] + m[:4]) @ h + last[1] + m[4]


BY_HAND = {"FiLM": film, "LowRank": low_rank, "LastLayer": last_layer}


def test_folding_is_modulating_every_layer(x64, way):
    model = moved(build(way))
    plain = jax.tree.map(np.asarray, model)
    fast = jax.jit(lambda lam, tx: model(lam)(tx))
    for t, x, *lam in POINTS:
        m = numbers(plain, seen(*lam))
        expected = BY_HAND[way](plain, m, np.array([2 * t - 1, x]))
        found = fast(jnp.array(lam), jnp.array([t, x]))
        np.testing.assert_allclose(found, expected[0], rtol=1e-12)


def test_lambda_moves_the_weights_that_it_should_and_no_others(x64, way):
    model = moved(build(way))

    def theta(scaled):
        return model.generate(scaled).flatten()

    slopes = jax.jit(jax.jacfwd(theta))(jnp.array([0.3, 0.2, -0.4]))
    # 5·2 + 5 and 4·5 + 4 weights and biases in the hidden layers, 4 + 1 in the last.
    hidden, last = np.arange(44) < 39, np.arange(44) >= 39
    expected = {"FiLM": hidden, "LowRank": hidden | last, "LastLayer": last}[way]
    np.testing.assert_array_equal(slopes != 0, np.tile(expected[:, None], 3))


def test_every_lambda_starts_near_one_ordinary_network(way):
    model = build(way)
    lams = hpx.log_uniform(LAM, (50,), key=jr.key(2))
    theta = np.asarray(jax.jit(jax.vmap(lambda lam: model(lam).flatten()))(lams))
    common = np.asarray(model.net.flatten())
    away = np.linalg.norm(theta - common, axis=1) / np.linalg.norm(common)
    # And yet λ is seen from the first step on.
    assert 0.01 < np.median(away) and np.max(away) < 0.4


def test_every_number_is_trained_from_the_start(x64, way):
    @jax.jit
    @jax.grad
    def slope(model):
        return model(jnp.array([2.5, 0.3, 0.02]))(jnp.array([0.3, -0.5])) ** 2

    assert all(np.all(leaf) for leaf in jax.tree.leaves(slope(build(way))))


def test_film_needs_something_to_scale():
    with pytest.raises(ValueError, match="main"):
        hpx.FiLM(MainNetSpec((2, 1), MAIN.inputs), LAM, (3,), key=jr.key(0))
