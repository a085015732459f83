import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import Batch, PINNRows, pinn_loss, slope_weight
from hyperpinn_eqx.dynamics.loss import MultistepRows, multistep_loss
from hyperpinn_eqx.dynamics.multistep import adams_bashforth, adams_moulton, bdf
from hyperpinn_eqx.dynamics.trajectories import Trajectories
from hyperpinn_eqx.loss import groups


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
        found = [
            jax.vmap(lambda item, row=row: row(model(lam), lam, item))(part)
            for row, part in groups(rows, items)
        ]
        return found[0] if len(found) == 1 else found

    return jax.vmap(one)(lams, items)


@pytest.mark.parametrize("weight", [None, slope_weight("t")], ids=["plain", "weighted"])
def test_the_squares_of_the_rows_add_up_to_the_loss(weight, rows, heat, hyper, getkey):
    rows = PINNRows(heat, rows.initial, rows.boundary, 5, 7.0, weight)
    lams, items = draw(rows, hyper, getkey(), 4)
    physics, data = every_row(rows, hyper, lams, items)
    batch = Batch(lams, items[0].point, rows.initial, rows.boundary)
    loss = eqx.filter_jit(pinn_loss)(hyper, heat, batch, alpha=7.0, weight=weight)
    for name, r in {"physics": physics, "data": data}.items():
        np.testing.assert_allclose(jnp.sum(r**2) / 4, loss.terms[name], rtol=1e-12)


def test_a_batch_has_both_ends_of_the_range_and_values_between(rows, hyper, getkey):
    lams, items = draw(rows, hyper, getkey(), 6)
    np.testing.assert_allclose(lams[:2, 0], [0.01, 1.0], rtol=1e-15)
    assert jnp.all((lams[2:] > 0.01) & (lams[2:] < 1.0))
    assert [part.point.shape for part in items] == [(6, 5, 2), (6, 3 + 4, 2)]


def test_one_parameter_is_drawn_as_ever(rows, heat, hyper):
    # Both ends, then a Latin hypercube of the first half of the key.
    lams, items = draw(rows, hyper, jax.random.key(5), 6)
    lam_key, key = jax.random.split(jax.random.key(5))
    inside = eqx.filter_jit(hpx.latin_hypercube)(heat.parameters, 4, key=lam_key)
    expected = jnp.concatenate([jnp.array([[0.01], [1.0]]), inside])
    np.testing.assert_array_equal(lams, expected)
    again = eqx.filter_jit(rows.draw)(hyper, lams, key)
    assert eqx.tree_equal(items, again)


@pytest.mark.parametrize(
    ("n_lam", "corners"),
    [
        (8, [(0, 1), (0, 3), (2, 1), (2, 3)]),
        (9, [(0, 1), (0, 3), (2, 1), (2, 3)]),
        (7, [(0, 1), (2, 3)]),
        (2, [(0, 1), (2, 3)]),
    ],
)
def test_a_batch_has_all_corners_where_they_are_few(n_lam, corners, heat, x64, getkey):
    class Two(type(heat)):
        parameters = hpx.Box(a=(0, 2), fixed=(7, 7), b=(1, 3, "log"))

        def residual(self, u, tx, lam):
            return u.t - lam[0] * u.xx

    main = hpx.MainNetSpec((2, 3, 1), heat.domain)
    model = eqx.filter_jit(hpx.ConcatPINN)(main, Two.parameters, key=getkey())
    rows = PINNRows(Two(), jnp.zeros((1, 2)), jnp.zeros((1, 2)), n_points=2)
    lams, items = draw(rows, model, getkey(), n_lam)
    assert lams.shape == (n_lam, 3)
    assert [part.point.shape for part in items] == [(n_lam, 2, 2)] * 2
    k = len(corners)
    np.testing.assert_allclose(lams[:k, ::2], corners, rtol=1e-15)
    inside = (lams[k:, ::2] > jnp.array([[0.0, 1]])) & (
        lams[k:, ::2] < jnp.array([[2.0, 3]])
    )
    assert jnp.all(inside) and jnp.all(lams[:, 1] == 7)


def test_every_lambda_gets_its_own_points_and_the_same_conditions(rows, hyper, getkey):
    lams = jnp.array([[0.1], [0.5]])
    places, known = eqx.filter_jit(rows.draw)(hyper, lams, getkey())
    assert not jnp.any(places.point[0] == places.point[1])
    conditions = jnp.concatenate([rows.initial, rows.boundary])
    for points in known.point:
        np.testing.assert_array_equal(points, conditions)


def test_the_key_decides_the_points(rows, hyper):
    first, again, other = (
        draw(rows, hyper, jax.random.key(seed), 6)[1][0].point for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not jnp.any(first == other)


def test_points_gather_where_the_residual_is_large(heat, x64, getkey):
    # At κ = 1 the heat equation's residual of this network is large near x = 1 only.
    class Spiky(type(heat)):
        def residual(self, u, tx, lam):
            return jnp.where(tx[1] > 0.8, 1.0, 0.0) + 0 * u.t

    condition = jnp.zeros((1, 2))
    rows = PINNRows(Spiky(), condition, condition, n_points=200)
    main = hpx.MainNetSpec((2, 1), heat.domain)
    model = eqx.filter_jit(hpx.ConcatPINN)(main, heat.parameters, key=getkey())
    places, _ = eqx.filter_jit(rows.draw)(model, jnp.array([[1.0]]), getkey())
    assert jnp.mean(places.point[0, :, 1] > 0.8) > 0.4


@pytest.fixture
def data(x64):
    """Three λ with two trajectories of 30 states (x, y) each."""
    states = np.random.default_rng(0).normal(size=(3, 2, 30, 2)).cumsum(2)
    lam = jnp.array([[0.0, 1.0], [0.5, 3.0], [1.0, 2.0]])
    return Trajectories(lam, jnp.asarray(states), 0.1, jnp.ones((3, 2), bool))


@pytest.fixture
def pairs(data, getkey):
    """A tiny HyperPINN from two parameters to a vector field of two components."""
    main = hpx.MainNetSpec((2, 3, 2), hpx.Box(x=(-9, 9), y=(-9, 9)), bounded=False)
    return eqx.filter_jit(hpx.HyperPINN)(
        main, hpx.Box(b=(0, 1), a=(1, 3)), (4,), key=getkey()
    )


SCALE = np.array([2.0, 5.0])


@pytest.mark.parametrize(
    "scheme", [adams_moulton(1), bdf(3)], ids=lambda scheme: scheme.name
)
def test_the_squares_of_multistep_rows_add_up_to_the_loss(scheme, data, pairs, getkey):
    rows = MultistepRows(data, scheme, jnp.asarray(SCALE), n_windows=7)
    lams, items = eqx.filter_jit(rows.batch)(pairs, getkey())
    np.testing.assert_array_equal(lams, data.lam)
    # Every window makes one row for each of its two components.
    windows = items.states.reshape(3, 7, 2, scheme.steps + 1, 2)
    np.testing.assert_array_equal(windows[:, :, 0], windows[:, :, 1])
    np.testing.assert_array_equal(items.component.reshape(21, 2), [[0, 1]] * 21)
    r = every_row(rows, pairs, lams, items)
    loss = eqx.filter_jit(multistep_loss)(
        pairs, lams, windows[:, :, 0], scheme=scheme, dt=0.1, scale=jnp.asarray(SCALE)
    )
    np.testing.assert_allclose(jnp.sum(r**2) / 3, loss.total, rtol=1e-12)


def test_the_key_decides_the_windows_of_multistep_rows(data, pairs):
    rows = MultistepRows(data, adams_moulton(1), jnp.asarray(SCALE), n_windows=7)
    first, again, other = (
        rows.batch(pairs, jax.random.key(seed))[1].states for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert jnp.mean(first != other) > 0.5


@pytest.mark.parametrize("scheme", [adams_moulton(2), adams_bashforth(7)])
def test_a_scheme_that_diverges_for_discovery_is_an_error(scheme, data):
    with pytest.raises(ValueError, match="expected one that converges for discovery"):
        MultistepRows(data, scheme, jnp.asarray(SCALE), n_windows=7)


def test_data_too_short_for_their_scheme_are_an_error(data):
    short = eqx.tree_at(lambda d: d.states, data, data.states[:, :, :3])
    MultistepRows(short, bdf(2), jnp.asarray(SCALE), n_windows=7)
    with pytest.raises(ValueError, match=r"has 3 states .* more than the 3 step.s."):
        MultistepRows(short, bdf(3), jnp.asarray(SCALE), n_windows=7)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_data_that_are_not_finite_are_an_error(bad, data):
    # Trajectories refuse them too, but their arrays can be replaced.
    states = data.states.at[2, 1, 7, 0].set(bad)
    match = rf"data.states holds {bad} at \(2, 1, 7, 0\), expected finite numbers"
    with pytest.raises(ValueError, match=match):
        MultistepRows(
            eqx.tree_at(lambda d: d.states, data, states),
            bdf(2),
            jnp.asarray(SCALE),
            n_windows=7,
        )


def test_unfinished_data_are_an_error(data):
    finished = jnp.array([[True, True], [True, False], [True, True]])
    data = Trajectories(data.lam, data.states, data.dt, finished)
    with pytest.raises(ValueError, match=r"data holds unfinished .* at \(1, 1\)"):
        MultistepRows(data, bdf(2), jnp.asarray(SCALE), n_windows=7)


def test_a_scale_of_zero_is_an_error(data):
    with pytest.raises(ValueError, match="least entry of scale = 0.0, expected"):
        MultistepRows(data, bdf(2), jnp.array([1.0, 0.0]), n_windows=7)


def test_multistep_rows_are_in_float64_whatever_the_data(data, pairs, getkey):
    single = MultistepRows(
        hpx.cast(data, jnp.float32), bdf(2), jnp.asarray(SCALE, jnp.float32), 7
    )
    exact = MultistepRows(hpx.cast(single.data, jnp.float64), bdf(2), SCALE, 7)
    found, expected = (
        every_row(rows, pairs, *rows.batch(pairs, jax.random.key(0)))
        for rows in (single, exact)
    )
    assert found.dtype == jnp.float64
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_problem_without_conditions_has_rows_of_its_equation(
    rows, heat, hyper, getkey
):
    none = jnp.zeros((0, 2))
    rows = PINNRows(heat, none, none, n_points=5)
    _, (places, known) = draw(rows, hyper, getkey(), 4)
    assert places.point.shape == (4, 5, 2) and known.point.shape == (4, 0, 2)


def test_two_values_of_lambda_are_the_ends(rows, hyper, getkey):
    np.testing.assert_allclose(rows.batch(hyper, getkey(), 2)[0], [[0.01], [1.0]])
    with pytest.raises(ValueError, match="n_lam = 1, expected .* at least 2"):
        rows.batch(hyper, getkey(), 1)


def test_a_lambda_that_is_not_finite_is_an_error(rows, hyper, getkey):
    with pytest.raises(
        ValueError, match=r"lams holds nan at \(1, 0\), expected finite"
    ):
        rows.draw(hyper, jnp.array([[0.1], [jnp.nan]]), getkey())


def test_junk_for_pinn_rows(rows, heat, hyper, getkey, throw_junk_at):
    initial, boundary = rows.initial, rows.boundary
    good = {"problem": heat, "initial": initial, "boundary": boundary, "n_points": 2}
    throw_junk_at(hpx.PINNRows, **good, alpha=1.0, weight=slope_weight("t"))
    throw_junk_at(
        rows.draw, examples=15, model=hyper, lams=jnp.array([[0.1]]), key=getkey()
    )
    throw_junk_at(rows.batch, examples=15, model=hyper, key=getkey(), n_lam=3)


def test_junk_for_multistep_rows(data, pairs, getkey, throw_junk_at):
    good = {"data": data, "scheme": bdf(1), "scale": jnp.ones(2), "n_windows": 2}
    throw_junk_at(hpx.MultistepRows, **good)
    rows = MultistepRows(**good)
    throw_junk_at(rows.batch, examples=15, only=["key"], model=pairs, key=getkey())
