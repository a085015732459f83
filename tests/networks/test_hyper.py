import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import Box, HyperPINN, MainNetSpec

MAIN = MainNetSpec((2, 8, 6, 1), Box(t=(0, 1), x=(-1, 1)))
NU = Box(nu=(1e-3, 1e-1, "log"))
SCALED = np.array([-1.0, 0.0, 1.0])  # both ends and the centre of the range of λ
GLOROT = pytest.mark.parametrize("init", ["split", "common", "hyperfan"])
EVERY = pytest.mark.parametrize("init", ["split", "common", "hyperfan", "plain"])
build = eqx.filter_jit(HyperPINN)


@functools.cache
def sample(init):
    """θ(λ) of 1000 hypernetworks at the scaled λ above, shape (1000, 3, P)."""

    def thetas(key):
        model = HyperPINN(MAIN, NU, (16, 16), init=init, key=key)
        lams = jnp.asarray(SCALED, dtype=jnp.float32)[:, None]
        return jax.vmap(lambda lam: model.generate(lam).flatten())(lams)

    return np.asarray(jax.jit(jax.vmap(thetas))(jr.split(jr.key(0), 1000)))


def layers(theta):
    """Weights and biases along the last axis of θ, cut by hand."""
    at = 0
    for out, size in MAIN.shapes:
        weight = theta[..., at : at + out * size]
        at += out * size
        yield weight.reshape(*theta.shape[:-1], out, size), theta[..., at : at + out]
        at += out


def by_hand(model, z):
    """The paper's eq. 2 in NumPy, from what the trunk sees of λ."""
    for w, b in zip(model.trunk.weights, model.trunk.biases, strict=True):
        z = np.tanh(np.asarray(w) @ z + np.asarray(b))
    return np.asarray(model.theta0) + np.asarray(model.head) @ z


def test_weights_are_theta0_plus_head_times_features(x64, hyper):
    # With the scaling of κ in [0.01, 1] by hand.
    theta = by_hand(hyper, np.array([np.log10(0.02) + 1]))
    np.testing.assert_allclose(hyper(0.02).flatten(), theta, rtol=1e-13, atol=1e-15)


RING = MainNetSpec((2, 8, 1), Box(t=(0, 1), x=(-1, 1, "periodic")))
WAVE = Box(a=(1, 3), phi=(-2, 2, "periodic"))


def test_the_trunk_sees_a_periodic_parameter_by_cosine_and_sine(x64, getkey, tmp_path):
    wave = build(RING, WAVE, (5, 4), key=getkey())
    for a, phi in ((1.5, 0.3), (3.0, -2.0)):
        angle = np.pi * phi / 2
        theta = by_hand(wave, np.array([a - 2, np.cos(angle), np.sin(angle)]))
        # A periodic parameter has no outside: warnings would be errors here.
        for turns in (0, 2):
            found = wave(jnp.array([a, phi + 4 * turns])).flatten()
            np.testing.assert_allclose(found, theta, rtol=0, atol=1e-13)
    assert hpx.count_parameters(wave) == (5 * 4) + (4 * 6) + (8 * 4 + 9) * 5
    hpx.save(tmp_path / "wave.eqx", wave)
    found = hpx.load(tmp_path / "wave.eqx")
    assert eqx.tree_equal(found, wave) and found.config() == wave.config()


def second_moments(init):
    """Of every layer's weights at every λ, in units of Glorot's, shape (3, 3)."""
    return np.array(
        [
            np.mean(weight**2, axis=(0, 2, 3)) * sum(weight.shape[-2:]) / 2
            for weight, _ in layers(sample(init))
        ]
    )


@GLOROT
def test_at_any_lambda_the_main_network_starts_as_an_ordinary_one(init):
    np.testing.assert_allclose(second_moments(init), np.ones((3, 3)), rtol=0, atol=0.15)
    assert not any(np.any(bias) for _, bias in layers(sample(init)))
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (2, 64))
    ordinary = rng.normal(0, np.sqrt(2 / 10), (1000, 8, 2))
    expected = np.mean(np.tanh(ordinary @ points) ** 2)
    weight, _ = next(layers(sample(init)))
    found = np.mean(np.tanh(weight @ points) ** 2, axis=(0, 2, 3))
    np.testing.assert_allclose(found, np.full(3, expected), rtol=0.12)


def test_plain_weights_start_far_too_small():
    assert np.all(second_moments("plain") < 0.6)


@EVERY
def test_no_weight_vanishes_at_the_centre_of_the_range(init):
    assert all(np.all(weight != 0) for weight, _ in layers(sample(init)[:, 1]))


def test_split_networks_of_different_lambda_start_alike():
    low, _, high = np.moveaxis(sample("split"), 1, 0)
    length = np.linalg.norm(low, axis=1) * np.linalg.norm(high, axis=1)
    cosines = np.sum(low * high, axis=1) / length
    assert np.mean(cosines) > 0.6 and np.quantile(cosines, 0.02) > 0.3


def test_a_twentieth_of_common_networks_depends_on_lambda():
    # z is odd and nearly linear: at the ends of the range |z|² is three times its mean.
    low, _, high = np.moveaxis(sample("common"), 1, 0)
    theta0, turned = (high + low) / 2, (high - low) / 2
    share = np.mean(turned**2) / np.mean(theta0**2)
    np.testing.assert_allclose(share, 3 * 0.05 / 0.95, rtol=0.2)


def test_common_features_start_linear_in_lambda():
    def bend(init):
        """Of z, its second difference relative to the first."""
        low, middle, high = np.moveaxis(sample(init), 1, 0)
        bent = np.median(np.abs(high - 2 * middle + low))
        return bent / np.median(np.abs(high - low))

    assert bend("common") < 0.2 * bend("split")


@EVERY
def test_the_trunk_starts_as_an_ordinary_network_does(init):
    """Moments of a wide one, in units of the usual; common ones are half, and odd."""
    model = build(MAIN, NU, (300, 200), init=init, key=jr.key(0))
    weight, bias = model.trunk.weights[1], model.trunk.biases[1]
    found = [np.std(weight) * 250**0.5, np.std(bias) * 900**0.5]
    expected = [0.5, 0] if init == "common" else [1, 1]
    np.testing.assert_allclose(found, expected, rtol=0.1)
    assert np.max(bias) <= 300**-0.5


@EVERY
def test_the_head_is_scaled_by_the_features_mean_square_over_the_range(init):
    main = MainNetSpec((2, 40, 1), MAIN.inputs)
    model = build(main, NU, (4, 60), init=init, key=jr.key(0))
    if init == "plain":
        found = np.var(model.head)
        np.testing.assert_allclose(found, 2 / (main.size + 60), rtol=0.05)
        assert not np.any(model.theta0)
        return
    first, biases, last = np.split(model.head, [80, 120])
    lams = jnp.linspace(-1, 1, 101)[:, None]
    power = np.mean(np.sum(np.asarray(jax.vmap(model.trunk)(lams)) ** 2, axis=1))
    share = {"split": 0.5, "common": 0.05, "hyperfan": 1}[init]
    # Glorot's variances are 2/42 and 2/41.
    found = np.array([np.var(first) * 21, np.var(last[:-1]) * 20.5]) * power
    np.testing.assert_allclose(found, [share, share], rtol=0.15)
    assert not np.any(biases) and not np.any(last[-1])


def test_one_hidden_layer_is_enough():
    one = eqx.filter_eval_shape(HyperPINN, MAIN, NU, (3,), key=jr.key(0))
    assert one.config()["hidden"] == one.trunk.hidden == [3]
    assert one.head.shape == (MAIN.size, 3)


def test_the_key_decides_the_weights():
    first, again, other = (build(MAIN, NU, (4, 3), key=jr.key(s)) for s in (1, 1, 2))
    assert eqx.tree_equal(first, again)
    for part in (lambda m: m.trunk.weights[0], lambda m: m.trunk.biases[1]):
        assert np.all(np.asarray(part(first)) != np.asarray(part(other)))
