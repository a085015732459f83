import importlib
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import TrainingStopped
from hyperpinn_eqx.training.journal import Journal, Stopped
from hyperpinn_eqx.training.linear_system import solve

pytestmark = pytest.mark.usefixtures("x64")
module = importlib.import_module("hyperpinn_eqx.training.gauss_newton")


def train(model, loss, **options):
    options = {"steps": 1, "key": jr.key(1), "progress": False} | options
    return hpx.gauss_newton(model, loss, **options)


class Own(hpx.AbstractLeastSquares):
    """Residuals of a user's, always on the same items."""

    residuals: object = eqx.field(static=True)
    batch: object

    @property
    def terms(self):
        return {"own": hpx.Term(self.residuals)}

    def sample(self, model, *, key):
        return self.batch


def own(residuals, items):
    lam = jnp.array([[0.02], [0.2], [0.9]])
    return Own(residuals, hpx.Batch(lam, {"own": items}))


@pytest.fixture
def net(heat, getkey):
    """A family of one network."""
    spec = hpx.MainNetSpec((2, 2, 1), heat.domain)
    return hpx.SingleNet(eqx.filter_jit(spec.init)(key=getkey()), heat.parameters)


def test_it_solves_the_heat_equation(heat_loss, hyper):
    total = train(hyper, heat_loss, steps=25, redraw=25).history["total"]
    assert np.all(np.diff(total) <= 0)
    assert len(total) == 25 and total[-1] < 0.5 * total[0]


def test_what_is_frozen_is_what_it_leaves_alone(hyper, heat_loss):
    model = train(hyper, heat_loss, frozen=lambda model: model.trunk).model
    assert eqx.tree_equal(model.trunk, hyper.trunk)
    assert not np.array_equal(model.head, hyper.head)


@pytest.mark.parametrize("picked", [(), "all", 3, "box"])
def test_what_is_frozen_is_a_part(picked, hyper, heat_loss):
    picked = {"all": hyper, "box": hyper.parameters}.get(picked, picked)
    with pytest.raises(ValueError, match="frozen"):
        train(hyper, heat_loss, frozen=lambda model: picked)


def test_a_new_batch_is_drawn_every_so_often(hyper, heat_loss):
    drawn = []

    class Counted(type(heat_loss)):
        def sample(self, model, *, key):
            jax.debug.callback(lambda _: drawn.append(1), model.theta0)
            return super().sample(model, key=key)

    loss = Counted(heat_loss.problem, n_lam=2, n_conditions=3)
    train(hyper, loss, steps=5, redraw=2)
    jax.effects_barrier()
    assert len(drawn) == 3


def test_at_a_minimum_no_step_is_taken(hyper):
    perfect = own(lambda net, lam, item: 0 * jax.vmap(net)(item), jnp.zeros((3, 4, 2)))
    result = train(hyper, perfect)
    assert eqx.tree_equal(result.model, hyper)
    # Two, four, … up to 64 times as much damping has been tried.
    np.testing.assert_allclose(result.history["damping"], 1e-2)


def test_the_damping_falls_fastest_where_the_linear_model_is_right(hyper):
    # θ = W z + θ₀ is linear in W and θ₀, and so are these residuals.
    rng = np.random.default_rng(0)
    loss = own(
        lambda net, lam, direction: direction @ net.flatten() - lam[0],
        rng.normal(size=(3, 4, hyper.main.size)),
    )
    options = {"damping": 1e-3, "frozen": lambda model: model.trunk}
    history = train(hyper, loss, steps=4, **options).history
    expected = 1e-3 / 3 ** np.arange(1, 5)
    np.testing.assert_allclose(history["damping"], expected, rtol=1e-3)
    assert history["total"][-1] < 1e-6
    floored = train(hyper, loss, steps=4, floor=2e-4, **options).history["damping"]
    np.testing.assert_allclose(floored, np.maximum(expected, 2e-4), rtol=1e-3)


def test_the_damping_follows_the_gain(net, monkeypatch):
    # The loss falls by some share of what the linear model promised.
    for share, factor in ((1.0, 1 / 3), (0.75, 1 - 0.5**3), (0.25, 1 + 0.5**3)):
        loss = own(
            lambda net, lam, x: net.flatten()[None] * x[0, 0], np.ones((3, 1, 1))
        )

        def promise(loss, trained, model, batch, system, damping, share=share):
            trial, _ = solve(loss, trained, model, batch, system, damping)
            flat = model.net.flatten(), trial.net.flatten()
            before, after = (jnp.mean(theta**2) for theta in flat)
            return trial, (before - after) / share

        monkeypatch.setattr(module, "solve", promise)
        damping = train(net, loss).history["damping"]
        np.testing.assert_allclose(damping, 1e-2 * factor, rtol=1e-9)


# Within a batch, and before a new one.
@pytest.mark.parametrize("at", [1, 2])
def test_a_stopped_run_goes_on_to_the_same_bits(
    at, heat_loss, hyper, stop_at, tmp_path
):
    path, options = tmp_path / "heat.journal", {"steps": 3, "redraw": 2}
    with pytest.raises(Stopped, match=f"step {at} of 'gauss-newton'"):
        journal = stop_at("gauss-newton", at)(path, {})
        train(hyper, heat_loss, journal=journal, **options)
    journal = Journal(path, {}, resume=True)
    resumed = train(hyper, heat_loss, journal=journal, **options)
    whole = train(hyper, heat_loss, **options)
    assert eqx.tree_equal(resumed.model, whole.model)
    for name in ("step", "total", "damping"):
        np.testing.assert_array_equal(resumed.history[name], whole.history[name])


@pytest.mark.parametrize(("where", "bad"), [("lam", np.nan), ("point", np.inf)])
def test_a_spoilt_batch_stops_it_with_the_last_good_model(
    where, bad, heat_loss, hyper, tmp_path, monkeypatch
):
    path, options = tmp_path / "heat.journal", {"redraw": 1}
    tried, linearise, draws = [], module.linearise, itertools.count(1)

    def counted(*arguments):
        jax.debug.callback(lambda: tried.append(1))
        return linearise(*arguments)

    def spoilt(self, model, key):
        batch = draw(self, model, key)
        if next(draws) < 3:
            return batch
        if where == "lam":
            return eqx.tree_at(lambda b: b.lam, batch, batch.lam.at[1].set(bad))
        point = batch.items["walls"].point.at[1, 2].set(bad)
        return eqx.tree_at(lambda b: b.items["walls"].point, batch, point)

    draw = module.GaussNewton.draw
    with monkeypatch.context() as patch:
        patch.setattr(module, "linearise", counted)
        patch.setattr(module.GaussNewton, "draw", spoilt)
        with pytest.raises(TrainingStopped, match="at step 3") as caught:
            journal = Journal(path, {}, every=0.0)
            train(hyper, heat_loss, steps=5, journal=journal, **options)
        jax.effects_barrier()
    # Nothing was tried with such a batch.
    assert len(tried) == 2
    result = caught.value.result
    np.testing.assert_array_equal(result.history["step"], [1, 2])
    # The journal has the good model, and training goes on from it.
    journal = Journal(path, {}, resume=True)
    start = train(hyper, heat_loss, steps=2, journal=journal, **options)
    assert eqx.tree_equal(start.model, result.model)
    resumed = train(hyper, heat_loss, steps=5, journal=journal, **options)
    assert eqx.tree_equal(
        resumed.model, train(hyper, heat_loss, steps=5, **options).model
    )


@pytest.mark.parametrize("rank", [1, 64], ids=["dual", "primal"])
def test_a_residual_without_a_derivative_stops_it(rank, hyper):
    def residuals(net, lam, item):
        # As of a speed: finite at 0, where it has no slope.
        return jnp.sqrt(jnp.sum((0 * net.flatten()) ** 2)) + item

    with pytest.raises(TrainingStopped, match="Jacobian.* nan at step 1") as caught:
        train(hyper, own(residuals, jnp.ones((3, 4))), rank=rank)
    assert eqx.tree_equal(caught.value.result.model, hyper)


def test_a_matrix_that_cannot_be_factorised_raises_the_damping(net, monkeypatch):
    def fragile(loss, trained, model, batch, system, damping):
        # Whether such a matrix can be factorised depends on the library: here not.
        fails = jnp.where(damping < 1e-17, jnp.nan, 1.0)
        trial, promised = solve(loss, trained, model, batch, system, damping)
        return jax.tree.map(lambda x: x * fails, trial), promised * fails

    monkeypatch.setattr(module, "solve", fragile)
    # JᵀJ is 4 everywhere, of rank 1.
    loss = own(
        lambda net, lam, item: jnp.sum(net.flatten()) - item, jnp.full((3, 4), 5)
    )
    history = train(net, loss, steps=3, damping=1e-24, floor=0.0).history
    # All tries of the first step fail, and the next step goes on from there.
    np.testing.assert_allclose(history["damping"][0], 1e-24 * 2**21, rtol=1e-12)
    assert history["total"][-1] < 1e-9 * history["total"][0]


def test_the_damping_stays_finite_where_no_step_helps(net):
    def residuals(net, lam, item):
        return net.flatten()[0] * lam[0] - item

    # No weights meet both targets: the best is reached by the first steps.
    target = np.ones((3, 4)) * np.array([1.0, -1.0, 1.0, -1.0])
    history = train(net, own(residuals, target), steps=80, redraw=80).history
    size = np.mean(np.array([0.02, 0.2, 0.9]) ** 2)
    np.testing.assert_allclose(history["damping"][-1], 1e8 * size, rtol=1e-6)
    np.testing.assert_allclose(history["total"][-1], 1, rtol=1e-12)


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda m: hpx.cast(m, jnp.float32), "float32 weights, expected float64"),
        (lambda m: eqx.tree_at(lambda m: m.theta0, m, m.theta0 * jnp.nan), "theta0"),
    ],
)
def test_weights_are_finite_and_of_float64(spoil, match, hyper, heat_loss):
    with pytest.raises(ValueError, match=match):
        train(spoil(hyper), heat_loss)


@pytest.mark.parametrize(
    ("residuals", "change", "match"),
    [
        (lambda net, lam, x: x.astype(jnp.float32), lambda b: b, "is float32"),
        (lambda net, lam, x: x, lambda b: b.items, "sample.*=.*"),
        (
            lambda net, lam, x: x,
            lambda b: hpx.Batch(jnp.ones((3, 2)), b.items),
            r"lam of the batch .*\(3, 2\)",
        ),
    ],
)
def test_what_a_loss_returns_has_to_fit(residuals, change, match, hyper):
    good = own(residuals, jnp.ones((3, 4)))
    with pytest.raises((ValueError, TypeError), match=match):
        train(hyper, Own(residuals, change(good.batch)))
