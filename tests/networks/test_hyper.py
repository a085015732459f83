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


def second_moments(init):
    """Of every layer's weights at every λ, in units of Glorot's, shape (3, 3)."""
    return np.array(
        [
            np.mean(weight**2, axis=(0, 2, 3)) * sum(weight.shape[-2:]) / 2
            for weight, _ in layers(sample(init))
        ]
    )


def test_weights_are_theta0_plus_head_times_features(x64, hyper):
    # The paper's eq. 2 in NumPy, with the scaling of κ in [0.01, 1] by hand.
    z = np.array([np.log10(0.02) + 1])
    for w, b in zip(hyper.weights, hyper.biases, strict=True):
        z = np.tanh(np.asarray(w) @ z + np.asarray(b))
    theta = np.asarray(hyper.theta0) + np.asarray(hyper.head) @ z
    np.testing.assert_allclose(hyper(0.02).flatten(), theta, rtol=1e-13, atol=1e-15)


RING = MainNetSpec((2, 8, 1), Box(t=(0, 1), x=(-1, 1, "periodic")))
WAVE = Box(a=(1, 3), phi=(-2, 2, "periodic"))


@pytest.fixture
def wave(x64, getkey):
    """A family with a periodic coordinate and a periodic parameter."""
    return eqx.filter_jit(HyperPINN)(RING, WAVE, (5, 4), key=getkey())


def test_the_trunk_sees_a_periodic_parameter_by_cosine_and_sine(wave):
    for a, phi in ((1.5, 0.3), (3.0, -2.0)):
        z = np.array([a - 2, np.cos(np.pi * phi / 2), np.sin(np.pi * phi / 2)])
        for w, b in zip(wave.weights, wave.biases, strict=True):
            z = np.tanh(np.asarray(w) @ z + np.asarray(b))
        theta = np.asarray(wave.theta0) + np.asarray(wave.head) @ z
        found = wave(jnp.array([a, phi])).flatten()
        np.testing.assert_allclose(found, theta, rtol=1e-13, atol=1e-15)
    assert hpx.count_parameters(wave) == (5 * 4) + (4 * 6) + RING.size * 5
    assert RING.size == 8 * 4 + 9


def test_a_periodic_parameter_has_no_outside(wave):
    # Warnings would be errors here.
    there, back = (wave(jnp.array([1.5, phi])).flatten() for phi in (0.3, 8.3))
    np.testing.assert_allclose(back, there, rtol=0, atol=1e-13)
    assert np.max(np.abs(there - wave(jnp.array([1.5, 0.4])).flatten())) > 1e-3


def test_a_periodic_family_survives_a_file(wave, tmp_path):
    hpx.save(tmp_path / "wave.eqx", wave)
    found = hpx.load(tmp_path / "wave.eqx")
    assert eqx.tree_equal(found, wave) and found.config() == wave.config()


@pytest.mark.parametrize("init", ["split", "common", "hyperfan"])
def test_weights_start_with_glorots_second_moment_at_any_lambda(init):
    np.testing.assert_allclose(second_moments(init), np.ones((3, 3)), rtol=0, atol=0.15)


def test_plain_weights_start_far_too_small():
    assert np.all(second_moments("plain") < 0.6)


@pytest.mark.parametrize("init", ["split", "common", "hyperfan"])
def test_first_activations_start_as_in_an_ordinary_network(init):
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (2, 64))
    ordinary = rng.normal(0, np.sqrt(2 / 10), (1000, 8, 2))
    expected = np.mean(np.tanh(ordinary @ points) ** 2)
    weight, _ = next(layers(sample(init)))
    found = np.mean(np.tanh(weight @ points) ** 2, axis=(0, 2, 3))
    np.testing.assert_allclose(found, np.full(3, expected), rtol=0.12)


@pytest.mark.parametrize("init", ["split", "common", "hyperfan"])
def test_generated_biases_start_at_zero(init):
    for _, bias in layers(sample(init)):
        assert not np.any(bias)


def cosines(init):
    """Of the angles between the networks at both ends of the range of λ."""
    low, _, high = np.moveaxis(sample(init), 1, 0)
    length = np.linalg.norm(low, axis=1) * np.linalg.norm(high, axis=1)
    return np.sum(low * high, axis=1) / length


def test_split_networks_of_different_lambda_start_alike():
    assert np.mean(cosines("split")) > 0.6
    assert np.quantile(cosines("split"), 0.02) > 0.3


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
        return np.median(np.abs(high - 2 * middle + low)) / np.median(
            np.abs(high - low)
        )

    assert bend("common") < 0.2 * bend("split")


@pytest.mark.parametrize("init", ["split", "common", "hyperfan", "plain"])
def test_no_weight_vanishes_at_the_centre_of_the_range(init):
    for weight, _ in layers(sample(init)[:, 1]):
        assert np.all(weight != 0)


def trunk_of(init):
    """The moments of a wide trunk's weights and biases, in units of the usual ones."""
    build = eqx.filter_jit(HyperPINN)
    model = build(MAIN, NU, (300, 200), init=init, key=jr.key(0))
    (_, weight), (_, bias) = model.trunk
    return np.array([np.std(weight) * 250**0.5, np.std(bias) * 900**0.5, bias.max()])


@pytest.mark.parametrize("init", ["split", "hyperfan", "plain"])
def test_the_trunk_starts_as_an_ordinary_network_does(init):
    weight, bias, largest = trunk_of(init)
    np.testing.assert_allclose([weight, bias], [1, 1], rtol=0.1)
    assert largest <= 300**-0.5


def test_a_common_trunk_starts_with_half_the_weights_and_no_biases():
    weight, bias, _ = trunk_of("common")
    np.testing.assert_allclose([weight, bias], [0.5, 0], rtol=0.02, atol=1e-12)


@pytest.mark.parametrize("init", ["split", "common", "hyperfan", "plain"])
def test_the_head_is_scaled_by_the_features_mean_square_over_the_range(init):
    main = MainNetSpec((2, 40, 1), MAIN.inputs)
    build = eqx.filter_jit(HyperPINN)
    model = build(main, NU, (4, 60), init=init, key=jr.key(0))
    size = {"weight": 40 * 2, "bias": 40}
    first, biases, last = np.split(model.head, [size["weight"], sum(size.values())])
    if init == "plain":
        found = np.var(model.head)
        np.testing.assert_allclose(found, 2 / (main.size + 60), rtol=0.05)
        assert not np.any(model.theta0)
        return
    lams = jnp.linspace(-1, 1, 101)[:, None]
    power = np.mean(np.sum(np.asarray(jax.vmap(model.features)(lams)) ** 2, axis=1))
    share = {"split": 0.5, "common": 0.05, "hyperfan": 1}[init]
    # Glorot's variances are 2/42 and 2/41.
    found = np.array([np.var(first) * 21, np.var(last[:-1]) * 20.5]) * power
    np.testing.assert_allclose(found, [share, share], rtol=0.15)
    assert not np.any(biases) and not np.any(last[-1])


def test_one_hidden_layer_is_enough(hyper):
    one = eqx.filter_eval_shape(HyperPINN, MAIN, NU, (3,), key=jr.key(0))
    assert one.config()["hidden"] == [3]
    assert one.head.shape == (MAIN.size, 3)


def test_the_trunk_is_all_but_the_head(hyper):
    head = {"head": hyper.head, "theta0": hyper.theta0}
    weights, biases = hyper.trunk
    assert weights is hyper.weights and biases is hyper.biases
    assert len(jax.tree.leaves((hyper.trunk, head))) == len(jax.tree.leaves(hyper))


def test_the_key_decides_the_weights(hyper):
    first, again, other = (
        eqx.filter_jit(HyperPINN)(
            hyper.main, hyper.parameters, (4, 3), key=jr.key(seed)
        )
        for seed in (1, 1, 2)
    )
    assert eqx.tree_equal(first, again)
    assert np.all(np.asarray(first.weights[0]) != np.asarray(other.weights[0]))
