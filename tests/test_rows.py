import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import Batch, PINNRows, pinn_loss, slope_weight


@pytest.fixture
def rows(x64, heat, getkey):
    initial, boundary = eqx.filter_jit(hpx.conditions)(heat, 3, 4, key=getkey())
    return PINNRows(heat, initial, boundary, n_points=5, alpha=7.0)


@eqx.filter_jit
def draw(rows, model, key, n_lam):
    return rows.batch(model, key, n_lam)


@eqx.filter_jit
def every_row(rows, model, lams, items):
    def one(lam, items):
        return jax.vmap(lambda item: rows(model(lam), lam, item))(items)

    return jax.vmap(one)(lams, items)


@pytest.mark.parametrize("weight", [None, slope_weight("t")], ids=["plain", "weighted"])
def test_the_squares_of_the_rows_add_up_to_the_loss(weight, rows, heat, hyper, getkey):
    rows = PINNRows(heat, rows.initial, rows.boundary, 5, 7.0, weight)
    lams, items = draw(rows, hyper, getkey(), 4)
    r = every_row(rows, hyper, lams, items)
    batch = Batch(lams, items.point[:, :5], rows.initial, rows.boundary)
    loss = eqx.filter_jit(pinn_loss)(hyper, heat, batch, alpha=7.0, weight=weight)
    np.testing.assert_allclose(
        jnp.sum(r[:, :5] ** 2) / 4, loss.terms["physics"], rtol=1e-12
    )
    np.testing.assert_allclose(
        jnp.sum(r[:, 5:] ** 2) / 4, loss.terms["data"], rtol=1e-12
    )


def test_a_batch_has_both_ends_of_the_range_and_values_between(rows, hyper, getkey):
    lams, items = draw(rows, hyper, getkey(), 6)
    np.testing.assert_allclose(lams[:2, 0], [0.01, 1.0], rtol=1e-15)
    assert jnp.all((lams[2:] > 0.01) & (lams[2:] < 1.0))
    assert items.point.shape == (6, 5 + 3 + 4, 2)


def test_every_lambda_gets_its_own_points_and_the_same_conditions(rows, hyper, getkey):
    lams = jnp.array([[0.1], [0.5]])
    items = eqx.filter_jit(rows.draw)(hyper, lams, getkey())
    assert not jnp.any(items.point[0, :5] == items.point[1, :5])
    conditions = jnp.concatenate([rows.initial, rows.boundary])
    for points in items.point[:, 5:]:
        np.testing.assert_array_equal(points, conditions)


def test_the_key_decides_the_points(rows, hyper):
    first, again, other = (
        draw(rows, hyper, jax.random.key(seed), 6)[1].point for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not jnp.any(first[:, :5] == other[:, :5])


def test_points_gather_where_the_residual_is_large(heat, x64, getkey):
    # At κ = 1 the heat equation's residual of this network is large near x = 1 only.
    class Spiky(type(heat)):
        def residual(self, u, tx, lam):
            return jnp.where(tx[1] > 0.8, 1.0, 0.0) + 0 * u.t

    condition = jnp.zeros((1, 2))
    rows = PINNRows(Spiky(), condition, condition, n_points=200)
    main = hpx.MainNetSpec((2, 1), heat.domain)
    model = eqx.filter_jit(hpx.ConcatPINN)(main, heat.parameters, key=getkey())
    items = eqx.filter_jit(rows.draw)(model, jnp.array([[1.0]]), getkey())
    assert jnp.mean(items.point[0, :200, 1] > 0.8) > 0.4
