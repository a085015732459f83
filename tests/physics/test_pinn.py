import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import hyperpinn_eqx as hpx
from hyperpinn_eqx import PINNLoss, slope_weight
from hyperpinn_eqx import _blocks as blocks
from hyperpinn_eqx.physics.pinn import condition_residuals, corners_and_hypercube
from hyperpinn_eqx.physics.sampling import Places
from hyperpinn_eqx.training.linear_system import residual_rows, rows_of

residuals = eqx.filter_jit(hpx.residuals)
evaluate = eqx.filter_jit(lambda loss, model, batch: loss(model, batch))
ONLY_PHYSICS = {"start": 0.0, "walls": 0.0}


@pytest.fixture
def loss(heat):
    sizes = {"n_lam": 6, "n_points": 5, "n_conditions": 3}
    return PINNLoss(heat, **sizes, weights={"physics": 7.0, "walls": 2.0})


@pytest.fixture
def batch(loss, hyper, getkey):
    """Three λ with four collocation points each, and three of each condition."""
    points = eqx.filter_jit(hpx.uniform)(loss.problem.domain, (3, 4), key=getkey())
    lam = [[0.02], [0.1], [0.7]]
    return loss.sample(hyper, key=getkey(), lam=lam, points=points)


def same(found, expected, rtol=1e-12):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-15)


def test_it_is_equation_six(x64, loss, model, batch):
    # One point after another, by reverse mode.
    @eqx.filter_jit
    def at(u, p):
        return u(p), jax.grad(u)(p)[0], jax.hessian(u)(p)[1, 1]

    terms = {"physics": [], "start": [], "walls": []}
    for i, lam in enumerate(batch.lam):
        net, items = eqx.filter_jit(model)(lam), batch.items
        slopes = [at(net, p)[1:] for p in items["physics"][i]]
        terms["physics"] += [(u_t - lam[0] * u_xx) ** 2 for u_t, u_xx in slopes]
        start, walls = (items[name].point[i] for name in ("start", "walls"))
        terms["start"] += [(at(net, p)[0] + np.sin(np.pi * p[1])) ** 2 for p in start]
        terms["walls"] += [at(net, p)[0] ** 2 for p in walls]
    found = evaluate(loss, model, batch).terms
    weights = {"physics": 7.0, "start": 1.0, "walls": 2.0}
    same(found, {name: w * np.mean(terms[name]) for name, w in weights.items()})
    assert list(loss.terms) == ["physics", "start", "walls"]


def test_a_weight_may_be_traced_and_zero(heat, hyper, loss, batch):
    def value(alpha):
        return PINNLoss(heat, weights={"physics": alpha, "walls": 2.0})(hyper, batch)

    found, seven = jax.jit(value)(0.25).terms, evaluate(loss, hyper, batch).terms
    same(found.pop("physics"), seven.pop("physics") / 28, rtol=1e-6)
    same(found, seven, rtol=1e-6)
    # A zero that is traced is a term; one that is known leaves it out.
    assert jax.jit(value)(0.0).terms["physics"] == 0
    out = PINNLoss(heat, weights={"physics": 0.0})
    assert [*out.terms] == ["start", "walls"]
    assert {*out.sample(hyper, key=jax.random.key(0)).items} == {"start", "walls"}


@pytest.mark.parametrize("factor", [None, slope_weight("t")], ids=["plain", "weighted"])
def test_the_squares_of_its_rows_add_up_to_it(factor, x64, heat, loss, hyper, batch):
    loss = PINNLoss(heat, weights={"physics": 7.0, "walls": 2.0}, factor=factor)
    expected = evaluate(loss, hyper, batch).terms
    found = dict.fromkeys(expected, 0.0)
    for i, lam in enumerate(batch.lam):
        net, items = hyper(lam), jax.tree.map(lambda a, i=i: a[i], batch.items)
        rows = eqx.filter_jit(rows_of)(loss, net, lam, items)
        for name, r in zip(found, rows, strict=True):
            found[name] += jnp.sum(r**2) / 3
        plain = residuals(net, heat, lam, items["physics"], factor=factor)
        same(rows[0], np.sqrt(7 / 4) * plain)
    same(found, dict(expected))


@pytest.fixture
def system(getkey):
    """The loss of three fields, a model for it, and a batch."""
    problem = hpx.Kovasznay()
    weights = {"physics": 3.0, "origin": 0.5}
    sizes = {"n_lam": 3, "n_points": 5, "n_conditions": 4, "adaptive": False}
    loss = PINNLoss(problem, weights=weights, factor=slope_weight("x"), **sizes)
    main = hpx.MainNetSpec((2, 4, 3), problem.domain)
    model = eqx.filter_jit(hpx.HyperPINN)(main, problem.parameters, (3,), key=getkey())
    return loss, model, loss.sample(model, key=getkey())


def test_the_loss_of_a_system_is_a_mean_over_its_numbers(x64, system):
    loss, model, batch = system
    values = {name: [] for name in loss.terms}
    for i, lam in enumerate(batch.lam):
        net = model(lam)
        for name, items in batch.items.items():
            points = items[i] if name == "physics" else items.point[i]
            j = eqx.filter_jit(hpx.jets)(
                net, points, ("x", "y", "xx", "yy"), ("x", "y")
            )
            u, v, p = j.value.T
            if name == "physics":
                rows = [
                    u * j.x[:, 0] + v * j.y[:, 0] + j.x[:, 2],
                    u * j.x[:, 1] + v * j.y[:, 1] + j.y[:, 2],
                    j.x[:, 0] + j.y[:, 1],
                ]
                for field in (0, 1):
                    spread = j.xx[:, field] + j.yy[:, field]
                    rows[field] -= spread / lam[0]
                slopes = jnp.sum(jnp.abs(j.x), axis=1)
                rows = [row / (1 + slopes) for row in rows]
            elif name == "edge":
                known = loss.problem.exact(*points.T, lam[0])
                rows = [u - known[0], v - known[1]]
            else:
                rows = [p]
            values[name].append(np.mean(np.square(rows)))
    expected = {name: np.mean(found) for name, found in values.items()}
    expected["physics"] *= 3.0
    expected["origin"] *= 0.5
    same(evaluate(loss, model, batch).terms, expected)


def test_the_squares_of_the_rows_of_a_system_add_up_to_its_loss(x64, system):
    loss, model, batch = system
    found = dict.fromkeys(loss.terms, 0.0)
    for i, lam in enumerate(batch.lam):
        items = jax.tree.map(lambda a, i=i: a[i], batch.items)
        rows = eqx.filter_jit(rows_of)(loss, model(lam), lam, items)
        assert [len(r) for r in rows] == [3 * 5, 2 * 4, 1]
        for name, r in zip(found, rows, strict=True):
            found[name] += jnp.sum(r**2) / 3
        a, r = eqx.filter_jit(residual_rows)(loss, model, lam, items)
        same(r, jnp.concatenate(rows))
        assert a.shape == (len(r), model.main.size)
    same(found, dict(evaluate(loss, model, batch).terms))


def test_the_hypernetwork_runs_once_for_each_lambda(loss, hyper, counting, batch):
    scaled = loss.problem.parameters.scale(batch.lam)[:, 0]
    counted, calls = counting(hyper)
    evaluate(loss, counted, batch)
    jax.effects_barrier()
    np.testing.assert_allclose(np.sort(calls), np.sort(scaled), rtol=1e-5)
    # It would be noticed if it ran at every point.
    counted, calls = counting(hyper)
    lams = jnp.repeat(batch.lam, 4, axis=0)
    pairs = jax.jit(jax.vmap(lambda lam, p: counted(lam)(p)))
    pairs(lams, batch.items["physics"].reshape(12, 2))
    jax.effects_barrier()
    assert len(calls) == 12


def test_both_modes_of_differentiation_agree_and_reach_every_weight(
    x64, loss, model, batch
):
    flat, unravel = ravel_pytree(eqx.filter(model, eqx.is_array))
    rest = eqx.filter(model, eqx.is_array, inverse=True)

    def total(flat):
        return loss(eqx.combine(unravel(flat), rest), batch).total

    reverse, forward = (jax.jit(d(total))(flat) for d in (jax.grad, jax.jacfwd))
    largest = float(np.max(np.abs(reverse)))
    np.testing.assert_allclose(forward, reverse, rtol=1e-12, atol=1e-13 * largest)
    for leaf in jax.tree.leaves(unravel(reverse)):
        assert np.any(leaf)


def test_a_batch_may_lack_conditions(x64, loss, hyper, batch):
    every = evaluate(loss, hyper, batch).terms
    for names in (["physics"], ["start"], ["physics", "walls"]):
        some = hpx.Batch(batch.lam, {name: batch.items[name] for name in names})
        same(evaluate(loss, hyper, some).terms, {name: every[name] for name in names})


@pytest.mark.parametrize("at_once", [1, 60])
def test_many_lambda_in_blocks_are_as_many_at_once(
    at_once, x64, hyper, loss, getkey, monkeypatch
):
    # Seven λ of 20 evaluations each: blocks of one; of three, and a last of one.
    lam = hpx.log_uniform(loss.problem.parameters, 7, key=getkey())
    points = hpx.uniform(loss.problem.domain, (7, 14), key=getkey())
    batch = loss.sample(hyper, key=getkey(), lam=lam, points=points)

    def value_and_gradient():
        total = lambda model: loss(model, batch).total  # noqa: E731
        return eqx.filter_jit(eqx.filter_value_and_grad(total))(hyper)

    expected = value_and_gradient()
    monkeypatch.setattr(blocks, "_at_once", lambda: at_once)
    same(value_and_gradient(), expected)
    assert "scan" in str(jax.make_jaxpr(lambda m: loss(m, batch).total)(hyper))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_it_is_computed_in_the_precision_of_the_weights(dtype, heat, hyper, batch, x64):
    class Constants(type(heat)):
        """With constants of all types in its methods."""

        def residual(self, u, tx, lam):
            return np.sqrt(2) * super().residual(u, tx, lam)

        def start(self, u, tx, lam):
            value = u.value + jnp.sin(jnp.pi * tx[1])
            return np.array(3) * value * np.array([1.4])[0]

        def walls(self, u, tx, lam):
            return u.value, 0

    model = hpx.cast(hyper, dtype)
    with jax.numpy_dtype_promotion("standard"):
        loss = PINNLoss(Constants(), factor=slope_weight("xx"), n_lam=3, n_points=4)
        want = evaluate(hpx.cast(loss, dtype), model, hpx.cast(batch, dtype)).terms
        for other in (jnp.float32, jnp.float64):
            found = evaluate(loss, model, hpx.cast(batch, other)).terms
            assert {value.dtype for value in found.values()} == {jnp.dtype(dtype)}
            same(found, dict(want), rtol=1e-5)
        drawn = loss.sample(model, key=jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(drawn)} == {jnp.dtype(dtype)}


def test_a_residual_has_the_precision_of_the_network_whatever_the_mode(heat, getkey):
    net = hpx.MainNetSpec((2, 4, 1), heat.domain).init(key=getkey())
    net, point = hpx.cast(net, jnp.float64), np.array([[0.1, 0.2]]) + 1e-12
    outside = hpx.residuals(net, heat, np.array([0.3]), point)
    with jax.enable_x64(True):
        inside = hpx.residuals(net, heat, np.array([0.3]), point)
    assert outside.dtype == np.float64
    np.testing.assert_array_equal(np.asarray(outside), np.asarray(inside))


class Drift(hpx.AbstractPDE):
    """Two parameters, named so that their order counts."""

    domain = hpx.Box(t=(0, 1), x=(-1, 1))
    parameters = hpx.Box(speed=(0, 1), rate=(2, 3))

    def residual(self, u, tx, lam):
        return u.t + lam[0] * u.x + lam[1] * tx[1]

    @hpx.condition(x=(-1, 1))
    def flux(self, u, tx, lam):
        return u.n - lam[0], u.value * u.normal[1] - lam[1]


def test_two_parameters_arrive_as_an_array(unchecked):
    # u_t = x², u_x = 2tx.
    net = lambda p: p[0] * p[1] ** 2  # noqa: E731
    found = hpx.residuals(net, Drift(), [0.5, 3], [[1, 2], [0, -1]])
    np.testing.assert_allclose(found, [4 + 0.5 * 4 + 3 * 2, 1 - 3], rtol=1e-6)
    normal = jnp.array([[0.0, 1], [0, -1]])
    walls = Places(jnp.array([[2.0, 1], [3, -1]]), normal)
    found = condition_residuals(net, Drift(), "flux", [0.5, 3], walls)
    np.testing.assert_allclose(found, [[3.5, -1], [5.5, -6]], rtol=1e-6)


def test_residuals_can_be_weighted(x64, heat, model, batch):
    lam, points = batch.lam[0], batch.items["physics"][0]
    net = model(lam)
    plain = residuals(net, heat, lam, points)
    weighted = residuals(net, heat, lam, points, factor=lambda u: 1 / (1 + u.t**2))
    u_t = jax.jit(jax.vmap(jax.grad(net)))(points)[:, 0]
    np.testing.assert_allclose(weighted, plain / (1 + u_t**2), rtol=1e-12)


def test_slope_weight_is_one_over_one_plus_the_slopes():
    u = hpx.Jet(jnp.zeros(2), {"t": jnp.array([-1.0, 2]), "x": jnp.array([3.0, -5])})
    np.testing.assert_allclose(slope_weight("x")(u), [1 / 4, 1 / 6])
    np.testing.assert_allclose(slope_weight("t", "x")(u), [1 / 5, 1 / 8])
    np.testing.assert_array_equal(slope_weight()(u), [1, 1])
    with pytest.raises(ValueError, match="names"):
        slope_weight("x", "xx")(u)

    def weighted(slope):
        return slope_weight("x")(hpx.Jet(slope, {"x": slope})) * slope

    # 1 / (1 + 3): the weight itself is not differentiated.
    assert jax.grad(weighted)(3.0) == 0.25


@pytest.mark.parametrize("stored", ["xt", "tx"])
def test_a_slope_has_its_letters_in_any_order(stored):
    u = hpx.Jet(jnp.zeros(2), {stored: jnp.array([3.0, -5])})
    for name in ("xt", "tx"):
        np.testing.assert_allclose(slope_weight(name)(u), [1 / 4, 1 / 6])


def test_the_slopes_of_all_fields_count():
    u = hpx.Jet(jnp.zeros(2), {"t": jnp.array([-1.0, 2]), "x": jnp.array([3.0, -5])})
    v = hpx.Jet(jnp.zeros(2), {"x": jnp.array([4.0, 0])})
    np.testing.assert_allclose(slope_weight("x")((u, v)), [1 / 8, 1 / 6])
    np.testing.assert_allclose(slope_weight("t")((u, v)), [1 / 2, 1 / 3])


@pytest.mark.parametrize("name", ["residual", "start", "walls"])
def test_a_problem_that_returns_no_numbers_is_an_error(name, heat):
    method = lambda self, u, *_: u.value * jnp.ones(2)  # noqa: E731
    if name != "residual":
        method = hpx.condition(**{"t": 0} if name == "start" else {"x": 1})(method)
    wrong = type("Wrong", (type(heat),), {name: method})()
    with pytest.raises(ValueError, match=rf"Wrong.{name}"):
        PINNLoss(wrong)


def test_shapes_that_do_not_fit_are_errors(heat, loss, hyper, batch, getkey):
    lam, points = batch.lam, batch.items["physics"]
    for name, bad in {
        "factor": lambda: hpx.residuals(
            hyper(0.1), heat, lam[0], points[0], factor=lambda u: u.t[:, None]
        ),
        "lam": lambda: loss.sample(hyper, key=getkey(), lam=jnp.ones((3, 2))),
        "points": lambda: loss.sample(
            hyper, key=getkey(), lam=lam, points=jnp.ones((3, 4, 3))
        ),
        "weights": lambda: PINNLoss(heat, weights={"data": 1.0}),
        "sample_lam": lambda: PINNLoss(
            heat, sample_lam=lambda box, n, *, key: jnp.ones((n, 2))
        ).sample(hyper, key=getkey()),
        "network": lambda: hpx.residuals(
            lambda p: jnp.stack([p[0], p[1]]), heat, lam[0], points[0]
        ),
    }.items():
        with pytest.raises(ValueError, match=name):
            bad()


@pytest.mark.parametrize(
    ("n", "corners"),
    [
        (8, [(0, 1), (0, 3), (2, 1), (2, 3)]),
        (9, [(0, 1), (0, 3), (2, 1), (2, 3)]),
        (7, [(0, 1), (2, 3)]),
        (2, [(0, 1), (2, 3)]),
    ],
)
def test_all_corners_come_where_they_are_few(n, corners, x64, getkey):
    box = hpx.Box(a=(0, 2), fixed=(7, 7), b=(1, 3, "log"))
    lams, k = corners_and_hypercube(box, n, key=getkey()), len(corners)
    # Of one parameter, both ends come always.
    one = corners_and_hypercube(hpx.Box(k=(0.01, 1.0)), min(n, 3), key=getkey())
    np.testing.assert_allclose(one[:2, 0], [0.01, 1.0])
    assert lams.shape == (n, 3) and jnp.all(lams[:, 1] == 7)
    np.testing.assert_allclose(lams[:k, ::2], corners, rtol=1e-15)
    # The rest is a Latin hypercube of them.
    inside = np.asarray(box.scale(lams[k:]))[:, ::2]
    cells = np.sort(np.floor((inside + 1) / 2 * (n - k)), axis=0)
    np.testing.assert_array_equal(cells, np.arange(n - k)[:, None] * np.ones(2))


def test_the_key_decides_a_batch(loss, hyper):
    draw = functools.partial(loss.sample, hyper)
    first, again, other = (draw(key=jax.random.key(seed)) for seed in (1, 1, 2))
    assert eqx.tree_equal(first, again)
    points, walls = first.items["physics"], first.items["walls"].point
    assert first.lam.shape == (6, 1) and points.shape == (6, 5, 2)
    assert walls.shape == first.items["walls"].normal.shape == (6, 3, 2)
    assert not jnp.any(points == other.items["physics"])
    assert not jnp.any(first.lam[2:] == other.lam[2:])
    # The same λ given are the same batch, and other points change nothing else.
    assert eqx.tree_equal(draw(key=jax.random.key(1), lam=first.lam), first)
    moved = draw(key=jax.random.key(1), points=other.items["physics"])
    assert eqx.tree_equal(moved.lam, first.lam)
    assert eqx.tree_equal(moved.items["walls"], first.items["walls"])
    assert eqx.tree_equal(moved.items["physics"], other.items["physics"])


def test_every_lambda_gets_points_of_its_own_everywhere(loss, hyper, getkey):
    batch = loss.sample(hyper, key=getkey(), lam=[[0.1], [0.5]])
    points, start, walls = (batch.items[n] for n in ("physics", "start", "walls"))
    assert not jnp.any(points[0] == points[1])
    assert jnp.all(start.point[..., 0] == 0) and jnp.all(start.normal[..., 0] == -1)
    np.testing.assert_array_equal(walls.point[..., 1], walls.normal[..., 1])
    assert not jnp.any(start.point[0, :, 1] == start.point[1, :, 1])
    assert not jnp.any(walls.point[0, :, 0] == walls.point[1, :, 0])


@pytest.mark.parametrize("adaptive", [True, False])
def test_adaptive_points_gather_where_the_residual_is_large(
    adaptive, heat, hyper, getkey
):
    class Spiky(type(heat)):
        """Of which the residual is large in a tenth of the domain, near x = κ."""

        def residual(self, u, tx, lam):
            return jnp.where(jnp.abs(tx[1] - lam) < 0.1, 1.0, 0.0) + 0 * u.t

    # They do so unless told not to.
    options = {} if adaptive else {"adaptive": False}
    loss = PINNLoss(Spiky(), n_points=400, weights=ONLY_PHYSICS, **options)
    batch = loss.sample(hyper, key=getkey(), lam=[[0.2], [0.8]])
    for lam, points in zip(batch.lam, batch.items["physics"], strict=True):
        share = jnp.mean(jnp.abs(points[:, 1] - lam) < 0.1)
        assert (0.4 < share < 0.6) if adaptive else (share < 0.2)


def test_lambda_may_be_drawn_in_another_way(heat, hyper):
    def middle(box, n, *, key):
        return jnp.full((n, len(box)), 0.3)

    for way, low, high in ((middle, 0.3, 0.3), (hpx.log_uniform, 0.01, 1.0)):
        loss = PINNLoss(heat, n_lam=400, n_points=3, sample_lam=way, adaptive=False)
        lam = loss.sample(hyper, key=jax.random.key(2)).lam
        middle_of_all = np.sqrt(low * high)
        assert np.isclose(np.exp(np.mean(np.log(lam))), middle_of_all, rtol=0.3)
        assert lam.shape == (400, 1)
        assert np.all((lam > 0.999 * low) & (lam < 1.001 * high))


def test_a_network_that_may_jump_at_zero_unseen_is_told_of(heat, getkey):
    class Middle(type(heat)):
        @hpx.condition(x=0)
        def middle(self, u, tx, lam):
            return u.value

    spec = hpx.MainNetSpec((2, 3, 1), heat.domain, odd="x")
    odd = hpx.HyperPINN(spec, heat.parameters, (2,), key=getkey())
    with pytest.warns(UserWarning, match="x = 0"):
        PINNLoss(heat, n_lam=2).sample(odd, key=getkey())
    PINNLoss(Middle(), n_lam=2).sample(odd, key=getkey())
