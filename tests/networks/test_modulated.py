import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import Box, MainNetSpec, count_parameters

MAIN = MainNetSpec((2, 5, 4, 1), Box(t=(0, 1), x=(-1, 1)))
LAM = Box(a=(2, 4), phi=(0, 2, "periodic"), nu=(1e-3, 1e-1, "log"))
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
    z = seen
    for w, b in zip(model.modulator.weights, model.modulator.biases, strict=True):
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
    for t, x, a, phi, nu in ((0.3, -0.5, 2.5, 0.3, 0.01), (1.0, 0.9, 4.0, 1.7, 0.05)):
        seen = [a - 3, np.cos(np.pi * (phi - 1)), np.log10(nu) + 2]
        m = numbers(plain, np.array([*seen, np.sin(np.pi * (phi - 1))]))
        expected = BY_HAND[way](plain, m, np.array([2 * t - 1, x]))
        found = fast(jnp.array([a, phi, nu]), jnp.array([t, x]))
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


def test_what_is_called_is_a_main_network_as_any_other(way):
    net = eqx.filter_eval_shape(build(way), jnp.array([3.0, 0.5, 0.01]))
    assert isinstance(net, hpx.MainNet)
    assert net.spec == MAIN
    assert sum(leaf.size for leaf in jax.tree.leaves(net)) == MAIN.size == 44


def test_counts(way):
    # A trunk 4-6-3, four numbers for three parameters, and a head of three features.
    trunk = (4 * 6 + 6) + (6 * 3 + 3)
    own = {"FiLM": 2 * 9 * 3, "LastLayer": 5 * 3}
    own["LowRank"] = 9 * 3 + 3 * ((5 + 3) + (4 + 6) + (1 + 5))
    assert count_parameters(build(way)) == 44 + trunk + own[way]


def test_many_lambdas_at_once_are_one_after_the_other(x64, way):
    model = moved(build(way))
    lams = hpx.log_uniform(LAM, (4,), key=jr.key(2))
    weights = jax.jit(jax.vmap(lambda lam: model(lam).flatten()))(lams)
    one = jax.jit(lambda lam: model(lam).flatten())
    for lam, theta in zip(lams, weights, strict=True):
        np.testing.assert_allclose(one(lam), theta, rtol=1e-12, atol=1e-14)


def test_every_lambda_starts_near_one_ordinary_network(way):
    model = build(way)
    assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {jnp.dtype("float32")}
    lams = hpx.log_uniform(LAM, (50,), key=jr.key(2))
    theta = np.asarray(jax.jit(jax.vmap(lambda lam: model(lam).flatten()))(lams))
    common = np.asarray(model.net.flatten())
    away = np.linalg.norm(theta - common, axis=1) / np.linalg.norm(common)
    # And yet λ is seen from the first step on.
    assert 0.01 < np.median(away) and np.max(away) < 0.4


def test_every_number_is_trained_from_the_start(x64, way):
    model = build(way)

    @jax.jit
    @jax.grad
    def slope(model):
        return model(jnp.array([2.5, 0.3, 0.02]))(jnp.array([0.3, -0.5])) ** 2

    assert all(np.all(leaf) for leaf in jax.tree.leaves(slope(model)))


def test_gauss_newton_lowers_the_loss(x64, way):
    # λ = (a, φ, ν) is asked for at every point, which no single network could do.
    lams = hpx.log_uniform(LAM, (4,), key=jr.key(2))
    points = hpx.uniform(MAIN.inputs, (4, 12), key=jr.key(3))
    result = hpx.gauss_newton(
        build(way),
        lambda net, lam, point: net(point) - lam[0] * point[1],
        lambda model, key: (lams, points),
        steps=12,
        rank=12,
        key=jr.key(4),
        progress=False,
    )
    assert result.history["total"][-1] < 0.1 * result.history["total"][0]


@pytest.mark.parametrize("bits", [32, 64])
def test_a_saved_model_comes_back_bit_by_bit(bits, way, tmp_path):
    with jax.enable_x64(bits == 64):
        model = moved(build(way))
        hpx.save(tmp_path / "model.eqx", model)
        found = hpx.load(tmp_path / "model.eqx", like=model)
        assert eqx.tree_equal(found, model)
        assert jax.tree.leaves(found)[0].dtype == jnp.dtype(f"float{bits}")


def test_another_rank_is_another_architecture(tmp_path):
    hpx.save(tmp_path / "model.eqx", build("LowRank"))
    other = eqx.filter_eval_shape(
        lambda: hpx.LowRank(MAIN, LAM, (6, 3), rank=2, key=jr.key(0))
    )
    with pytest.raises(ValueError, match="another architecture: rank = 3, expected 2"):
        hpx.load(tmp_path / "model.eqx", like=other)


def test_film_needs_something_to_scale(unchecked):
    flat = MainNetSpec((2, 1), MAIN.inputs)
    with pytest.raises(ValueError, match="^main = .*, expected one with a hidden"):
        hpx.FiLM(flat, LAM, (3,), key=jr.key(0))


GOOD = {"main": MAIN, "parameters": LAM, "hidden": (4, 3)}
