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


def test_weights_are_theta0_plus_head_times_features(x64, getkey):
    # The paper's eq. 2 in NumPy, with the scaling of λ by hand.
    lam = Box(a=(1, 3), phi=(-2, 2, "periodic"), nu=(1e-3, 1e-1, "log"))
    model = build(MAIN, lam, (5, 4), key=getkey())
    for a, phi, nu in ((1.5, 0.3, 0.02), (3.0, -2.0, 0.1)):
        angle = np.pi * phi / 2
        z = np.array([a - 2, np.cos(angle), np.log10(nu) + 2, np.sin(angle)])
        for w, b in zip(model.trunk.weights, model.trunk.biases, strict=True):
            z = np.tanh(np.asarray(w) @ z + np.asarray(b))
        theta = np.asarray(model.theta0) + np.asarray(model.head) @ z
        # A periodic parameter has no outside: warnings would be errors here.
        for turns in (0, 2):
            found = model(jnp.array([a, phi + 4 * turns, nu])).flatten()
            np.testing.assert_allclose(found, theta, rtol=0, atol=1e-13)
    assert hpx.count_parameters(model) == (5 * 5) + (4 * 6) + MAIN.size * 5


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
    # None vanishes at the centre of the range.
    assert all(np.all(weight != 0) for weight, _ in layers(sample(init)[:, 1]))


def test_plain_weights_start_far_too_small():
    assert np.all(second_moments("plain") < 0.6)
    model = build(MAIN, NU, (4, 60), init="plain", key=jr.key(0))
    np.testing.assert_allclose(np.var(model.head), 2 / (MAIN.size + 60), rtol=0.05)
    assert not np.any(model.theta0)


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


def test_the_key_decides_the_weights():
    first, again, other = (build(MAIN, NU, (4, 3), key=jr.key(s)) for s in (1, 1, 2))
    assert eqx.tree_equal(first, again)
    assert first.config()["hidden"] == first.trunk.hidden == [4, 3]
    for part in (lambda m: m.trunk.weights[0], lambda m: m.trunk.biases[1]):
        assert np.all(np.asarray(part(first)) != np.asarray(part(other)))
