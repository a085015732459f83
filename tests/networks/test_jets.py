import copy
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import Box, Jet, MainNetSpec

jets = eqx.filter_jit(
    hpx.jets
)  # compiles once, where eager mode compiles every product

DOMAIN = Box(t=(0, 2), x=(-3, 1))
SPECS = {
    "one output": MainNetSpec((2, 6, 5, 1), DOMAIN),
    "two outputs": MainNetSpec((2, 6, 5, 2), DOMAIN),
    "scaled outputs": MainNetSpec((2, 6, 2), DOMAIN, Box(p=(0, 4), q=(-1, 7))),
    "odd in x": MainNetSpec((2, 6, 5, 1), Box(t=(0, 2), x=(-3, 3)), odd="x"),
    "two outputs odd in t": MainNetSpec((2, 6, 2), Box(t=(-2, 2), x=(-3, 1)), odd="t"),
    "no hidden layer": MainNetSpec((2, 1), DOMAIN, Box(p=(0, 4))),
    "periodic in x": MainNetSpec((2, 6, 5, 1), Box(t=(0, 2), x=(-3, 1, "periodic"))),
    "periodic": MainNetSpec(
        (2, 6, 2),
        Box(t=(0, 2, "periodic"), x=(-3, 1, "periodic")),
        Box(p=(0, 4), q=(-1, 7)),
    ),
    "odd in t periodic in x": MainNetSpec(
        (2, 6, 5, 1), Box(t=(-2, 2), x=(-3, 1, "periodic")), odd="t"
    ),
    "periodic without hidden layer": MainNetSpec(
        (2, 1), Box(t=(0, 2), x=(-3, 1, "periodic"))
    ),
    "log in t": MainNetSpec((2, 6, 5, 1), Box(t=(0.01, 10, "log"), x=(-3, 1))),
    "log outputs": MainNetSpec((2, 6, 2), DOMAIN, Box(p=(0.1, 4, "log"), q=(-1, 7))),
    "fixed t": MainNetSpec((2, 6, 5, 1), Box(t=(1, 1), x=(-3, 1))),
}
UP_TO_SECOND = ("t", "x", "tt", "tx", "xt", "xx")
HIGHER = ("xxx", "ttx", "xxxx", "txtx")


def nested(f, word):
    """The derivative by reverse mode, one letter after another."""
    for letter in word:
        f = (lambda g, axis: lambda p: jax.jacrev(g)(p)[..., axis])(
            f, "tx".index(letter)
        )
    return f


@eqx.filter_jit
def init(spec, key):
    return spec.init(key=key)


@pytest.fixture(params=SPECS, ids=lambda name: name.replace(" ", "-"))
def net(request, x64):
    spec = SPECS[request.param]
    theta = np.random.default_rng(0).normal(size=spec.size)
    return eqx.filter_jit(spec.unflatten)(jnp.asarray(theta))


@pytest.fixture
def points(x64):
    points = np.random.default_rng(1).uniform([0.1, -3], [2, 1], (7, 2))
    assert np.any(points[:, 1] > 0)
    return jnp.asarray(points)


def test_the_fast_way_agrees_with_nested_reverse_mode(net, points):
    u = jets(net, points, UP_TO_SECOND)
    words = ("", *UP_TO_SECOND)
    slow = jax.jit(jax.vmap(lambda p: {w: nested(net, w)(p) for w in words}))
    for word, expected in slow(points).items():
        found = getattr(u, word) if word else u.value
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def agree(found, expected, rtol):
    """Every array of a jet, relative to the largest number in it."""
    for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        atol = rtol * float(np.max(np.abs(other), initial=0))
        np.testing.assert_allclose(one, other, rtol=rtol, atol=atol)


def test_the_fast_way_agrees_with_nested_forward_mode_at_any_order(net, points):
    words = UP_TO_SECOND + HIGHER
    agree(jets(net, points, words), jets(net.__call__, points, words), 1e-13)


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


def test_the_hyperbolic_tangent_itself(x64):
    spec = MainNetSpec((1, 1, 1), Box(x=(-1, 1)))
    points = jnp.linspace(-1, 1, 9)[:, None]
    words = ("x", "xx", "xxx", "xxxx")
    u = jets(spec.unflatten(jnp.array([1.0, 0, 1, 0])), points, words, "x")
    s = np.tanh(points[:, 0])
    q = 1 - s**2
    expected = {
        **{"x": q, "xx": -2 * s * q},
        **{"xxx": q * (6 * s**2 - 2), "xxxx": 8 * s * q * (2 - 3 * s**2)},
    }
    agree(u, Jet(jnp.asarray(s), jax.tree.map(jnp.asarray, expected)), 1e-14)


def test_single_precision_is_as_exact_as_it_can_be(points):
    words = UP_TO_SECOND + HIGHER
    wide = init(SPECS["one output"], jax.random.key(0))
    narrow = hpx.cast(wide, "float32")
    found = jets(narrow, points, words)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float32")}
    same = hpx.cast(narrow, "float64")
    agree(found, jets(same, points.astype("float32").astype(float), words), 1e-4)


def test_many_networks_at_once_are_one_after_the_other(points, x64):
    spec, words = SPECS["odd in x"], ("t", "xx", "xxx")
    thetas = np.random.default_rng(0).normal(size=(3, spec.size))

    def one(theta):
        return hpx.jets(spec.unflatten(theta), points, words)

    found = jax.jit(jax.vmap(one))(jnp.asarray(thetas))
    for i, theta in enumerate(thetas):
        expected = jax.jit(one)(jnp.asarray(theta))
        agree(jax.tree.map(lambda a, i=i: a[i], found), expected, 1e-13)


@pytest.mark.parametrize("width", [5, 20])
def test_forward_and_reverse_mode_agree(width, points, x64):
    spec = MainNetSpec((2, width, 3, 1), DOMAIN)
    theta = jnp.asarray(np.random.default_rng(0).normal(size=spec.size))

    def values(theta):
        u = hpx.jets(spec.unflatten(theta), points[:3], ("t", "xx", "xxx"))
        return u.value + u.t * u.xx + u.xxx

    # And forward over reverse, and reverse over reverse.
    slope = jax.grad(lambda theta: jnp.sum(values(theta) ** 2))
    for f in (values, slope):
        forward, reverse = (jax.jit(d(f))(theta) for d in (jax.jacfwd, jax.jacrev))
        agree(forward, reverse, 1e-12)


def program(net, points, words):
    """The text of the program that JAX makes of a jet."""
    return str(jax.make_jaxpr(lambda p: hpx.jets(net, p, words))(points))


@pytest.mark.parametrize("odd", [None, "z"])
def test_the_fast_way_agrees_with_the_generic_way_on_several_axes(odd, x64, getkey):
    domain = Box(y=(0, 3, "periodic"), t=(0, 2), x=(-3, 1, "periodic"), z=(-2, 2))
    net = init(MainNetSpec((4, 6, 5, 1), domain, odd=odd), getkey())
    pairs = itertools.product("ytxz", repeat=2)
    words = (*"ytxz", *map("".join, pairs), "ytx", "zzx")
    points = hpx.uniform(domain, (5,), key=getkey())
    fast, generic = (jets(f, points, words, "ytxz") for f in (net, net.__call__))
    agree(fast, generic, 1e-13)
    # A network of all axes: nothing is zero by accident.
    assert all(np.all(leaf != 0) for leaf in jax.tree.leaves(fast))


def test_a_periodic_network_has_periodic_jets(x64, getkey):
    net = init(SPECS["periodic in x"], getkey())
    walls = (jnp.array([[0.3, x], [1.7, x]]) for x in (-3.0, 1.0, 9.0))
    first, *others = (jets(net, points, UP_TO_SECOND) for points in walls)
    for other in others:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-13),
            first,
            other,
        )


@pytest.mark.parametrize("name", ["one output", "periodic in x", "log in t"])
def test_the_fast_way_takes_one_pass_for_all_derivatives(name, points, getkey):
    net = init(SPECS[name], getkey())
    words = UP_TO_SECOND + HIGHER
    passes = [
        program(f, points, words).count("tanh")
        for f, words in ((net, ()), (net, words), (net.__call__, words))
    ]
    assert 0 < passes[0] == passes[1] < passes[2]


def test_an_odd_network_has_its_slope_at_the_middle_too(x64):
    spec = SPECS["odd in x"]
    net = spec.unflatten(jnp.asarray(np.random.default_rng(0).normal(size=spec.size)))
    middle, near = jnp.array([[0.5, 0.0]]), jnp.array([[0.5, 1e-9]])
    for f in (net, lambda p: net(p)):
        found, expected = (jets(f, p, UP_TO_SECOND) for p in (middle, near))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected
        )


@pytest.mark.parametrize("name", ["one output", "periodic in x"])
@pytest.mark.parametrize(
    "words", [(), ("tx",), ("xx", "t"), ("x", "x"), ("txx",)], ids=str
)
def test_any_choice_of_words(words, name, x64, getkey):
    net = init(SPECS[name], getkey())
    points = jnp.array([[0.5, 0.0], [1.5, -2.0]])
    everything = jets(net, points, (*UP_TO_SECOND, "txx"))
    some = jets(net, points, words)
    assert set(some.derivatives) == set(words)
    np.testing.assert_allclose(some.value, everything.value, rtol=1e-14)
    for word in words:
        np.testing.assert_allclose(
            getattr(some, word), getattr(everything, word), rtol=1e-13
        )


@pytest.mark.parametrize(
    "word", ["".join(w) for n in (1, 2, 3) for w in itertools.product("tx", repeat=n)]
)
def test_polynomials_are_differentiated_exactly(word, x64):
    # u = t³ x⁴, whose derivatives are known.
    def falling(n, k):
        return np.prod([n - i for i in range(k)], initial=1.0)

    (t, x), a, b = (0.5, -2.0), word.count("t"), word.count("x")
    expected = falling(3, a) * t ** (3 - a) * falling(4, b) * x ** (4 - b)
    u = jets(lambda p: p[0] ** 3 * p[1] ** 4, jnp.array([[t, x]]), (word,))
    np.testing.assert_allclose(getattr(u, word), [expected], rtol=1e-14)


def test_other_coordinates_than_t_and_x(x64):
    u = jets(lambda p: p[0] * p[1] * p[2], jnp.array([[2.0, 3, 5]]), ("xz",), "xyz")
    np.testing.assert_allclose(u.xz, [3])


def test_a_constant_has_derivatives_of_zero():
    u = jets(lambda p: jnp.ones(()), jnp.zeros((3, 2)), ("t", "xx"))
    np.testing.assert_array_equal(u.xx, np.zeros(3))


@pytest.mark.parametrize("name", ["one output", "periodic in x"])
def test_jets_can_be_jitted_and_differentiated(name, x64, getkey):
    net = init(SPECS[name], getkey())
    points = jnp.array([[0.5, 0.0], [1.5, -2.0]])

    @jax.jit
    def energy(net):
        return jnp.sum(jets(net, points).xx ** 2)

    @jax.jit
    def slow_energy(net):
        return jnp.sum(jax.vmap(nested(net, "xx"))(points) ** 2)

    fast, slow = jax.grad(energy)(net), jax.grad(slow_energy)(net)
    np.testing.assert_allclose(fast.flatten(), slow.flatten(), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("words", [UP_TO_SECOND, ("t", "txx")], ids=["second", "third"])
@pytest.mark.parametrize(
    ("weights", "given"), [("float32", "float64"), ("float64", "float32")]
)
def test_a_network_computes_in_its_own_precision(weights, given, words, points, getkey):
    net = hpx.cast(init(SPECS["scaled outputs"], getkey()), weights)

    def values(points):
        return jnp.stack(jax.tree.leaves(hpx.jets(net, points, words)))

    def slopes(points):
        return jax.grad(lambda points: jnp.sum(values(points) ** 2))(points)

    same = points.astype(given).astype(weights)
    for f, dtype in ((values, weights), (slopes, given)):
        found, expected = jax.jit(f)(points.astype(given)), jax.jit(f)(same)
        assert (found.dtype, expected.dtype) == (dtype, weights)
        rtol = 1e-4 if "float32" in (dtype, weights) else 1e-12
        np.testing.assert_allclose(
            found.astype(float), expected.astype(float), rtol=rtol, atol=rtol
        )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_other_function_gets_the_points_as_they_are(dtype, points):
    seen = []
    points = points.astype(dtype)
    u = hpx.jets(lambda p: seen.append(p.dtype) or p[0] * p[1], points, ("x",))
    assert {*seen, u.x.dtype} == {jnp.dtype(dtype)}


def test_points_may_be_lists_or_whole_numbers(getkey, unchecked):
    net = init(SPECS["one output"], getkey())
    expected = jets(net, jnp.array([[0.0, -2.0], [1.0, 0.0]]))
    rows = [[0, -2], [1, 0]]
    for points in (rows, np.array(rows), jnp.array(rows), np.array(rows, float)):
        found = jets(net, points, ["t", "x", "xx"], ["t", "x"])
        assert found.xx.dtype == jnp.float32
        np.testing.assert_allclose(found.xx, expected.xx, rtol=1e-6)


@pytest.mark.parametrize("outputs", [1, 2])
def test_no_points_have_no_values(outputs, getkey):
    net = init(MainNetSpec((2, 3, outputs), DOMAIN), getkey())
    shape = (0,) if outputs == 1 else (0, 2)
    for f in (net, net.__call__):
        u = jets(f, jnp.zeros((0, 2)))
        assert u.value.shape == u.xx.shape == shape


@pytest.mark.parametrize("word", ["y", "xy", "", "u_x"])
def test_an_unknown_word_is_an_error(word):
    message = rf"^derivatives: '{word}', expected letters of \('t', 'x'\)$"
    with pytest.raises(ValueError, match=message):
        jets(jnp.sum, jnp.zeros((3, 2)), ("t", word))


@pytest.mark.parametrize("shape", [(4, 3), (4, 1)], ids=str)
def test_points_must_fit_the_coordinates(shape):
    with pytest.raises(ValueError) as error:
        jets(jnp.sum, jnp.zeros(shape))
    assert str(error.value) == (
        f"points has shape {shape}, expected (n, 2) for coordinates ('t', 'x')"
    )


def test_points_are_a_matrix(unchecked):
    with pytest.raises(
        ValueError, match=r"^points has shape \(2,\), expected \(n, d\)"
    ):
        hpx.jets(jnp.sum, jnp.zeros(2))


def test_coordinates_must_fit_the_network(getkey):
    net = init(SPECS["one output"], getkey())
    with pytest.raises(ValueError) as error:
        jets(net, jnp.zeros((4, 3)), ("t",), "txy")
    assert str(error.value) == (
        "coordinates = ('t', 'x', 'y'), expected 2 for a network of t, x"
    )


def test_coordinates_differ():
    message = r"^coordinates = \('x', 'x'\), expected different letters$"
    with pytest.raises(ValueError, match=message):
        jets(jnp.sum, jnp.zeros((4, 2)), ("x",), ("x", "x"))


@pytest.mark.parametrize("words", ["xx", ("t", 1), {"t": 1}], ids=str)
def test_words_are_strings_in_a_tuple(words, unchecked):
    with pytest.raises(TypeError, match=r"^derivatives = .*, expected a (tuple|str)"):
        hpx.jets(jnp.sum, jnp.zeros((4, 2)), words)


def test_junk_for_jets(throw_junk_at, getkey):
    net = init(SPECS["one output"], getkey())
    points, words = np.array([[0.5, 0.0], [1.5, -2.0]]), ("t", "xx")
    throw_junk_at(
        hpx.jets, u=net, points=points, derivatives=words, coordinates=("t", "x")
    )
    throw_junk_at(hpx.jets, only=["points"], u=jnp.prod, points=points)


def test_a_jet_says_what_it_lacks():
    u = Jet(jnp.zeros(3), {"t": jnp.zeros(3), "x": jnp.zeros(3)})
    with pytest.raises(AttributeError) as error:
        _ = u.xx
    assert str(error.value) == (
        "this jet has no 'xx', only value, t, x; name more in the problem's "
        "`derivatives`"
    )


def test_a_jet_can_be_copied():
    u = copy.deepcopy(Jet(jnp.zeros(3), {"t": jnp.ones(3)}))
    np.testing.assert_array_equal(u.t, np.ones(3))


def test_junk_for_a_jet(throw_junk_at):
    one = jnp.ones(3)
    throw_junk_at(hpx.Jet, value=one, derivatives={"x": one})
    for derivatives in ([one], {"x": 1.0}):
        with pytest.raises(TypeError, match=r"^derivatives.* = .*, expected a"):
            Jet(one, derivatives)
