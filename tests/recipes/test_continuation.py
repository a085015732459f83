import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import PINNRows, TrainingStopped, distill, follow
from hyperpinn_eqx.networks.model import SingleNet
from hyperpinn_eqx.training.journal import Journal, Stopped

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


class SpoiltAt(hpx.AbstractPDE):
    """The heat equation, but for one κ at which its start is not a number."""

    domain = hpx.Box(t=(0, 1), x=(-1, 1))
    parameters = hpx.Box(kappa=(0.01, 1.0, "log"))
    derivatives = ("t", "xx")
    spoilt: float = eqx.field(static=True)

    def residual(self, u, tx, lam):
        return u.t - lam * u.xx

    def initial(self, tx, lam):
        return jnp.where(lam == self.spoilt, jnp.nan, -jnp.sin(jnp.pi * tx[1]))

    def boundary(self, tx, lam):
        return jnp.zeros(())


def test_a_path_that_breaks_off_names_its_lambda_and_keeps_the_rest(
    rows, start, tmp_path, getkey
):
    lams, key = jnp.array([[0.5], [0.25], [0.125], [0.0625]]), getkey()
    good, bad = (
        PINNRows(SpoiltAt(at), rows.initial, rows.boundary, 20) for at in (9.0, 0.125)
    )
    options = {"first": 2, "steps": 2, "key": key, "progress": False}
    path = tmp_path / "path.journal"
    with pytest.raises(TrainingStopped) as caught:
        follow(start, bad, lams, journal=Journal(path, {}, every=0.0), **options)
    reason = "the loss of the batch became nan at step 1 for λ = [0.125]"
    assert caught.value.reason == reason
    result, whole = caught.value.result, follow(start, good, lams, **options)
    assert result.history["total"].shape == (2,)
    np.testing.assert_array_equal(result.model, whole.model[:2])
    # It goes on from the last good λ.
    journal = Journal(path, {}, resume=True)
    resumed = follow(start, good, lams, journal=journal, **options)
    np.testing.assert_array_equal(resumed.model, whole.model)


def test_a_distillation_that_explodes_keeps_the_last_good_model(
    hyper, getkey, monkeypatch
):
    monkeypatch.setattr(optax, "adam", lambda rate: optax.sgd(np.inf))
    lams = jnp.array([[0.1], [0.2]])
    path = jnp.stack([jnp.zeros(25), jnp.ones(25)])
    with pytest.raises(TrainingStopped, match="the weights became .* step 1") as caught:
        distill(hyper, lams, path, steps=3, key=getkey(), progress=False)
    model = caught.value.result.model
    assert isinstance(model, hpx.HyperPINN)
    assert eqx.tree_equal(model.trunk, hyper.trunk)
    np.testing.assert_allclose(model.theta0, 0.5)


def test_a_path_that_is_not_finite_is_an_error(hyper, getkey):
    path = jnp.ones((3, 25)).at[1, 7].set(jnp.inf)
    lams = jnp.array([[0.1], [0.2], [0.3]])
    with pytest.raises(ValueError, match=r"path holds inf at \(1, 7\), expected"):
        distill(hyper, lams, path, key=getkey())
    with pytest.raises(ValueError, match=r"lams holds nan at \(2, 0\), expected"):
        distill(hyper, lams.at[2].set(jnp.nan), path, key=getkey())


def test_a_path_has_the_precision_of_the_model(hyper, getkey):
    lams, path = jnp.array([[0.1], [0.2]]), jnp.ones((2, 25))
    single = hpx.cast(hyper, jnp.float32)
    with pytest.raises(ValueError, match="path is float64, expected float32 .*cast"):
        distill(single, lams, path, key=getkey())
    options = {"steps": 2, "key": getkey(), "progress": False}
    found = distill(single, lams, path.astype(jnp.float32), **options).model
    assert found.head.dtype == found.theta0.dtype == jnp.float32


def test_networks_that_cannot_be_followed_are_errors(rows, start, getkey):
    lams = jnp.array([[0.1]])
    with pytest.raises(ValueError, match="net has float32 weights, expected float64"):
        follow(hpx.cast(start, jnp.float32), rows, lams, key=getkey())
    bad = eqx.tree_at(lambda n: n.biases[0], start, start.biases[0].at[1].set(jnp.nan))
    with pytest.raises(ValueError, match=r"net.biases\[0\] holds nan at \(1,\)"):
        follow(bad, rows, lams, key=getkey())
    with pytest.raises(ValueError, match=r"lams holds nan at \(0, 0\), expected"):
        follow(start, rows, lams * jnp.nan, key=getkey())


@pytest.mark.parametrize("bad", [0.0, -0.1])
def test_a_lambda_that_cannot_be_is_an_error(bad, rows, start, hyper, getkey):
    lams = jnp.array([[0.1], [bad]])
    match = f"lams: kappa = {bad}, expected a positive number"
    with pytest.raises(ValueError, match=match):
        follow(start, rows, lams, key=getkey())
    with pytest.raises(ValueError, match=match):
        distill(hyper, lams, jnp.ones((2, 25)), key=getkey())


def test_junk_for_a_single_net(start, heat, throw_junk_at):
    throw_junk_at(hpx.SingleNet, net=start, parameters=heat.parameters)


def test_junk_for_a_path(rows, start, getkey, tmp_path, throw_junk_at):
    throw_junk_at(
        hpx.follow,
        examples=6,
        net=start,
        rows=PINNRows(rows.problem, rows.initial[:2], rows.boundary[:2], 2),
        lams=jnp.array([[0.1]]),
        key=getkey(),
        steps=1,
        first=1,
        redraw=1,
        progress=False,
        what="continuation",
        journal=Journal(tmp_path / "journal", {}, resume=True),
    )


def test_junk_for_a_distillation(hyper, getkey, throw_junk_at):
    throw_junk_at(
        hpx.distill,
        examples=10,
        model=hyper,
        lams=jnp.array([[0.1], [0.2]]),
        path=jnp.stack([jnp.zeros(25), jnp.ones(25)]),
        key=getkey(),
        steps=1,
        rate=1e-3,
        progress=False,
    )


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
