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


def seen(a, phi, nu):
    """What a layer sees of λ, with both scalings by hand."""
    angle = np.pi * (phi - 1)
    return np.array([a - 3, np.cos(angle), np.log10(nu) + 2, np.sin(angle)])


def tanh_layers(layers, h):
    for w, b in zip(layers.weights, layers.biases, strict=True):
        h = np.tanh(w @ h + b)
    return h


def moved(model):
    """As after a training: no bias is zero, and no modulation is small."""
    leaves, tree = jax.tree.flatten(model)
    rng = np.random.default_rng(1)
    leaves = [a + jnp.asarray(rng.normal(0, 0.5, a.shape), a.dtype) for a in leaves]
    return jax.tree.unflatten(tree, leaves)


@pytest.mark.parametrize("main", [MAIN, RING], ids=["plain", "periodic"])
def test_folding_lambda_into_the_bias_is_concatenating_it(main, x64, getkey):
    model = moved(ConcatPINN(main, LAM, augmented=True, key=getkey()))
    *hidden, last = zip(model.net.weights, model.net.biases, strict=True)
    hidden[0] = np.concatenate([hidden[0][0], model.lam_weight], axis=1), hidden[0][1]
    for t, x, *lam in POINTS:
        at = [x] if main is MAIN else [np.cos(np.pi * x), np.sin(np.pi * x)]
        h = np.array([2 * t - 1, *at, *seen(*lam)])
        for w, b in hidden:
            h = np.tanh(w @ h + b)
        net, expected = model(jnp.array(lam)), last[0] @ h + last[1]
        assert net.spec == main and net.flatten().size == main.size
        np.testing.assert_allclose(net(jnp.array([t, x])), expected[0], rtol=1e-13)
    # What is constant are the three parameters, not what the network sees of them.
    assert [leaf.shape for leaf in model.lam_slope] == [(3, 4), (3,)]


def test_the_first_layer_is_glorot_over_points_and_lambda(getkey):
    model = ConcatPINN(MainNetSpec((2, 400, 1), MAIN.inputs), LAM, key=getkey())
    np.testing.assert_allclose(np.var(model.lam_weight), 2 / 406, rtol=0.2)


def test_the_outputs_for_the_parameters_are_zero_and_do_nothing():
    main = MainNetSpec((3, 16, 3), Box(x=(-5, 5), y=(-5, 5), z=(2, 22)))
    plain, augmented = (
        ConcatPINN(main, hpx.Lorenz().parameters, augmented=more, key=jr.key(1))
        for more in (False, True)
    )
    assert plain.lam_slope is None and "augmented" not in plain.config()
    assert not any(np.any(leaf) for leaf in augmented.lam_slope)
    # As the paper's: (x, λ) in and (dx/dt, dλ/dt) out.
    assert count_parameters(augmented) == (6 * 16 + 16) + (16 * 6 + 6)
    lam, state = jnp.array([10.0, 2.0, 14.0]), jnp.array([1.0, -2.0, 10.0])
    assert eqx.tree_equal(plain(lam), augmented(lam))
    slopes = jax.jit(jax.grad(lambda m: jnp.sum(m(lam)(state) ** 2)))(augmented)
    assert not any(np.any(leaf) for leaf in slopes.lam_slope)
    assert np.any(slopes.lam_weight) and np.all(slopes.net.weights[0])


def film(model, m, h):
    """Layer by layer with the modulation where it acts, nothing folded."""
    *hidden, last = zip(model.net.weights, model.net.biases, strict=True)
    scale, shift = [m[:5], m[5:9]], [m[9:14], m[14:]]
    for (w, b), g, s in zip(hidden, scale, shift, strict=True):
        h = np.tanh((1 + g) * (w @ h + b) + s)
    return last[0] @ h + last[1]


def low_rank(model, m, h):
    for i, (w, b) in enumerate(zip(model.net.weights, model.net.biases, strict=True)):
        # [W b] + U diag(s) Vᵀ, one direction after the other.
        a = w @ h + b
        for u, v, s in zip(model.left[i].T, model.right[i].T, m[3 * i :], strict=False):
            a = a + u * s * (v[:-1] @ h + v[-1])
        h = np.tanh(a)
    return a


def last_layer(model, m, h):
    *hidden, last = zip(model.net.weights, model.net.biases, strict=True)
    for w, b in hidden:
        h = np.tanh(w @ h + b)
    # A weight starts by Glorot's √(2 / (1 + 4)).
    m = np.sqrt(2 / 5) * m
    return (last[0][0] + m[:4]) @ h + last[1] + m[4]


# How each is made, what it does, and which weights it moves: 5·2 + 5 and 4·5 + 4 in the
# hidden layers, 4 + 1 in the last.
WAYS = {
    "FiLM": (hpx.FiLM, film, range(39)),
    "LowRank": (functools.partial(hpx.LowRank, rank=3), low_rank, range(44)),
    "LastLayer": (hpx.LastLayer, last_layer, range(39, 44)),
}


@pytest.fixture(params=WAYS)
def way(request):
    return request.param


@functools.cache
def build(way):
    """In float64; moved by λ only a little."""
    with jax.enable_x64(True):
        return WAYS[way][0](MAIN, LAM, (6, 3), key=jr.key(0))


def test_folding_is_modulating_every_layer(x64, way):
    model = moved(build(way))
    plain = jax.tree.map(np.asarray, model)
    fast = jax.jit(lambda lam, tx: model(lam)(tx))
    for t, x, *lam in POINTS:
        m = plain.modulator.head @ tanh_layers(plain.modulator.trunk, seen(*lam))
        expected = WAYS[way][1](plain, m, np.array([2 * t - 1, x]))
        found = fast(jnp.array(lam), jnp.array([t, x]))
        np.testing.assert_allclose(found, expected[0], rtol=1e-12)


def test_lambda_moves_the_weights_that_it_should_and_no_others(x64, way):
    model = moved(build(way))
    theta = jax.jit(jax.jacfwd(lambda scaled: model.generate(scaled).flatten()))
    moves = np.isin(np.arange(44), WAYS[way][2])
    slopes = theta(jnp.array([0.3, 0.2, -0.4]))
    np.testing.assert_array_equal(slopes != 0, np.tile(moves[:, None], 3))


def test_every_lambda_starts_near_one_ordinary_network(x64, way):
    model = build(way)
    lams = hpx.log_uniform(LAM, (50,), key=jr.key(2))
    theta = np.asarray(jax.jit(jax.vmap(lambda lam: model(lam).flatten()))(lams))
    common = np.asarray(model.net.flatten())
    away = np.linalg.norm(theta - common, axis=1) / np.linalg.norm(common)
    # And yet λ is seen, and every number trained, from the first step on.
    assert 0.01 < np.median(away) and np.max(away) < 0.4
    slopes = jax.jit(jax.grad(lambda m: m(lams[0])(jnp.array([0.3, -0.5]))))(model)
    assert all(np.all(leaf) for leaf in jax.tree.leaves(slopes))


def test_film_needs_something_to_scale():
    with pytest.raises(ValueError, match="main"):
        hpx.FiLM(MainNetSpec((2, 1), MAIN.inputs), LAM, (3,), key=jr.key(0))
