import copy
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import Box, Jet, MainNetSpec

# Compiled once, where eager mode compiles every product.
jets = eqx.filter_jit(hpx.jets)

DOMAIN, LOG = Box(t=(0, 2), x=(-3, 1)), Box(t=(0.01, 10, "log"), x=(-3, 1))
EVEN, EVEN_LOG = Box(t=(0, 2), x=(-3, 3)), Box(t=(0.01, 10, "log"), x=(-3, 3))
RING, EVEN_RING = (Box(t=(t, 2), x=(-3, 1, "periodic")) for t in (0, -2))
TORUS = Box(t=(0, 2, "periodic"), x=(-3, 1, "periodic"))
RANGES, LOG_RANGES = Box(p=(0, 4), q=(-1, 7)), Box(p=(0.1, 4, "log"), q=(-1, 7))
SPECS = {
    "one output": MainNetSpec((2, 6, 5, 1), DOMAIN),
    "scaled outputs": MainNetSpec((2, 6, 2), DOMAIN, RANGES),
    "wide": MainNetSpec((2, 20, 17, 2), DOMAIN),
    "odd in x": MainNetSpec((2, 6, 5, 1), EVEN, odd="x"),
    "odd in t, periodic in x": MainNetSpec((2, 6, 5, 2), EVEN_RING, odd="t"),
    "periodic in x": MainNetSpec((2, 6, 5, 1), RING),
    "periodic, log outputs": MainNetSpec((2, 6, 2), TORUS, LOG_RANGES),
    "log in t": MainNetSpec((2, 6, 5, 1), LOG),
    "log in t, odd in x": MainNetSpec((2, 6, 1), EVEN_LOG, odd="x"),
    "log outputs": MainNetSpec((2, 6, 2), DOMAIN, LOG_RANGES),
    "no hidden layer": MainNetSpec((2, 2), DOMAIN, RANGES),
    "no hidden layer, log": MainNetSpec((2, 2), LOG, LOG_RANGES),
    "no hidden layer, odd": MainNetSpec((2, 1), EVEN, odd="x"),
    "fixed t": MainNetSpec((2, 6, 5, 1), Box(t=(1, 1), x=(-3, 1))),
}
UP_TO_SECOND = ("t", "x", "tt", "tx", "xt", "xx")
HIGHER = ("xxx", "ttx", "txtx")


def at_random(spec):
    return spec.unflatten(jnp.asarray(np.random.default_rng(0).normal(size=spec.size)))


@pytest.fixture(params=SPECS)
def net(request, x64):
    return at_random(SPECS[request.param])


@pytest.fixture
def points(x64):
    points = np.random.default_rng(1).uniform([0.1, -3], [2, 1], (7, 2))
    assert np.any(points[:, 1] > 0)
    return jnp.asarray(points)


def agree(found, expected, rtol):
    """Every array of a tree, relative to the largest number in it."""
    for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        atol = rtol * float(np.max(np.abs(other), initial=0))
        np.testing.assert_allclose(one, other, rtol=rtol, atol=atol)


def test_the_fast_way_agrees_with_nested_forward_mode(net, points):
    words = UP_TO_SECOND + HIGHER
    agree(jets(net, points, words), jets(net.__call__, points, words), 1e-12)


@pytest.mark.parametrize(
    "name", ["one output", "periodic, log outputs", "no hidden layer, log"]
)
def test_the_ways_agree_at_the_fifth_order(name, points):
    net, words = at_random(SPECS[name]), ("xxxxx", "xtxtx")
    agree(jets(net, points, words), jets(net.__call__, points, words), 1e-11)


def test_a_derivative_is_the_slope_of_the_one_before(net, points):
    words, h = ("x", "xx", "xxx", "xxxx", "xxt", "xxtt"), 1e-4
    at = {
        axis: [jets(net, points.at[:, i].add(d), words) for d in (-h, h)]
        for i, axis in enumerate("tx")
    }
    u = jets(net, points, words)
    for word in words:
        low, high = (
            getattr(v, word[:-1]) if word[1:] else v.value for v in at[word[-1]]
        )
        expected = (high - low) / (2 * h)
        atol = 1e-6 * float(np.max(np.abs(expected))) + 1e-9
        np.testing.assert_allclose(getattr(u, word), expected, rtol=1e-6, atol=atol)


def test_one_unit_has_the_derivatives_of_the_hyperbolic_tangent(points):
    # u = tanh(a t + b x), to the third order of KdV and the fifth of Kawahara.
    net = MainNetSpec((2, 1, 1), Box(t=(-1, 1), x=(-1, 1)), bounded=False)
    a, b = 0.7, -1.3
    s = np.tanh(np.asarray(points) @ [a, b])
    q = 1 - s**2
    powers = {
        **{1: q, 2: -2 * s * q, 3: q * (6 * s**2 - 2), 4: 8 * s * q * (2 - 3 * s**2)},
        5: 8 * q * (15 * s**4 - 15 * s**2 + 2),
    }
    words = ("x", "tx", "xxx", "tt", "xxxx", "txtx", "xxxxx", "xttxx")
    u = jets(net.unflatten(jnp.array([a, b, 0, 1, 0])), points, words)
    expected = [powers[len(w)] * a ** w.count("t") * b ** w.count("x") for w in words]
    agree([u.value, *(getattr(u, w) for w in words)], [s, *expected], 1e-13)


def test_polynomials_are_differentiated_exactly(x64):
    # u = t³ x⁴, whose derivatives are known.
    def power(x, n, k):
        return np.prod([n - i for i in range(k)], initial=1.0) * x ** (n - k)

    (t, x), every = (0.5, -2.0), [itertools.product("tx", repeat=n) for n in (1, 2, 3)]
    words = ["".join(letters) for letters in itertools.chain(*every)]
    u = jets(lambda p: p[0] ** 3 * p[1] ** 4, jnp.array([[t, x]]), words)
    for word in words:
        expected = power(t, 3, word.count("t")) * power(x, 4, word.count("x"))
        np.testing.assert_allclose(getattr(u, word), [expected], rtol=1e-14)
    u = jets(lambda p: p[0] * p[1] * p[2], jnp.array([[2.0, 3, 5]]), ("xz",), "xyz")
    np.testing.assert_allclose(u.xz, [3])


def squares(f, points, words=("t", "xx", "xxx", "xxtx")):
    leaves = jax.tree.leaves(hpx.jets(f, points, words))
    return sum((jnp.sum(leaf**2) for leaf in leaves), start=jnp.zeros(()))


# From jets of a function of weights and a point to what is compared.
WAYS = {
    "gradient": lambda f, theta, points: jax.grad(
        lambda theta: squares(f(theta), points)
    )(theta),
    "forward": lambda f, theta, points: jax.jacfwd(
        lambda theta: jax.tree.leaves(hpx.jets(f(theta), points, ("t", "xxx")))
    )(theta),
    "forward over reverse": lambda f, theta, points: jax.jvp(
        jax.grad(lambda theta: squares(f(theta), points, ("xx",))), (theta,), (theta,)
    )[1],
    "by points": lambda f, theta, points: jax.grad(
        lambda points: squares(f(theta), points)
    )(points),
    "many networks": lambda f, theta, points: jax.vmap(
        lambda size: squares(f(size * theta), points)
    )(jnp.linspace(0.5, 1, 3)),
    "each point alone": lambda f, theta, points: jax.vmap(
        lambda p: squares(f(theta), p[None])
    )(points),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["one output", "wide", "log in t, odd in x"])
def test_what_jax_makes_of_jets_is_the_same_for_both_ways(way, name, points):
    spec = SPECS[name]
    theta = at_random(spec).flatten()
    found, expected = (
        jax.jit(lambda theta, points, f=f: WAYS[way](f, theta, points))(theta, points)
        for f in (spec.unflatten, lambda theta: spec.unflatten(theta).__call__)
    )
    agree(found, expected, 1e-10)


@pytest.mark.parametrize("n", [0, 1, 7, 300])
@pytest.mark.parametrize("words", [(), ("tx",), ("xx", "t"), ("x", "x"), ("txx",)])
def test_the_ways_agree_for_any_choice_of_words_and_points(n, words, x64):
    points = hpx.uniform(DOMAIN, (n,), key=jax.random.key(0))
    net = at_random(SPECS["scaled outputs"])
    fast, generic = (jets(f, points, words) for f in (net, net.__call__))
    assert set(fast.derivatives) == set(words) and fast.value.shape == (n, 2)
    agree(fast, generic, 1e-12)


@pytest.mark.parametrize("odd", [None, "z"])
def test_both_ways_agree_on_several_axes(odd, x64, getkey):
    domain = Box(y=(0, 3, "periodic"), t=(0, 2), x=(-3, 1, "periodic"), z=(-2, 2))
    net = at_random(MainNetSpec((4, 6, 5, 1), domain, odd=odd))
    pairs = itertools.product("ytxz", repeat=2)
    words = (*"ytxz", *map("".join, pairs), "ytx", "zzx")
    points = hpx.uniform(domain, (5,), key=getkey())
    fast, generic = (jets(f, points, words, "ytxz") for f in (net, net.__call__))
    agree(fast, generic, 1e-13)
    # A network of all axes: nothing is zero by accident.
    assert all(np.all(leaf != 0) for leaf in jax.tree.leaves(fast))


@pytest.mark.parametrize("name", ["one output", "periodic in x", "log in t"])
def test_the_fast_way_takes_one_pass_for_all_derivatives(name, points):
    net, words = at_random(SPECS[name]), UP_TO_SECOND + HIGHER
    passes = [
        str(jax.make_jaxpr(lambda p: hpx.jets(f, p, words))(points)).count("tanh")  # noqa: B023
        for f, words in ((net, ()), (net, words), (net.__call__, ("t", "x")))
    ]
    assert 0 < passes[0] == passes[1] < passes[2]


def test_an_odd_network_has_its_slope_at_the_middle_too(x64):
    net = at_random(SPECS["odd in x"])
    middle, near = jnp.array([[0.5, 0.0]]), jnp.array([[0.5, 1e-9]])
    for f in (net, net.__call__):
        agree(*(jets(f, p, UP_TO_SECOND) for p in (middle, near)), 1e-6)


@pytest.mark.parametrize("name", ["one output", "periodic, log outputs", "log in t"])
def test_single_precision_is_as_exact_as_it_can_be(name, points):
    words, narrow = UP_TO_SECOND + HIGHER, hpx.cast(at_random(SPECS[name]), "float32")
    found = jets(narrow, points, words)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float32")}
    same = points.astype("float32").astype(float)
    agree(found, jets(hpx.cast(narrow, "float64"), same, words), 3e-4)


@pytest.mark.parametrize("words", [UP_TO_SECOND, ("t", "txx")], ids=str)
def test_a_network_computes_in_its_own_precision(
    words, points, computes_in_its_own_precision
):
    def values(net):
        return lambda p: jnp.stack(jax.tree.leaves(hpx.jets(net, p, words)))

    net = hpx.cast(at_random(SPECS["scaled outputs"]), "float32")
    computes_in_its_own_precision(values, net, points.astype("float32"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_other_function_gets_the_points_as_they_are(dtype, points):
    seen = []
    u = hpx.jets(
        lambda p: seen.append(p.dtype) or p[0] * p[1], points.astype(dtype), ("x",)
    )
    assert {*seen, u.x.dtype} == {jnp.dtype(dtype)}


def test_points_may_be_lists_or_whole_numbers(unchecked):
    net = at_random(SPECS["one output"])
    expected = jets(net, jnp.array([[0.0, -2.0], [1.0, 0.0]]))
    rows = [[0, -2], [1, 0]]
    for points in (rows, np.array(rows), jnp.array(rows), np.array(rows, float)):
        agree(jets(net, points, ["t", "x", "xx"], ["t", "x"]), expected, 1e-6)


@pytest.mark.parametrize(
    ("shape", "words", "coordinates", "said"),
    [
        ((4, 2), ("t", "y"), "tx", "y"),
        ((4, 2), ("t", ""), "tx", "derivatives"),
        ((4, 2), ("u_x",), "tx", "u_x"),
        ((4, 3), ("t",), "tx", r"points.*4, 3"),
        ((2,), ("t",), "tx", r"points.*2,"),
        ((4, 3), ("t",), "txy", "coordinates"),
        ((4, 2), ("x",), ("x", "x"), "coordinates"),
    ],
)
def test_what_does_not_fit_together_is_an_error(shape, words, coordinates, said):
    with pytest.raises(ValueError, match=said):
        hpx.jets(at_random(SPECS["one output"]), jnp.zeros(shape), words, coordinates)


def test_a_jet_says_what_it_lacks_and_can_be_copied():
    u = copy.deepcopy(Jet(jnp.zeros(3), {"t": jnp.ones(3)}))
    np.testing.assert_array_equal(u.t, np.ones(3))
    with pytest.raises(AttributeError, match="xx"):
        _ = u.xx
