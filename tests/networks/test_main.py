import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import Box, MainNetSpec, cast, count_parameters

DOMAIN = Box(t=(0, 2), x=(-3, 1))
SPEC = MainNetSpec((2, 5, 4, 1), DOMAIN)
TWO_OUTPUTS = MainNetSpec((2, 5, 2), DOMAIN, Box(p=(0, 4), q=(-1, 7)))


@eqx.filter_jit
def init(spec, key):
    return spec.init(key=key)


def plain(net, point):
    """The same network, written again in NumPy with the scaling by hand."""
    h = np.array([point[0] - 1, (point[1] + 1) / 2])
    for i, (w, b) in enumerate(zip(net.weights, net.biases, strict=True)):
        h = np.asarray(w) @ h + np.asarray(b)
        if i < len(net.weights) - 1:
            h = np.tanh(h)
    if net.spec.outputs is not None:
        h = np.array([2 + 2 * h[0], 3 + 4 * h[1]])
    return h.squeeze()


@pytest.mark.parametrize("spec", [SPEC, TWO_OUTPUTS, MainNetSpec((2, 1), DOMAIN)])
def test_it_is_a_tanh_network_over_scaled_coordinates(spec, x64, getkey):
    theta = jnp.asarray(np.random.default_rng(0).normal(size=spec.size))
    net = spec.unflatten(theta)
    for point in ([0.3, -2.0], [2.0, 1.0], [0.0, 0.5]):
        np.testing.assert_allclose(net(jnp.array(point)), plain(net, point), rtol=1e-14)


def test_unflatten_reads_each_weight_by_rows_and_then_its_bias():
    net = MainNetSpec((2, 3, 1), DOMAIN).unflatten(jnp.arange(13.0))
    np.testing.assert_array_equal(net.weights[0], [[0, 1], [2, 3], [4, 5]])
    np.testing.assert_array_equal(net.biases[0], [6, 7, 8])
    np.testing.assert_array_equal(net.weights[1], [[9, 10, 11]])
    np.testing.assert_array_equal(net.biases[1], [12])


@pytest.mark.parametrize("spec", [SPEC, TWO_OUTPUTS])
def test_flatten_is_the_inverse_of_unflatten(spec, getkey):
    theta = jnp.asarray(np.random.default_rng(0).normal(size=spec.size))
    np.testing.assert_array_equal(spec.unflatten(theta).flatten(), theta)


def test_one_output_is_a_scalar_and_two_are_a_vector(getkey):
    assert init(SPEC, getkey())(jnp.zeros(2)).shape == ()
    assert init(TWO_OUTPUTS, getkey())(jnp.zeros(2)).shape == (2,)


def test_size_counts_weights_and_biases(getkey):
    assert SPEC.size == 5 * 3 + 4 * 6 + 1 * 5
    assert count_parameters(init(SPEC, getkey())) == SPEC.size


def test_init_is_glorot_normal_with_zero_biases(getkey):
    net = init(MainNetSpec((2, 300, 200, 1), DOMAIN), getkey())
    np.testing.assert_allclose(np.var(net.weights[1]), 2 / 500, rtol=0.05)
    assert not any(np.any(b) for b in net.biases)


def test_config_survives_json():
    for spec in (
        SPEC,
        TWO_OUTPUTS,
        ODD,
        RING,
        MainNetSpec((2, 1), DOMAIN, bounded=False),
    ):
        assert MainNetSpec.from_config(json.loads(json.dumps(spec.config()))) == spec


def test_it_can_be_jitted_vmapped_and_differentiated(x64, getkey):
    net = init(SPEC, getkey())
    points = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (6, 2)))
    one_by_one = np.array([net(p) for p in points])
    np.testing.assert_allclose(jax.jit(jax.vmap(net))(points), one_by_one, rtol=1e-13)
    jitted = jax.jit(lambda net, p: net(p))
    np.testing.assert_allclose(jitted(net, points[0]), one_by_one[0], rtol=1e-13)
    slope = jax.jit(jax.grad(net))(points[0])
    step = jnp.array([0, 1e-6])
    secant = (net(points[0] + step) - net(points[0] - step)) / 2e-6
    np.testing.assert_allclose(slope[1], secant, rtol=1e-7)


ODD = MainNetSpec((2, 5, 4, 1), Box(t=(0, 2), x=(-3, 3)), odd="x")


RING = MainNetSpec(
    (3, 5, 4, 1), Box(x=(-3, 1, "periodic"), t=(0, 2), y=(0, 3, "periodic"))
)


def test_a_periodic_network_sees_cosines_and_sines(x64):
    net = RING.unflatten(jnp.asarray(np.random.default_rng(0).normal(size=RING.size)))
    for x, t, y in ((0.3, 1.2, 2.0), (-3, 2.0, 0.5)):
        a, b = np.pi * (x + 1) / 2, np.pi * (y - 1.5) / 1.5
        h = np.array([np.cos(a), t - 1, np.cos(b), np.sin(a), np.sin(b)])
        for w, c in zip(net.weights[:-1], net.biases[:-1], strict=True):
            h = np.tanh(np.asarray(w) @ h + np.asarray(c))
        expected = np.asarray(net.weights[-1]) @ h + np.asarray(net.biases[-1])
        np.testing.assert_allclose(net(jnp.array([x, t, y])), expected[0], rtol=1e-13)


def test_a_periodic_input_costs_one_column_more(getkey):
    assert RING.sizes == (3, 5, 4, 1)
    assert RING.shapes == [(5, 5), (4, 5), (1, 4)]
    assert RING.size == 5 * 6 + 4 * 6 + 1 * 5
    net = init(RING, getkey())
    assert count_parameters(net) == net.flatten().size == RING.size


def test_a_periodic_network_is_periodic_with_its_derivatives(x64):
    net = RING.unflatten(jnp.asarray(np.random.default_rng(1).normal(size=RING.size)))

    @jax.jit
    def everything(point):
        third = jax.jacfwd(jax.hessian(net))
        return net(point), jax.grad(net)(point), jax.hessian(net)(point), third(point)

    # The wall x = -3 is x = 1; further round, and in y too.
    for point in ([-3.0, 0.4, 1.1], [0.2, 1.9, 0.0]):
        there = everything(jnp.array(point))
        for x, y in ((4, 0), (0, 3), (-8, 6)):
            back = everything(jnp.array(point) + jnp.array([x, 0.0, y]))
            for a, b in zip(there, back, strict=True):
                size = np.max(np.abs(a))
                np.testing.assert_allclose(b, a, rtol=0, atol=1e-12 * size)


def test_a_bounded_network_goes_round_a_periodic_input_and_no_other(getkey):
    net = init(RING, getkey())
    net(jnp.array([1e3, 1.0, -1e3]))
    with pytest.raises(ValueError, match=r"t = 2.5, expected a value in \[0, 2\]"):
        net(jnp.array([0.0, 2.5, 0.0]))


TURN = MainNetSpec((2, 5, 1), Box(t=(0, 2), x=(-3, 1, "periodic")))
LOGARITHMIC = MainNetSpec(
    (2, 4, 2), Box(t=(0.1, 2, "log"), x=(-3, 1)), Box(p=(1, 4, "log"), q=(-1, 7))
)


def test_an_odd_network_is_odd_and_sees_the_size_of_x(x64):
    theta = jnp.asarray(np.random.default_rng(0).normal(size=ODD.size))
    half = MainNetSpec(ODD.sizes, Box(t=(0, 2), x=(0, 3))).unflatten(theta)
    net = ODD.unflatten(theta)
    for t, x in ((0.3, 2.0), (2.0, 3.0), (0.7, 0.1)):
        there, back = jnp.array([t, x]), jnp.array([t, -x])
        assert net(back) == -net(there)
        np.testing.assert_allclose(net(there), half(there), rtol=1e-13)


@pytest.mark.parametrize(
    "options",
    [
        {"inputs": DOMAIN, "odd": "x"},
        {"inputs": ODD.inputs, "odd": "y"},
        {"inputs": ODD.inputs, "outputs": Box(u=(-1, 2)), "odd": "x"},
        {"inputs": Box(t=(0, 2), x=(-3, 3, "periodic")), "odd": "x"},
    ],
    ids=["range", "name", "outputs", "periodic"],
)
def test_a_network_that_cannot_be_odd_is_an_error(options):
    with pytest.raises(ValueError, match="odd = '[xy]', expected (an input|one of)"):
        MainNetSpec((2, 1), **options)


def test_its_weights_can_be_differentiated(getkey):
    net = init(SPEC, getkey())
    grads = jax.jit(jax.grad(lambda net: net(jnp.ones(2)) ** 2))(net)
    assert count_parameters(grads) == SPEC.size
    assert all(np.any(leaf) for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("shape", [(), (1,), (3,), (4, 2)], ids=str)
def test_a_point_of_wrong_shape_is_an_error(shape, getkey, unchecked):
    with pytest.raises(ValueError) as error:
        init(SPEC, getkey())(jnp.zeros(shape))
    for part in (f"point has shape {shape}", "(2,)", "t, x", "jax.vmap"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ([2.1, 0], r"t = 2.1, expected a value in \[0, 2\]"),
        ([-0.1, 0], "t = -0.1"),
        ([1, 1.5], r"x = 1.5, expected a value in \[-3, 1\]"),
        ([1, np.nan], "x = nan"),
    ],
)
def test_a_point_outside_the_domain_is_an_error(point, said, getkey):
    with pytest.raises(ValueError, match=said):
        init(SPEC, getkey())(jnp.array(point))


def test_an_unbounded_network_goes_anywhere(getkey):
    net = init(MainNetSpec((2, 1), DOMAIN, bounded=False), getkey())
    assert jnp.isfinite(net(jnp.array([100.0, -100.0])))


def test_numpy_points_are_points(getkey):
    net = init(SPEC, getkey())
    point = np.array([0.5, 0.5], dtype=np.float32)
    assert net(point) == net(jnp.asarray(point))


@pytest.mark.parametrize("kind", [list, np.array, jnp.array])
def test_points_and_sizes_may_be_whole_numbers_in_any_sequence(kind, getkey, unchecked):
    net = init(SPEC, getkey())
    assert net(kind([1, -2])) == net(jnp.array([1.0, -2.0]))
    assert MainNetSpec(kind([2, 5, 4, 1]), DOMAIN) == SPEC


def test_weights_may_be_lists(unchecked):
    spec = MainNetSpec((2, 1), DOMAIN)
    net = hpx.MainNet([[[3, 4]]], [np.array([5])], spec)
    assert eqx.tree_equal(net, spec.unflatten([3, 4, 5]))
    assert net.flatten().dtype == jnp.float32


@pytest.mark.parametrize(
    "spec", [SPEC, LOGARITHMIC, ODD, TURN], ids=["plain", "log", "odd", "periodic"]
)
@pytest.mark.parametrize(
    ("weights", "given"), [("float32", "float64"), ("float64", "float32")]
)
def test_it_computes_in_its_own_precision(weights, given, spec, x64, getkey):
    net = cast(init(spec, getkey()), weights)
    assert net.dtype == weights
    point = jnp.array([0.3, 0.7], given)

    def total(point):
        return jnp.sum(net(point) ** 2)

    value, slope = jax.jit(jax.value_and_grad(total))(point)
    expected, same = jax.jit(jax.value_and_grad(total))(point.astype(weights))
    assert (net(point).dtype, value.dtype, slope.dtype) == (weights, weights, given)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(slope.astype(float), same.astype(float), rtol=1e-4)


def test_weights_of_two_precisions_are_an_error(x64):
    weights, biases = [jnp.ones((1, 2), jnp.float32)], [jnp.ones(1, jnp.float64)]
    with pytest.raises(
        ValueError,
        match=r"weights and biases are \['float32', 'float64'\], expected one",
    ):
        hpx.MainNet(weights, biases, MainNetSpec((2, 1), DOMAIN))


def test_weights_must_fit_the_spec(unchecked):
    one, spec = np.ones((1, 2)), MainNetSpec((2, 1), DOMAIN)
    with pytest.raises(ValueError, match="weights has 2 entries, expected 1"):
        hpx.MainNet([one, one], [[1.0]], spec)
    with pytest.raises(
        ValueError, match=r"biases\[0\] has shape \(2,\), expected \(1,\)"
    ):
        hpx.MainNet([one], [[1.0, 2.0]], spec)


def test_junk_for_a_network(throw_junk_at, getkey):
    net = init(SPEC, getkey())
    throw_junk_at(hpx.MainNet, weights=net.weights, biases=net.biases, spec=SPEC)
    for spec in (SPEC, MainNetSpec((2, 3, 1), DOMAIN, bounded=False)):
        throw_junk_at(init(spec, getkey()), point=np.array([0.5, -2.0]), examples=25)


@pytest.mark.parametrize(
    "change",
    [{"inputs": 3}, {"inputs": {"t": [0, 1, "log", 3]}}, {"depth": 3}, {"outputs": {}}],
    ids=str,
)
def test_the_config_of_something_else_is_an_error(change):
    with pytest.raises(ValueError, match="expected"):
        MainNetSpec.from_config(SPEC.config() | change)
    config = SPEC.config()
    del config["sizes"]
    with pytest.raises(ValueError, match="config = .*, expected that of a spec"):
        MainNetSpec.from_config(config)


def test_ranges_that_do_not_fit_the_sizes_are_errors():
    with pytest.raises(ValueError, match="inputs = .*expected 3"):
        MainNetSpec((3, 1), DOMAIN)
    with pytest.raises(ValueError, match="outputs = .*expected 1"):
        MainNetSpec((2, 1), DOMAIN, Box(p=(0, 1), q=(0, 1)))


def test_unflatten_of_a_wrong_length_is_an_error():
    with pytest.raises(ValueError, match=rf"theta has shape \(3,\).*\({SPEC.size},\)"):
        SPEC.unflatten(jnp.zeros(3))
