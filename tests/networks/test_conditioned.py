import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import Box, ConcatPINN, MainNetSpec, count_parameters
from hyperpinn_eqx.problems import Lorenz

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


RING = Box(t=(0, 1), x=(-1, 1, "periodic"))
ANGLE = Box(a=(2, 4), phi=(-2, 2, "periodic"))


def test_periodic_coordinates_and_parameters_are_two_inputs_each(x64, getkey, tmp_path):
    spec = MainNetSpec((2, 5, 4, 1), RING)
    model = eqx.filter_jit(ConcatPINN)(spec, ANGLE, augmented=True, key=getkey())
    first = np.concatenate([model.net.weights[0], model.lam_weight], axis=1)
    weights = [first, *map(np.asarray, model.net.weights[1:])]
    for t, x, a, phi in ((0.3, -0.5, 2.5, 1.2), (1.0, 0.9, 4.0, -7.0)):
        h = np.array([2 * t - 1, np.cos(np.pi * x), np.sin(np.pi * x), a - 3])
        h = np.append(h, [np.cos(np.pi * phi / 2), np.sin(np.pi * phi / 2)])
        for w, b in zip(weights[:-1], model.net.biases[:-1], strict=True):
            h = np.tanh(w @ h + np.asarray(b))
        expected = weights[-1] @ h + np.asarray(model.net.biases[-1])
        net = model(jnp.array([a, phi]))
        np.testing.assert_allclose(net(jnp.array([t, x])), expected[0], rtol=1e-13)
    # What is constant are the two parameters, not what the network sees of them.
    assert [leaf.shape for leaf in model.lam_slope] == [(2, 4), (2,)]
    hpx.save(tmp_path / "wave.eqx", model)
    assert eqx.tree_equal(hpx.load(tmp_path / "wave.eqx"), model)


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


STATE = Box(x=(-5, 5), y=(-5, 5), z=(2, 22))


@pytest.mark.parametrize(("width", "count"), [(16, 214), (256, 3334)])
def test_augmented_baselines_are_as_large_as_the_papers(width, count, getkey):
    spec = MainNetSpec((3, width, 3), STATE)
    model = eqx.filter_jit(ConcatPINN)(
        spec, Lorenz().parameters, augmented=True, key=getkey()
    )
    assert count_parameters(model) == count
    # (x, λ) in and (dx/dt, dλ/dt) out.
    assert count == (6 * width + width) + (width * 6 + 6)


def test_the_outputs_for_the_parameters_are_zero_and_do_nothing():
    spec = MainNetSpec((3, 4, 3), STATE)
    build = eqx.filter_jit(ConcatPINN)
    plain, augmented = (
        build(spec, Lorenz().parameters, augmented=more, key=jax.random.key(1))
        for more in (False, True)
    )
    assert plain.lam_slope is None
    for leaf in augmented.lam_slope:
        assert leaf.dtype == jnp.float32 and not np.any(leaf)
    lam, state = jnp.array([10.0, 2.0, 14.0]), jnp.array([1.0, -2.0, 10.0])
    assert eqx.tree_equal(plain(lam), augmented(lam))

    @jax.jit
    @jax.grad
    def gradient(model):
        return jnp.sum(model(lam)(state) ** 2)

    slopes = gradient(augmented)
    assert not any(np.any(leaf) for leaf in slopes.lam_slope)
    assert np.any(slopes.lam_weight) and np.all(slopes.net.weights[0])


def test_only_an_augmented_baseline_says_so(getkey):
    spec = MainNetSpec((3, 4, 3), STATE)
    for augmented in (False, True):
        model = eqx.filter_jit(ConcatPINN)(
            spec, Lorenz().parameters, augmented=augmented, key=getkey()
        )
        assert model.config().get("augmented", False) is augmented
