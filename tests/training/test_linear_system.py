import functools
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import hyperpinn_eqx as hpx
from hyperpinn_eqx.training.linear_system import (
    System,
    compressed_rows,
    dense_jacobian,
    hyper_kernel,
    linearise,
    solve,
)

module = sys.modules["hyperpinn_eqx.training.linear_system"]
pytestmark = pytest.mark.usefixtures("x64")

LAMS = np.array([[0.02], [0.2], [0.9]])


def value(net, lam, at):
    """Regression of a function of (t, x, λ) that a tiny network cannot hold."""
    t, x = at["point"].T
    return at["scale"] * (jax.vmap(net)(at["point"]) - jnp.sin(3 * x * lam[0] + t))


def pair(net, lam, at):
    u = jax.vmap(net)(at["point"])
    return jnp.stack([u - at["point"][:, 1], u**2 * at["scale"]], axis=1)


class Regression(hpx.AbstractLeastSquares):
    """One residual for each item and two, and a term without items."""

    residuals: dict

    @property
    def terms(self):
        found = {n: hpx.Term(f, w) for n, (f, w) in self.residuals.items()}
        return {"none": hpx.Term(lambda net, lam, at: jnp.nan * at), **found}

    def sample(self, model, *, key):
        raise NotImplementedError


LOSS = Regression({"value": (value, 0.5), "pair": (pair, 3.0)})


def batch(k, repeat=1):
    """K items for each λ and term: 3 k rows, against 25 weights of the main network."""
    rng = np.random.default_rng(0)

    def part():
        point, scale = rng.uniform(-1, 1, (3, k, 2)), rng.uniform(0.5, 1, (3, k))
        return {"point": point, "scale": scale}

    items = {"value": part(), "none": np.ones((3, 0)), "pair": part()}
    repeated = jax.tree.map(lambda a: np.repeat(a, repeat, axis=1), items)
    return hpx.Batch(LAMS, repeated)


def residuals(net, lam, items):
    """All residuals at one λ, such that their squares add up to its loss."""
    pairs = [(f(net, lam, items[n]), w) for n, (f, w) in LOSS.residuals.items()]
    return jnp.concatenate([np.sqrt(w / r.size) * r.ravel() for r, w in pairs])


def at(i, batch):
    """The i-th λ and its items."""
    return jnp.asarray(LAMS[i]), jax.tree.map(lambda a: a[i], batch.items)


@eqx.filter_jit
def all_residuals(model, batch):
    places = [at(i, batch) for i in range(3)]
    found = [residuals(model(lam), lam, items) for lam, items in places]
    return jnp.concatenate(found) / np.sqrt(3)


def jacobian(model, batch):
    """All rows by all parameters, as if there were no structure."""
    flat, unravel = ravel_pytree(model)
    f = jax.jit(jax.jacrev(lambda p: all_residuals(unravel(p), batch)))
    return np.asarray(f(flat))


def dense_step(model, batch, free=slice(None), damping=0.1):
    """The step by the normal equations, the fall it promises, and how far it bends."""
    J, r = jacobian(model, batch)[:, free], np.asarray(all_residuals(model, batch))
    matrix = J.T @ J + damping * np.eye(J.shape[1])
    step = np.linalg.solve(matrix, -J.T @ r)
    flat, unravel = ravel_pytree(model)
    whole = np.zeros(flat.size)
    whole[free] = step
    h = 0.05
    before, after = (
        np.asarray(all_residuals(unravel(flat + s * whole), batch)) for s in (-h, h)
    )
    bend = np.linalg.solve(matrix, -J.T @ (before - 2 * r + after) / h**2)
    ratio = 2 * np.linalg.norm(bend) / np.linalg.norm(step)
    bent = step + bend / 2 if ratio <= 0.75 else step
    return bent, np.sum(r**2) - np.sum((r + J @ step) ** 2), ratio


def every(model):
    return jax.tree.map(eqx.is_inexact_array, model)


def one_step(model, batch, rank, trained=None, damping=0.1):
    trained = every(model) if trained is None else trained
    batch = jax.tree.map(jnp.asarray, batch)
    system = linearise(LOSS, rank, trained, model, batch, jax.random.key(0))
    step = eqx.filter_jit(functools.partial(solve, LOSS, trained))
    found, promised = step(model, batch, system, jnp.asarray(damping))
    return found, ravel_pytree(found)[0] - ravel_pytree(model)[0], promised


@pytest.fixture
def single(heat, hyper, getkey):
    """A family of one network, as continuation moves it along λ."""
    return hpx.SingleNet(eqx.filter_jit(hyper.main.init)(key=getkey()), heat.parameters)


# Primal, and with few rows dual: 18 rows against 123, 29 or 25 parameters.
@pytest.mark.parametrize(("k", "rank"), [(14, 128), (2, 6)], ids=["primal", "dual"])
@pytest.mark.parametrize("kind", ["hyper", "concat", "single"])
# Where the model is hardly bent, and where it is too much.
@pytest.mark.parametrize("damping", [40.0, 1e-2])
def test_a_step_is_the_dense_levenberg_marquardt_step(kind, k, rank, damping, request):
    model = request.getfixturevalue(kind)
    _, found, promised = one_step(model, batch(k), rank, damping=damping)
    step, fall, ratio = dense_step(model, batch(k), damping=damping)
    assert 1e-3 < ratio < 0.7 if damping == 40 else ratio > 0.8
    np.testing.assert_allclose(found, step, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(promised, fall, rtol=1e-8)


@pytest.mark.parametrize("kind", ["hyper", "concat"])
def test_rows_that_were_cut_count_all_the_same(kind, request, monkeypatch):
    model, some = request.getfixturevalue(kind), batch(14)
    step, fall, _ = dense_step(model, some, damping=1e-2)

    def off():
        # 8 of 25 directions for each of three λ.
        _, found, promised = one_step(model, some, 8, damping=1e-2)
        return np.linalg.norm(found - step) / np.linalg.norm(step), promised / fall

    refined, promised = off()
    monkeypatch.setattr(module, "_REFINED", 0)
    cut, less = off()
    assert cut > 0.1 and refined < 0.05 * cut
    assert abs(promised - 1) < 1e-2 * abs(less - 1)


@pytest.mark.parametrize("rank", [6, 128])
def test_what_is_frozen_stays_and_the_rest_makes_its_own_step(hyper, rank):
    trained = eqx.tree_at(lambda m: m.trunk, every(hyper), replace_fn=lambda _: False)
    model, found, _ = one_step(hyper, batch(2), rank, trained)
    assert eqx.tree_equal(model.trunk, hyper.trunk)
    # The head and θ₀ are the last leaves.
    free = slice(-hyper.head.size - hyper.theta0.size, None)
    step, *_ = dense_step(hyper, batch(2), free)
    np.testing.assert_allclose(found[free], step, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("rank", [25, 7])
def test_repeated_rows_do_no_harm(hyper, rank):
    # 60 rows of rank 6 at each λ: a random sketch of 7 directions holds them all.
    _, found, _ = one_step(hyper, batch(2, repeat=10), rank)
    step, *_ = dense_step(hyper, batch(2))
    np.testing.assert_allclose(found, step, rtol=1e-6, atol=1e-8)


def compressed(model, k, rank):
    """The rows at the second λ, of at most so many directions."""
    sketch = jax.random.normal(jax.random.key(0), (25, rank))
    f = eqx.filter_jit(compressed_rows)
    return f(LOSS, sketch, model, *at(1, batch(k)))


@pytest.mark.parametrize("k", [2, 14])
def test_compressed_rows_keep_the_normal_equations(hyper, k):
    lam, items = at(1, batch(k))
    theta = hyper(lam).flatten()

    def r(theta):
        return residuals(hyper.main.unflatten(theta), lam, items)

    A, expected = jax.jit(jax.jacrev(r))(theta), r(theta)
    rows, found, _ = compressed(hyper, k, 25)
    assert rows.shape == (min(25, 3 * k), 25)
    np.testing.assert_allclose(rows.T @ rows, A.T @ A, atol=1e-12, rtol=0)
    np.testing.assert_allclose(rows.T @ found, A.T @ expected, atol=1e-12, rtol=0)


def test_fewer_rows_are_a_projection_on_most_of_what_matters(hyper):
    (whole, *_), (part, *_) = (compressed(hyper, 14, rank) for rank in (25, 12))
    assert part.shape == (12, 25)
    gone = whole.T @ whole - part.T @ part
    # Nothing is added, and what is lost is small.
    assert np.linalg.eigvalsh(gone).min() > -1e-12
    assert np.trace(gone) < 0.02 * np.trace(whole.T @ whole)


# Fewer rows for each λ than the trunk has features, and more.
@pytest.mark.parametrize("k", [2, 4])
def test_the_kernel_of_a_hyperpinn_is_that_of_its_dense_jacobian(k, hyper):
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(3, k, 25)))
    lams, (flat, unravel) = jnp.asarray(LAMS), ravel_pytree(hyper)

    def seen(p):
        thetas = jnp.stack([unravel(p)(lam).flatten() for lam in lams])
        return jnp.einsum("mkp,mp->mk", rows, thetas).ravel()

    J = jax.jit(jax.jacrev(seen))(flat)
    dense = eqx.filter_jit(dense_jacobian)(hyper, lams, rows)
    np.testing.assert_allclose(dense, J, rtol=1e-12, atol=1e-13)
    kernel = eqx.filter_jit(hyper_kernel)(hyper, lams, rows)
    np.testing.assert_allclose(kernel, J @ J.T, rtol=1e-11, atol=1e-12)


def test_the_hypernetwork_runs_once_for_all_rows_of_a_lambda(hyper, counting):
    counted, calls = counting(hyper)
    compressed(counted, 14, 25)
    jax.effects_barrier()
    assert len(calls) == 1


@pytest.mark.parametrize("kind", ["hyper", "concat", "single"])
@pytest.mark.parametrize("rank", [25, 6])
def test_the_size_of_a_system_is_that_of_the_jacobian(kind, rank, request):
    model, some = request.getfixturevalue(kind), batch(2)

    def system(loss):
        return linearise(loss, rank, every(model), model, some, jax.random.key(0))

    expected = np.sum(jacobian(model, some) ** 2)
    np.testing.assert_allclose(system(LOSS).size, expected, rtol=1e-10)
    # Primal where that is smaller than so many rows for each of three λ could be.
    parameters = hpx.count_parameters(model)
    assert len(system(LOSS).matrix) == (parameters if parameters <= 3 * rank else 18)

    def steep(net, lam, at):
        # One residual at one λ is finite, but has a root of 0 in it.
        r = value(net, lam, at)
        here = at["scale"] == some.items["value"]["scale"][1, 1]
        return r + jnp.sqrt(r - jax.lax.stop_gradient(r) + jnp.where(here, 0.0, 1.0))

    spoilt = Regression({"value": (steep, 1.0), "pair": (pair, 1.0)})
    assert not jnp.isfinite(system(spoilt).size)


def test_a_matrix_that_cannot_be_factorised_gives_nan(single):
    # Of rank 1, with a second pivot of exactly 0.
    n = single.net.spec.size
    system = System(jnp.full((n, n), 4.0), jnp.ones(n), None)
    some, none = jax.tree.map(jnp.asarray, batch(2)), jnp.array(0.0)
    model, promised = solve(LOSS, every(single), single, some, system, none)
    assert jnp.isnan(promised)
    assert all(jnp.all(jnp.isnan(leaf)) for leaf in jax.tree.leaves(model))
