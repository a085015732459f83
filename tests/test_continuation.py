import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import PINNRows, distill, follow
from hyperpinn_eqx.continuation import SingleNet
from hyperpinn_eqx.journal import Journal, Stopped

pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture
def rows(heat, getkey):
    initial, boundary = eqx.filter_jit(hpx.conditions)(heat, 20, 20, key=getkey())
    return PINNRows(heat, initial, boundary, n_points=100)


@pytest.fixture
def start(heat, getkey):
    """A network of 33 weights, enough for one κ."""
    spec = hpx.MainNetSpec((2, 8, 1), heat.domain)
    return eqx.filter_jit(spec.init)(key=getkey())


def loss_at(rows, lam, net, getkey):
    """The loss of one network at one λ, at points of its own."""
    batch = hpx.Batch(
        lam[None],
        eqx.filter_jit(hpx.uniform)(rows.problem.domain, (1, 200), key=getkey()),
        rows.initial,
        rows.boundary,
    )

    family = SingleNet(net, rows.problem.parameters)
    return eqx.filter_jit(hpx.pinn_loss)(family, rows.problem, batch).total


def test_the_path_solves_the_problem_at_each_lambda(rows, start, getkey):
    lams = jnp.array([[0.1], [0.05], [0.03]])
    result = follow(start, rows, lams, first=20, steps=6, key=getkey(), progress=False)
    assert result.model.shape == (3, start.spec.size)
    assert result.history["total"].shape == (3,)
    for lam, theta in zip(lams, result.model, strict=True):
        found = loss_at(rows, lam, start.spec.unflatten(theta), getkey)
        assert found < 0.05 * loss_at(rows, lam, start, getkey)


def test_each_lambda_starts_from_its_neighbour(rows, start, getkey):
    # One step from the start could not go that far.
    lams = jnp.array([[0.1], [0.09]])
    result = follow(start, rows, lams, first=15, steps=1, key=getkey(), progress=False)
    first, second = result.model
    way = jnp.linalg.norm(first - start.flatten())
    assert jnp.linalg.norm(second - first) < 0.5 * way
    found = loss_at(rows, lams[1], start.spec.unflatten(second), getkey)
    assert found < 0.05 * loss_at(rows, lams[1], start, getkey)


def test_a_stopped_path_goes_on_to_the_same_weights(
    rows, start, stop_at, tmp_path, getkey
):
    lams, key = jnp.array([[0.1], [0.05], [0.03]]), getkey()

    def run(journal):
        options = {"first": 3, "steps": 2, "key": key, "progress": False}
        return follow(start, rows, lams, journal=journal, **options)

    path = tmp_path / "path.journal"
    with pytest.raises(Stopped, match="step 2 of 'continuation'"):
        run(stop_at("continuation", 2)(path, {}))
    resumed, whole = run(Journal(path, {}, resume=True)), run(None)
    np.testing.assert_array_equal(resumed.model, whole.model)
    np.testing.assert_array_equal(resumed.history["total"], whole.history["total"])


def test_distillation_brings_the_hypernetwork_onto_the_path(hyper, getkey):
    # A path in three directions, as many as the hypernetwork has features.
    lams = jnp.geomspace(1.0, 0.01, 5)[:, None]
    rng = np.random.default_rng(0)
    z, directions = rng.normal(size=(5, 3)), rng.normal(size=(3, hyper.main.size))
    path = jnp.asarray(np.cumsum(z, axis=0) @ directions)

    @eqx.filter_jit
    def distance(model):
        return jnp.mean((jax.vmap(lambda lam: model(lam).flatten())(lams) - path) ** 2)

    result = distill(
        hyper, lams, path, steps=2000, rate=2e-2, key=getkey(), progress=False
    )
    spread = jnp.mean((path - jnp.mean(path, axis=0, keepdims=True)) ** 2)
    assert distance(result.model) < 0.01 * spread
    np.testing.assert_array_less(0, result.history["features"])


def test_what_the_features_cannot_hold_is_what_a_truncated_path_loses(hyper, getkey):
    # A path that needs more directions than there are features: no head is better
    # than the singular vectors.
    lams = jnp.geomspace(1.0, 0.01, 6)[:, None]
    path = jnp.asarray(np.random.default_rng(0).normal(size=(6, hyper.main.size)))
    result = distill(hyper, lams, path, steps=1, key=getkey(), progress=False)
    centred = path - jnp.mean(path, axis=0, keepdims=True)
    best = np.linalg.svd(centred)[2][:3]
    inside = result.model.head.T @ best.T @ best
    np.testing.assert_allclose(inside, result.model.head.T, atol=1e-12)
    np.testing.assert_allclose(result.model.theta0, jnp.mean(path, axis=0), atol=1e-14)


def test_distillation_leaves_the_model_it_was_given(hyper, getkey):
    before = hyper.theta0.copy()
    path = jnp.ones((2, hyper.main.size))
    distill(
        hyper, jnp.array([[0.1], [0.2]]), path, steps=1, key=getkey(), progress=False
    )
    np.testing.assert_array_equal(hyper.theta0, before)
