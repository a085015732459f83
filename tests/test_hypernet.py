import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from hyperpinn_eqx import Box, HyperPINN, MainNetSpec

MAIN = MainNetSpec((2, 8, 6, 1), Box(t=(0, 1), x=(-1, 1)))
NU = Box(nu=(1e-3, 1e-1, "log"))
GLOROT = np.array([2 / (out + size) for out, size in MAIN.shapes])


def generated(lam, init, key):
    model = HyperPINN(MAIN, NU, (16, 16), init=init, key=key)
    return model.generate(jnp.array([lam]))


def test_weights_are_theta0_plus_head_times_features(x64, getkey):
    # The paper's eq. 2 in NumPy, with the scaling of λ by hand.
    model = HyperPINN(MAIN, NU, (5, 4, 3), key=getkey())
    z = np.array([np.log10(0.02) + 2])
    for w, b in zip(model.weights, model.biases, strict=True):
        z = np.tanh(np.asarray(w) @ z + np.asarray(b))
    theta = np.asarray(model.theta0) + np.asarray(model.head) @ z
    np.testing.assert_allclose(model(0.02).flatten(), theta, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("init", ["split", "hyperfan"])
def test_generated_weights_have_glorots_second_moment_at_any_lambda(init, getkey):
    @jax.jit
    def moments(keys, lams):
        def one(key, lam):
            weights = generated(lam, init, key).weights
            return jnp.stack([jnp.mean(w**2) for w in weights])

        return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(keys, lams).mean(0)

    found = moments(jr.split(getkey(), 1000), jnp.array([-1.0, 0.0, 1.0]))
    ratio = np.asarray(found) / GLOROT
    np.testing.assert_allclose(ratio, 1, atol=0.15)


def test_plain_weights_start_far_too_small(getkey):
    @jax.jit
    @jax.vmap
    def moments(key):
        weights = generated(0.5, "plain", key).weights
        return jnp.stack([jnp.mean(w**2) for w in weights])

    ratio = moments(jr.split(getkey(), 300)).mean(0) / GLOROT
    assert np.all(ratio < 0.6)


@pytest.mark.parametrize("init", ["split", "hyperfan"])
def test_first_activations_start_as_in_an_ordinary_network(init, getkey):
    points = jr.uniform(getkey(), (64, 2), minval=-1)

    @jax.jit
    @jax.vmap
    def energies(key):
        def energy(net):
            return jnp.mean(jnp.tanh(net.weights[0] @ points.T) ** 2)

        return energy(generated(-0.5, init, key)), energy(MAIN.init(key=key))

    ours, ordinary = energies(jr.split(getkey(), 1000))
    np.testing.assert_allclose(jnp.mean(ours), jnp.mean(ordinary), rtol=0.1)


def test_generated_biases_start_at_zero(getkey):
    for init in ("split", "hyperfan"):
        assert not any(jnp.any(b) for b in generated(0.3, init, getkey()).biases)


def test_split_networks_of_different_lambda_start_alike(getkey):
    @jax.jit
    @jax.vmap
    def cosine(key):
        a, b = (generated(lam, "split", key).flatten() for lam in (-1.0, 1.0))
        return a @ b / jnp.sqrt((a @ a) * (b @ b))

    cosines = cosine(jr.split(getkey(), 500))
    assert jnp.mean(cosines) > 0.6
    assert jnp.quantile(cosines, 0.02) > 0.3


@pytest.mark.parametrize("init", ["split", "hyperfan", "plain"])
def test_no_weight_vanishes_at_the_centre_of_the_range(init, getkey):
    model = HyperPINN(MAIN, NU, (16, 16), init=init, key=getkey())
    for weight in model(0.01).weights:
        assert jnp.all(weight != 0)


def test_an_unknown_init_is_an_error(getkey, unchecked):
    with pytest.raises(ValueError, match="init = 'xavier', expected 'split'"):
        HyperPINN(MAIN, NU, (4,), init="xavier", key=getkey())


@pytest.mark.parametrize("hidden", [(), (0,), (4, -1)], ids=str)
def test_bad_widths_are_errors(hidden, getkey):
    with pytest.raises(ValueError, match="hidden = .*expected one or more widths"):
        HyperPINN(MAIN, NU, hidden, key=getkey())


def test_the_key_decides_the_weights(getkey):
    first, again, other = (
        HyperPINN(MAIN, NU, (4,), key=jr.key(seed))(0.01).flatten()
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert jnp.all(first[:5] != other[:5])
