import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import Journal, Path, TrainingStopped, continuation, distill

pytestmark = pytest.mark.usefixtures("x64")
SHORT = {"first": 2, "steps": 2, "progress": False}


def loss_of(problem, n_points=100):
    return hpx.PINNLoss(problem, n_points=n_points, n_conditions=20)


@pytest.fixture
def start(heat, getkey):
    """A network of 33 weights, enough for one κ."""
    spec = hpx.MainNetSpec((2, 8, 1), heat.domain)
    return eqx.filter_jit(spec.init)(key=getkey())


def test_each_lambda_is_solved_from_its_neighbour(heat, start, getkey):
    lams = jnp.array([[0.1], [0.09], [0.05], [0.03]])
    loss, options = loss_of(heat), {"first": 20, "progress": False, "key": getkey()}
    path = continuation(start, loss, lams, steps=6, **options)
    assert path.history["total"].shape == (4,)
    np.testing.assert_array_equal(path.model.lam, lams)
    # At points of its own.
    points = eqx.filter_jit(hpx.uniform)(heat.domain, (1, 200), key=getkey())
    key = getkey()

    @eqx.filter_jit
    def total(net, lam):
        family = hpx.SingleNet(net, heat.parameters)
        batch = loss.sample(
            family, key=jax.random.clone(key), lam=lam[None], points=points
        )
        return loss(family, batch).total

    for lam, theta in zip(lams, path.model.weights, strict=True):
        assert total(start.spec.unflatten(theta), lam) < 0.05 * total(start, lam)
    # One step from the start could not go that far.
    first, second = continuation(
        start, loss, lams[:2], steps=1, **options
    ).model.weights
    way = jnp.linalg.norm(first - start.flatten())
    assert jnp.linalg.norm(second - first) < 0.5 * way
    found = total(start.spec.unflatten(second), lams[1])
    assert found < 0.05 * total(start, lams[1])


def test_a_path_that_breaks_off_keeps_the_rest_and_goes_on(
    heat, start, stop_at, tmp_path, getkey
):
    class SpoiltAt(type(heat)):
        """Of which the start is not a number at one κ."""

        spoilt: float = eqx.field(static=True)

        def start(self, u, tx, lam):
            good = u.value + jnp.sin(jnp.pi * tx[1])
            return jnp.where(lam == self.spoilt, jnp.nan, good)

    lams, options = jnp.array([[0.5], [0.25], [0.125]]), {**SHORT, "key": getkey()}
    good, bad = (loss_of(SpoiltAt(at), 20) for at in (9.0, 0.125))
    whole, path = continuation(start, good, lams, **options), tmp_path / "path.journal"
    with pytest.raises(TrainingStopped, match=r"0\.125") as caught:
        journal = Journal(path, {}, every=0.0)
        continuation(start, bad, lams, journal=journal, **options)
    result = caught.value.result
    assert result.history["total"].shape == (2,)
    np.testing.assert_array_equal(result.model.lam, lams[:2])
    np.testing.assert_array_equal(result.model.weights, whole.model.weights[:2])
    stopped = tmp_path / "stopped.journal"
    with pytest.raises(hpx.Stopped):
        journal = stop_at("continuation", 2)(stopped, {})
        continuation(start, good, lams, journal=journal, **options)
    # Either goes on from the last good λ.
    for kept in (path, stopped):
        journal = Journal(kept, {}, resume=True)
        resumed = continuation(start, good, lams, journal=journal, **options)
        np.testing.assert_array_equal(resumed.model.weights, whole.model.weights)
        totals = resumed.history["total"]
        np.testing.assert_array_equal(totals, whole.history["total"])


def test_what_cannot_be_followed_is_an_error(heat, start, hyper, getkey):
    lams, loss, options = jnp.array([[0.1]]), loss_of(heat), {**SHORT, "key": getkey()}
    spoilt = start.biases[0].at[1].set(jnp.nan)
    for said, net, lam in (
        ("net", hpx.cast(start, jnp.float32), lams),
        ("net", eqx.tree_at(lambda n: n.biases[0], start, spoilt), lams),
        ("kappa", start, 0 * lams),
        ("kappa", start, -lams),
    ):
        with pytest.raises(ValueError, match=said):
            continuation(net, loss, lam, **options)
    lams, ones = jnp.array([[0.1], [0.2]]), jnp.ones((2, 25))
    for said, model, path in (
        ("path.weights", hyper, Path(lams, ones.at[1, 7].set(jnp.inf))),
        ("path.weights", hpx.cast(hyper, jnp.float32), Path(lams, ones)),
        ("lam", hyper, Path(lams.at[1].set(jnp.nan), ones)),
        ("kappa", hyper, Path(-lams, ones)),
    ):
        with pytest.raises(ValueError, match=said):
            distill(model, path, key=getkey())


def test_a_distillation_that_explodes_keeps_the_last_good_model(
    hyper, getkey, monkeypatch
):
    monkeypatch.setattr(optax, "adam", lambda rate: optax.sgd(np.inf))
    path = Path(jnp.array([[0.1], [0.2]]), jnp.stack([jnp.zeros(25), jnp.ones(25)]))
    with pytest.raises(TrainingStopped) as caught:
        distill(hyper, path, steps=3, key=getkey(), progress=False)
    model = caught.value.result.model
    assert isinstance(model, hpx.HyperPINN)
    assert eqx.tree_equal(model.trunk, hyper.trunk)
    np.testing.assert_allclose(model.theta0, np.full(25, 0.5))


@pytest.mark.parametrize("mode", [True, False])
def test_distillation_brings_the_hypernetwork_onto_the_path(mode, hyper, getkey):
    # A path in three directions, as many as the hypernetwork has features.
    lams = jnp.geomspace(1.0, 0.01, 5)[:, None]
    rng = np.random.default_rng(0)
    z, directions = rng.normal(size=(5, 3)), rng.normal(size=(3, hyper.main.size))
    weights = jnp.asarray(np.cumsum(z, axis=0) @ directions)
    if not mode:
        hyper, lams, weights = hpx.cast((hyper, lams, weights), jnp.float32)
    options = {"steps": 2000, "rate": 2e-2, "key": getkey(), "progress": False}
    with jax.enable_x64(mode):
        result = distill(hyper, Path(lams, weights), **options)
        found = jax.vmap(lambda lam: result.model(lam).flatten())(lams)
    assert found.dtype == weights.dtype and not eqx.tree_equal(result.model, hyper)
    found, weights = np.asarray(found), np.asarray(weights)
    variance = np.mean((weights - weights.mean(0)) ** 2)
    assert np.mean((found - weights) ** 2) < 0.01 * variance
    np.testing.assert_array_less(0, result.history["features"])


def test_what_the_features_cannot_hold_is_what_a_truncated_path_loses(hyper, getkey):
    # A path that needs more directions than there are features: no head is better
    # than the singular vectors.
    lams = jnp.geomspace(1.0, 0.01, 6)[:, None]
    path = jnp.asarray(np.random.default_rng(0).normal(size=(6, hyper.main.size)))
    model = distill(
        hyper, Path(lams, path), steps=1, key=getkey(), progress=False
    ).model
    best = np.linalg.svd(path - jnp.mean(path, axis=0, keepdims=True))[2][:3]
    inside = model.head.T @ best.T @ best
    np.testing.assert_allclose(inside, model.head.T, atol=1e-12)
    np.testing.assert_allclose(model.theta0, jnp.mean(path, axis=0), atol=1e-14)
