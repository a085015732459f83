import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from hyperpinn_eqx.loss import AbstractRows
from hyperpinn_eqx.networks.model import SingleNet
from hyperpinn_eqx.training.linear_system import (
    System,
    compressed_rows,
    dense_jacobian,
    hyper_kernel,
    linearise,
    solve,
)

pytestmark = pytest.mark.usefixtures("x64")

LAMS = np.array([[0.02], [0.2], [0.9]])


def row(net, lam, item):
    """Regression of a function of (t, x, λ) that a tiny network cannot hold."""
    t, x = item["point"]
    return item["scale"] * (net(item["point"]) - jnp.sin(3 * x * lam[0] + t))


@pytest.fixture
def items(request):
    """K rows for each λ; more or fewer than the 25 weights of the main network."""
    rng = np.random.default_rng(0)
    k = getattr(request, "param", 6)
    return {
        "point": jnp.asarray(rng.uniform(-1, 1, (3, k, 2))),
        "scale": jnp.asarray(rng.uniform(0.5, 1, (3, k))),
    }


def at_the_second_lambda(items):
    return {k: jnp.asarray(np.asarray(v)[1]) for k, v in items.items()}


@pytest.fixture
def single(heat, hyper, getkey):
    """A family of one network, as continuation moves it along λ."""
    return SingleNet(eqx.filter_jit(hyper.main.init)(key=getkey()), heat.parameters)


@eqx.filter_jit
def residuals(model, items):
    def one(lam, items):
        net = model(lam)
        return jax.vmap(lambda item: row(net, lam, item))(items)

    r = [
        one(lam, jax.tree.map(lambda a, i=i: a[i], items)) for i, lam in enumerate(LAMS)
    ]
    return jnp.concatenate(r) / np.sqrt(len(LAMS))


def jacobian(model, items):
    """All rows by all parameters, as if there were no structure."""
    flat, unravel = ravel_pytree(model)
    return np.asarray(jax.jit(jax.jacrev(lambda p: residuals(unravel(p), items)))(flat))


def levenberg(model, items, damping):
    """One damped step by the normal equations."""
    flat, unravel = ravel_pytree(model)
    J, r = jacobian(model, items), np.asarray(residuals(model, items))
    step = np.linalg.solve(J.T @ J + damping * np.eye(J.shape[1]), -J.T @ r)
    return unravel(flat + step)


def one_step(model, items, *, rank=128, damping=0.1, trained=None):
    """The model after one step of a given damping, and the promised fall."""
    if trained is None:
        trained = jax.tree.map(eqx.is_inexact_array, model)
    key, lams = jax.random.key(0), jnp.asarray(LAMS)
    system = linearise(row, rank, trained, model, lams, items, key)
    return solve(trained, model, lams, system, jnp.asarray(damping))


def assert_is_the_dense_step(model, items, **options):
    found, promised = one_step(model, items, **options)
    start, found, wanted = (
        ravel_pytree(m)[0] for m in (model, found, levenberg(model, items, 0.1))
    )
    step = np.asarray(wanted - start)
    assert np.linalg.norm(step) > 0.1
    np.testing.assert_allclose(found - start, step, rtol=1e-7, atol=1e-10)
    r = np.asarray(residuals(model, items))
    fall = np.sum(r**2) - np.sum((r + jacobian(model, items) @ step) ** 2)
    np.testing.assert_allclose(promised, fall, rtol=1e-8)


@pytest.mark.parametrize(
    ("kind", "items"),
    [("hyper", 40), ("concat", 40), ("single", 6)],
    indirect=["items"],
)
def test_a_step_is_the_dense_levenberg_marquardt_step(kind, items, request):
    assert_is_the_dense_step(request.getfixturevalue(kind), items)


@pytest.mark.parametrize("kind", ["hyper", "concat"])
def test_few_rows_go_through_the_dual_system(kind, items, request):
    # 3 λ with 6 rows make 18 rows, against 123 and 29 parameters.
    assert_is_the_dense_step(request.getfixturevalue(kind), items, rank=6)


@pytest.mark.parametrize("rank", [6, 128])
def test_what_is_frozen_stays_and_the_rest_makes_its_own_step(hyper, items, rank):
    def trunk(model):
        return model.weights, model.biases

    all_of_it = jax.tree.map(eqx.is_inexact_array, hyper)
    trained = eqx.tree_at(trunk, all_of_it, replace_fn=lambda _: False)
    found, _ = one_step(hyper, items, rank=rank, trained=trained)
    assert eqx.tree_equal(trunk(found), trunk(hyper))
    # The head and θ₀ are the last leaves.
    free = sum(leaf.size for leaf in (hyper.head, hyper.theta0))
    J, r = jacobian(hyper, items)[:, -free:], np.asarray(residuals(hyper, items))
    step = np.linalg.solve(J.T @ J + 0.1 * np.eye(free), -J.T @ r)
    found = ravel_pytree(found)[0] - ravel_pytree(hyper)[0]
    np.testing.assert_allclose(found[-free:], step, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("rank", [25, 7])
def test_repeated_rows_do_no_harm(hyper, items, rank):
    # 60 rows of rank 6 at each λ: a random sketch of 7 directions holds them all.
    items = {k: jnp.asarray(np.repeat(v, 10, axis=1)) for k, v in items.items()}
    found, _ = one_step(hyper, items, rank=rank)
    wanted = ravel_pytree(levenberg(hyper, items, 0.1))[0]
    np.testing.assert_allclose(ravel_pytree(found)[0], wanted, rtol=1e-6, atol=1e-8)


def sketch(rank):
    return jax.random.normal(jax.random.key(0), (25, rank))


@pytest.mark.parametrize("items", [6, 40], indirect=True)
def test_compressed_rows_keep_the_normal_equations(hyper, items):
    lam, here = jnp.asarray(LAMS[1]), at_the_second_lambda(items)
    spec, theta = hyper.main, eqx.filter_jit(lambda m: m(lam).flatten())(hyper)

    def r(theta):
        net = spec.unflatten(theta)
        return jax.vmap(lambda item: row(net, lam, item))(here)

    A, expected = jax.jit(jax.jacrev(r))(theta), jax.jit(r)(theta)
    rows, values = eqx.filter_jit(compressed_rows)(row, sketch(25), hyper, lam, here)
    assert rows.shape == (min(25, len(A)), 25)
    np.testing.assert_allclose(rows.T @ rows, A.T @ A, atol=1e-12, rtol=0)
    np.testing.assert_allclose(rows.T @ values, A.T @ expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("items", [40], indirect=True)
def test_fewer_rows_are_a_projection_on_most_of_what_matters(hyper, items):
    lam, here = jnp.asarray(LAMS[1]), at_the_second_lambda(items)
    compress = eqx.filter_jit(compressed_rows)
    whole, _ = compress(row, sketch(25), hyper, lam, here)
    part, _ = compress(row, sketch(12), hyper, lam, here)
    assert part.shape == (12, 25)
    gone = whole.T @ whole - part.T @ part
    # Nothing is added, and what is lost is small.
    assert np.linalg.eigvalsh(gone).min() > -1e-12
    assert np.trace(gone) < 0.02 * np.trace(whole.T @ whole)


# Fewer rows for each λ than the trunk has features, and more.
@pytest.mark.parametrize("k", [2, 4])
def test_the_kernel_of_a_hyperpinn_is_that_of_its_dense_jacobian(k, hyper):
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(3, k, 25)))
    flat, unravel = ravel_pytree(hyper)

    def seen(p):
        thetas = jnp.stack([unravel(p)(lam).flatten() for lam in jnp.asarray(LAMS)])
        return jnp.einsum("mkp,mp->mk", rows, thetas).ravel()

    J = jax.jit(jax.jacrev(seen))(flat)
    lams = jnp.asarray(LAMS)
    dense = eqx.filter_jit(dense_jacobian)(hyper, lams, rows)
    np.testing.assert_allclose(dense, J, rtol=1e-12, atol=1e-13)
    kernel = eqx.filter_jit(hyper_kernel)(hyper, lams, rows)
    np.testing.assert_allclose(kernel, J @ J.T, rtol=1e-11, atol=1e-12)


def test_the_hypernetwork_runs_once_for_all_rows_of_a_lambda(hyper, items, counting):
    counted, calls = counting(hyper)
    lam, here = jnp.asarray(LAMS[1]), at_the_second_lambda(items)
    eqx.filter_jit(compressed_rows)(row, sketch(25), counted, lam, here)
    jax.effects_barrier()
    assert len(calls) == 1


class Kinds(AbstractRows):
    """The rows above as two kinds, and between them one that has no items."""

    @property
    def groups(self):
        def broken(net, lam, item):
            return jnp.nan * net(item["point"])

        return row, broken, row


@pytest.mark.parametrize("rank", [25, 4], ids=["primal", "dual"])
def test_rows_of_several_kinds_make_the_system_of_all(rank, hyper, items):
    trained = jax.tree.map(eqx.is_inexact_array, hyper)
    parts = tuple(
        jax.tree.map(lambda a, part=part: a[:, part], items)
        for part in (slice(0, 2), slice(0, 0), slice(2, 6))
    )
    one, other = (
        linearise(rows, rank, trained, hyper, jnp.asarray(LAMS), of, jax.random.key(0))
        for rows, of in ((row, items), (Kinds(), parts))
    )
    for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["hyper", "concat", "single"])
@pytest.mark.parametrize("rank", [25, 6], ids=["primal", "dual"])
def test_the_size_of_a_system_is_that_of_the_jacobian(kind, rank, items, request):
    model = request.getfixturevalue(kind)
    trained = jax.tree.map(eqx.is_inexact_array, model)
    batch = jnp.asarray(LAMS), items
    system = linearise(row, rank, trained, model, *batch, jax.random.key(0))
    expected = np.sum(jacobian(model, items) ** 2)
    np.testing.assert_allclose(system.size, expected, rtol=1e-10)

    def steep(net, lam, item):
        # One residual at one λ is finite, but has a root of 0 in it.
        value = row(net, lam, item)
        here = item["scale"] == items["scale"][1, 2]
        gap = value - jax.lax.stop_gradient(value)
        return value + jnp.sqrt(gap + jnp.where(here, 0.0, 1.0))

    spoilt = linearise(steep, rank, trained, model, *batch, jax.random.key(0))
    assert not jnp.isfinite(spoilt.size)


def test_a_matrix_that_cannot_be_factorised_gives_nan(single):
    # Of rank 1, with a second pivot of exactly 0.
    n = single.net.spec.size
    system = System(jnp.full((n, n), 4.0), jnp.ones(n), None)
    trained = jax.tree.map(eqx.is_inexact_array, single)
    model, promised = solve(trained, single, jnp.asarray(LAMS), system, jnp.array(0.0))
    assert jnp.isnan(promised)
    assert all(jnp.all(jnp.isnan(leaf)) for leaf in jax.tree.leaves(model))
