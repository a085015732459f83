import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import (
    Box,
    Burgers,
    ConcatPINN,
    HyperPINN,
    MainNet,
    MainNetSpec,
    cast,
    count_parameters,
)
from hyperpinn_eqx.networks.model import dtype_of

POINT = jnp.array([0.5, 0.25], dtype=jnp.float32)
LORENZ = Box(sigma=(8, 12), beta=(2, 3), rho=(26, 30))
STATE = Box(x=(-20, 20), y=(-25, 25), z=(0, 50))


def zeros(cls, *args, key):
    """A model whose weights are zero: nothing to compile."""
    skeleton = eqx.filter_eval_shape(cls, *args, key=key)
    return jax.tree.map(lambda leaf: jnp.asarray(np.zeros(leaf.shape, "f4")), skeleton)


@pytest.mark.parametrize(
    ("sizes", "count"), [((2, *6 * (8,), 1), 401), ((2, *10 * (32,), 1), 9665)]
)
def test_the_papers_burgers_baselines_have_its_counts(sizes, count, getkey):
    problem = Burgers()
    main = MainNetSpec(sizes, problem.domain)
    model = zeros(ConcatPINN, main, problem.parameters, key=getkey())
    assert count_parameters(model) == count


def test_the_papers_burgers_hyperpinn_has_its_counts(getkey):
    problem = Burgers()
    main = MainNetSpec((2, *6 * (8,), 1), problem.domain)
    model = zeros(HyperPINN, main, problem.parameters, (32, 32, 32, 16), key=getkey())
    assert count_parameters(model) == 9385
    assert count_parameters(model(0.01)) == 393


def test_a_vector_field_of_three_parameters_has_the_lorenz_counts(getkey):
    main = MainNetSpec((3, 16, 3), STATE, Box(dx=(-9, 9), dy=(-9, 9), dz=(-9, 9)))
    model = zeros(HyperPINN, main, LORENZ, (16, 8), key=getkey())
    field = model(jnp.array([10, 8 / 3, 28]))
    assert count_parameters(model) == 1235
    assert count_parameters(field) == 115
    assert field(jnp.ones(3)).shape == (3,)


def test_only_trainable_numbers_are_counted():
    tree = (jnp.zeros(3), jnp.arange(5), jnp.array(True), np.zeros(2), 1.0, "text")
    assert count_parameters(tree) == 5


def test_cast_changes_the_weights_alone(model, x64):
    wide = cast(model, jnp.float64)
    assert {leaf.dtype for leaf in jax.tree.leaves(wide)} == {jnp.dtype("float64")}
    assert wide.parameters == model.parameters
    back = cast(wide, jnp.float32)
    assert eqx.tree_equal(back, model)


def test_cast_leaves_integers_and_complex_numbers_alone():
    whole, text, unit = cast((jnp.arange(3), "text", np.array([1j])), jnp.float16)
    assert (whole.dtype, text, unit.dtype) == (jnp.int32, "text", np.complex128)


@pytest.mark.parametrize(
    "lam",
    [
        0.1,
        np.float32(0.1),
        np.array(0.1),
        np.array([0.1]),
        jnp.array(0.1),
        jnp.array([0.1]),
    ],
    ids=lambda lam: f"{type(lam).__name__}{np.shape(lam)}",
)
def test_lambda_may_be_a_number_or_an_array(lam, model):
    net = model(lam)
    assert isinstance(net, MainNet)
    assert net(POINT) == model(jnp.array([0.1]))(POINT)


def test_lambda_may_be_an_integer(model):
    assert model(1)(POINT) == model(1.0)(POINT)


@pytest.mark.parametrize("lam", [-0.1, 0, np.nan, np.inf])
def test_an_impossible_lambda_is_an_error(lam, model):
    with pytest.raises(ValueError, match="lam: kappa = .*expected a positive number"):
        model(lam)


def test_a_wrong_shape_of_lambda_is_an_error(model):
    with pytest.raises(ValueError, match=r"lam has shape \(2,\), expected 1"):
        model(jnp.array([0.1, 0.2]))


def test_a_lambda_outside_the_range_warns_and_extrapolates(model):
    with pytest.warns(UserWarning, match=r"kappa = 2 .*\[0.01, 1\]"):
        net = model(2.0)
    assert jnp.isfinite(net(POINT))


def test_lambda_matters(model):
    assert model(0.02)(POINT) != model(0.9)(POINT)


def test_vmap_over_lambda_is_a_loop(model):
    lams = jnp.array([[0.02], [0.1], [0.9]])
    together = jax.jit(jax.vmap(model))(lams)
    for i, lam in enumerate(lams):
        one = jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], together)
        for found, expected in zip(
            *map(jax.tree.leaves, (one, model(lam))), strict=True
        ):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_model_can_be_jitted(model):
    expected = model(0.1)(POINT)
    np.testing.assert_allclose(eqx.filter_jit(model)(0.1)(POINT), expected, rtol=1e-5)
    jitted = jax.jit(lambda lam: model(lam))
    np.testing.assert_allclose(jitted(0.1)(POINT), expected, rtol=1e-5)


def test_a_model_can_be_differentiated_by_lambda(x64, model):
    @jax.jit
    def value(lam):
        return model(lam)(jnp.array([0.5, 0.25]))

    secant = (value(0.1 + 1e-6) - value(0.1 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(value)(0.1), secant, rtol=1e-6)


def test_every_parameter_is_trained(model):
    grads = jax.jit(jax.grad(lambda model: model(0.05)(POINT)))(model)
    assert count_parameters(grads) == count_parameters(model)
    for leaf in jax.tree.leaves(grads):
        assert jnp.any(leaf != 0)


def test_weights_keep_their_precision_in_x64_mode(model, x64):
    assert model(0.1).flatten().dtype == jnp.float32


@pytest.mark.parametrize(
    ("weights", "given"), [("float32", "float64"), ("float64", "float32")]
)
def test_a_lambda_of_another_precision(weights, given, model, x64):
    model, lam = cast(model, weights), jnp.array(0.3, given)

    def value(lam):
        return model(lam)(jnp.array([0.5, 0.25], given))

    u, slope = jax.jit(jax.value_and_grad(value))(lam)
    expected, same = jax.jit(jax.value_and_grad(value))(lam.astype(weights))
    assert (u.dtype, slope.dtype) == (weights, given)
    np.testing.assert_allclose(u, expected, rtol=1e-6)
    np.testing.assert_allclose(slope.astype(float), same.astype(float), rtol=1e-5)


def test_weights_of_two_precisions_are_an_error(x64, hyper):
    mixed = eqx.tree_at(lambda m: m.theta0, hyper, hyper.theta0.astype(jnp.float32))
    with pytest.raises(
        ValueError, match=r"weights are \['float32', 'float64'\], expected one type"
    ):
        mixed(0.1)


def test_a_model_without_weights_has_jaxs_precision(x64):
    assert dtype_of(("no weights", jnp.arange(3))) == jnp.float64


@pytest.mark.parametrize("dtype", [jnp.float64, "float64", float])
def test_float64_needs_x64_mode(dtype):
    with pytest.raises(ValueError, match="dtype = .*, expected .*needs jax_enable_x64"):
        cast(jnp.ones(2), dtype)


@pytest.mark.parametrize("dtype", [int, bool, complex, "text", ">f4", 3, None])
def test_weights_are_floating_point_numbers(dtype, unchecked):
    with pytest.raises(ValueError, match="dtype = .*, expected a floating-point type"):
        cast(jnp.ones(2), dtype)


def test_junk_for_models(throw_junk_at, hyper, concat, heat):
    net = hpx.MainNetSpec((2, 1), heat.domain).unflatten(jnp.ones(3))
    for one in (hyper, concat):
        throw_junk_at(one, lam=np.array([0.5]), examples=25)
    throw_junk_at(hpx.cast, tree=net, dtype=jnp.float32)
    throw_junk_at(hpx.count_parameters, tree=net)
    throw_junk_at(hpx.AbstractModel.__call__, self=hyper, lam=0.5, only=["lam"])


@pytest.mark.parametrize(
    ("weights", "given"), [("float32", "float64"), ("float64", "float32")]
)
def test_a_model_computes_in_its_own_precision(weights, given, x64, model):
    model, lam = cast(model, weights), jnp.array([0.3], given)

    def total(lam):
        return jnp.sum(model.generate(lam).flatten() ** 2)

    value, slope = jax.jit(jax.value_and_grad(total))(lam)
    expected, same = jax.jit(jax.value_and_grad(total))(lam.astype(weights))
    assert (value.dtype, slope.dtype) == (weights, given)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(slope.astype(float), same.astype(float), rtol=1e-5)


@pytest.fixture
def wide(model):
    """A model in float64, in a session that is not."""
    with jax.enable_x64(True):
        return cast(model, "float64")


def _ways(model):
    """Values and derivatives of a model, by all that JAX transforms."""
    rest = eqx.partition(model, eqx.is_array)[1]
    points = np.float32([[0.25, 0.5], [0.75, -0.5]])

    def at(arrays, lam):
        return jax.vmap(eqx.combine(arrays, rest)(lam))(points)

    def last(arrays, lam):
        return at(arrays, lam)[-1]

    def curved(arrays, lam):
        return hpx.jets(eqx.combine(arrays, rest)(lam), points).xx[-1]

    yield "values", at
    yield "forward by λ", jax.jacfwd(at, 1)
    yield "reverse by λ", jax.grad(last, 1)
    yield "forward by weights", lambda a, lam: jax.jvp(at, (a, lam), (a, lam))
    yield "reverse by weights", jax.grad(last)
    yield "reverse by weights of jets", jax.grad(curved)
    yield (
        "forward by weights of jets",
        lambda a, lam: jax.jvp(lambda a: curved(a, lam), (a,), (a,)),
    )
    yield "forward over reverse", jax.jacfwd(jax.grad(last), 1)
    yield "reverse over reverse", jax.grad(lambda a, lam: jax.grad(last, 1)(a, lam))
    yield (
        "reverse by λ, batched",
        lambda a, lam: jax.vmap(lambda lam: jax.grad(last, 1)(a, lam))(
            jnp.stack([lam, lam])
        ),
    )


def test_a_float64_model_computes_in_float64_in_any_session(wide):
    arrays, lam = eqx.filter(wide, eqx.is_array), np.float32(0.3)
    for name, way in _ways(wide):
        with jax.enable_x64(True):
            expected = jax.jit(way)(arrays, lam)
        found = jax.jit(way)(arrays, lam)
        for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
            assert one.dtype == other.dtype, name
            scale = 1e-14 if one.dtype == np.float64 else 1e-7
            np.testing.assert_allclose(one, other, rtol=scale, atol=scale, err_msg=name)


def test_neither_lambda_nor_points_are_rounded_before_a_float64_model(wide):
    lam, point = 1 / 3, np.array([1 / 3, 1 / 7])
    with jax.enable_x64(True):
        expected = wide(lam)(point)
    found = wide(lam)(point)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, np.asarray(expected), rtol=1e-15)
