import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from hyperpinn_eqx import Box, ConcatPINN, MainNetSpec

DOMAIN = Box(t=(0, 1), x=(-1, 1))
LAM = Box(a=(2, 4), nu=(1e-3, 1e-1, "log"))


def test_folding_lambda_into_the_bias_is_concatenating_it(x64, getkey):
    spec = MainNetSpec((2, 5, 4, 1), DOMAIN)
    model = eqx.filter_jit(ConcatPINN)(spec, LAM, key=getkey())
    # A network of four inputs, with both scalings written by hand.
    first = np.concatenate([model.net.weights[0], model.lam_weight], axis=1)
    weights = [first, *map(np.asarray, model.net.weights[1:])]
    for t, x, a, nu in ((0.3, -0.5, 2.5, 0.01), (1.0, 0.9, 4.0, 0.05)):
        h = np.array([2 * t - 1, x, a - 3, np.log10(nu) + 2])
        for w, b in zip(weights[:-1], model.net.biases[:-1], strict=True):
            h = np.tanh(w @ h + np.asarray(b))
        expected = weights[-1] @ h + np.asarray(model.net.biases[-1])
        net = model(jnp.array([a, nu]))
        np.testing.assert_allclose(net(jnp.array([t, x])), expected[0], rtol=1e-13)


def test_the_called_network_is_as_small_as_one_without_lambda(getkey):
    spec = MainNetSpec((2, 5, 4, 1), DOMAIN)
    net = eqx.filter_jit(ConcatPINN)(spec, LAM, key=getkey())(jnp.array([3, 0.01]))
    assert net.spec == spec
    assert net.flatten().size == spec.size


def test_the_first_layer_is_glorot_over_points_and_lambda(getkey):
    spec = MainNetSpec((2, 400, 1), DOMAIN)
    model = eqx.filter_jit(ConcatPINN)(spec, LAM, key=getkey())
    first = jnp.concatenate([model.net.weights[0], model.lam_weight], axis=1)
    np.testing.assert_allclose(jnp.var(first, axis=0), 2 / 404, rtol=0.3)
    assert jax.tree.leaves(model)[0].dtype == jnp.float32
