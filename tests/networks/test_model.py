import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import cast, count_parameters
from hyperpinn_eqx.networks.model import dtype_of

POINT = jnp.array([0.5, 0.25], dtype=jnp.float32)


def test_cast_changes_real_weights_alone(model):
    wide = cast(model, jnp.float64)
    assert {leaf.dtype for leaf in jax.tree.leaves(wide)} == {jnp.dtype("float64")}
    assert wide.parameters == model.parameters
    assert eqx.tree_equal(cast(wide, "float32"), model)
    whole, text, unit = cast((jnp.arange(3), "text", np.array([1j])), jnp.float16)
    assert (whole.dtype, text, unit.dtype) == (jnp.int32, "text", np.complex128)
    # Neither are these counted as trainable.
    assert count_parameters((jnp.zeros(3), whole, jnp.array(True), 1.0, "text")) == 3


def test_weights_are_floating_point_numbers(unchecked):
    for dtype in (int, bool, complex, "text", ">f4", 3, None):
        with pytest.raises(ValueError, match="dtype"):
            cast(jnp.ones(2), dtype)


def test_lambda_is_a_number_or_an_array_in_its_range(model):
    net = model(jnp.array(0.1))
    for lam in (0.1, np.float32(0.1), np.array(0.1), np.array([0.1]), jnp.array([0.1])):
        assert eqx.tree_equal(model(lam), net)
    assert model(1)(POINT) == model(1.0)(POINT) != net(POINT)
    for lam in (-0.1, 0, np.nan, np.inf, [0.1, 0.2]):
        with pytest.raises(ValueError, match="lam"):
            model(jnp.array(lam))
    with pytest.warns(UserWarning, match="kappa = 2"):
        assert jnp.isfinite(model(2.0)(POINT))


def test_vmap_over_lambda_is_a_loop(x64, model):
    lams = jnp.array([[0.02], [0.1], [0.9]])
    together = jax.jit(jax.vmap(lambda lam: model(lam).flatten()))(lams)
    one = jax.jit(lambda lam: model(lam).flatten())
    np.testing.assert_allclose(together, [one(lam) for lam in lams], rtol=1e-12)
    np.testing.assert_allclose(one(0.1), model(0.1).flatten(), rtol=1e-12)


def test_a_model_can_be_differentiated_by_lambda(x64, model):
    value = jax.jit(lambda lam: model(lam)(jnp.array([0.5, 0.25])))
    secant = (value(0.1 + 1e-6) - value(0.1 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(value)(0.1), secant, rtol=1e-6)


def test_every_parameter_is_trained(model):
    grads = jax.jit(jax.grad(lambda model: model(0.05)(POINT)))(model)
    assert count_parameters(grads) == count_parameters(model)
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(grads))


def test_weights_of_two_precisions_are_an_error(x64, hyper):
    mixed = eqx.tree_at(lambda m: m.theta0, hyper, hyper.theta0.astype(jnp.float32))
    with pytest.raises(ValueError, match="float32"):
        mixed(0.1)
    assert dtype_of(("no weights", jnp.arange(3))) == jnp.float64


def test_a_model_computes_in_its_own_precision(model, computes_in_its_own_precision):
    # From λ as it is given, and from a scaled one.
    for weights in (lambda m: lambda lam: m(lam).flatten(), _of_scaled):
        computes_in_its_own_precision(weights, cast(model, "float32"), [0.3])


def _of_scaled(model):
    return lambda lam: model.generate(lam).flatten()


@pytest.fixture
def wide(model):
    """A model in float64, in a session that is not."""
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

    def batched(arrays, lam):
        lams = jnp.stack([lam, lam])
        return jax.vmap(lambda lam: jax.grad(last, 1)(arrays, lam))(lams)

    def forward(f):
        return lambda arrays, lam: jax.jvp(lambda a: f(a, lam), (arrays,), (arrays,))

    return {
        "values": at,
        "forward by λ": jax.jacfwd(at, 1),
        "reverse by λ": jax.grad(last, 1),
        "reverse by λ, batched": batched,
        "forward by weights": forward(at),
        "reverse by weights": jax.grad(last),
        "forward by weights of jets": forward(curved),
        "reverse by weights of jets": jax.grad(curved),
        "forward over reverse": jax.jacfwd(jax.grad(last, 1), 1),
        "reverse over reverse": jax.grad(jax.grad(last, 1)),
    }


def test_a_float64_model_computes_in_float64_in_any_session(wide):
    arrays, lam = eqx.filter(wide, eqx.is_array), np.float32(0.3)
    for name, way in _ways(wide).items():
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
