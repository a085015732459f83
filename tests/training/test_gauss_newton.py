import dataclasses
import importlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import PINNRows, TrainingStopped, gauss_newton
from hyperpinn_eqx.training.journal import Journal, Stopped
from hyperpinn_eqx.training.linear_system import solve

pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture
def heat_rows(heat, getkey):
    initial, boundary = eqx.filter_jit(hpx.conditions)(heat, 8, 8, key=getkey())
    return PINNRows(heat, initial, boundary, n_points=20)


@pytest.fixture
def batch(heat_rows, hyper, getkey):
    """Three values of κ and their rows."""
    return heat_rows.batch(hyper, getkey(), 3)


def always(batch):
    return lambda model, key: batch


def scaled(batch, scale):
    """The same batch with all rows multiplied by the same number."""
    lams, kinds = batch
    return lams, tuple(
        dataclasses.replace(items, scale=jnp.full_like(items.scale, scale))
        for items in kinds
    )


def test_what_is_frozen_is_what_gauss_newton_leaves_alone(
    hyper, heat_rows, batch, getkey
):
    result = gauss_newton(
        hyper,
        heat_rows,
        always(batch),
        steps=1,
        frozen=lambda model: model.trunk,
        key=getkey(),
        progress=False,
    )
    assert eqx.tree_equal(result.model.weights, hyper.weights)
    assert not np.array_equal(result.model.head, hyper.head)


def test_it_solves_the_heat_equation(heat_rows, hyper, getkey):
    result = gauss_newton(
        hyper,
        heat_rows,
        lambda model, key: heat_rows.batch(model, key, 4),
        steps=25,
        redraw=25,
        key=getkey(),
        progress=False,
    )
    total = result.history["total"]
    assert np.all(np.diff(total) <= 0)
    assert total[-1] < 0.5 * total[0]
    np.testing.assert_array_equal(result.history["step"], np.arange(1, 26))


def test_a_new_batch_is_drawn_every_so_often(hyper, heat_rows, batch, getkey):
    drawn = []

    def draw(model, key):
        jax.debug.callback(lambda lam: drawn.append(1), model(0.1).flatten()[0])
        return batch

    options = {"steps": 5, "redraw": 2, "key": getkey(), "progress": False}
    gauss_newton(hyper, heat_rows, draw, **options)
    jax.effects_barrier()
    assert len(drawn) == 3


def test_a_step_that_would_raise_the_loss_is_not_taken(hyper, heat_rows, batch, getkey):
    # At a minimum no step can help, whatever its damping.
    perfect = always(scaled(batch, 0.0))
    result = gauss_newton(
        hyper, heat_rows, perfect, steps=1, key=getkey(), progress=False
    )
    assert eqx.tree_equal(result.model, hyper)
    assert result.history["damping"] >= 1e-2


def test_the_damping_falls_fastest_where_the_linear_model_is_right(getkey):
    # θ = W z + θ₀ is linear in W and θ₀, and so is this row.
    spec = hpx.MainNetSpec((2, 2, 1), hpx.Box(t=(0, 1), x=(-1, 1)))
    box = hpx.Box(nu=(0.01, 1.0))
    model = eqx.filter_jit(hpx.HyperPINN)(spec, box, (3,), key=getkey())

    def linear(net, lam, item):
        return net.flatten() @ item["direction"] - lam[0]

    rng = np.random.default_rng(0)
    lams = jnp.array([[0.02], [0.2], [0.9]])
    items = {"direction": jnp.asarray(rng.normal(size=(3, 4, spec.size)))}
    result = gauss_newton(
        model,
        linear,
        always((lams, items)),
        steps=4,
        damping=1e-3,
        frozen=lambda model: model.trunk,
        key=getkey(),
        progress=False,
    )
    expected = 1e-3 / 3 ** np.arange(1, 5)
    np.testing.assert_allclose(result.history["damping"], expected, rtol=1e-3)
    assert result.history["total"][-1] < 1e-6


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_stopped_run_goes_on_to_the_same_weights(
    at, heat_rows, hyper, stop_at, tmp_path
):
    def run(journal):
        return gauss_newton(
            hyper,
            heat_rows,
            lambda model, key: heat_rows.batch(model, key, 3),
            steps=5,
            redraw=2,
            key=jax.random.key(1),
            progress=False,
            journal=journal,
        )

    path = tmp_path / "heat.journal"
    with pytest.raises(Stopped, match=f"step {at} of 'gauss-newton'"):
        run(stop_at("gauss-newton", at)(path, {}))
    resumed, whole = run(Journal(path, {}, resume=True)), run(None)
    assert eqx.tree_equal(resumed.model, whole.model)
    for name in ("step", "total", "damping"):
        np.testing.assert_array_equal(resumed.history[name], whole.history[name])


def spoilt_from(heat_rows, step, bad, what):
    """Draws three κ; the batches of a step and of all after it hold a bad number."""

    def draw(model, key):
        lams, (places, known) = heat_rows.batch(model, key, 3)
        drawn.append(1)
        if len(drawn) < step:
            return lams, (places, known)
        if what == "lam":
            return lams.at[1].set(bad), (places, known)
        at = getattr(known, what).at[1, 2].set(bad)
        return lams, (places, dataclasses.replace(known, **{what: at}))

    drawn = []
    return draw


@pytest.mark.parametrize(
    ("what", "bad", "reason"),
    [
        ("target", np.nan, "the loss of the batch became nan at step 3"),
        ("target", np.inf, "the loss of the batch became inf at step 3"),
        ("point", np.nan, "the loss of the batch became nan at step 3"),
        ("lam", np.nan, "a λ of draw is not finite at step 3"),
    ],
)
def test_a_spoilt_batch_stops_it_with_the_last_good_model(
    what, bad, reason, heat_rows, hyper, tmp_path, monkeypatch
):
    options = {"redraw": 1, "key": jax.random.key(1), "progress": False}
    path = tmp_path / "heat.journal"
    module = importlib.import_module("hyperpinn_eqx.training.gauss_newton")
    calls, linearise = [], module.linearise

    def counted(*arguments):
        jax.debug.callback(lambda: calls.append(1))
        return linearise(*arguments)

    monkeypatch.setattr(module, "linearise", counted)
    # The journal asks for the shapes of a batch, which is the first draw.
    draw = spoilt_from(heat_rows, 4, bad, what)
    with pytest.raises(TrainingStopped) as caught:
        journal = Journal(path, {}, every=0.0)
        gauss_newton(hyper, heat_rows, draw, steps=5, journal=journal, **options)
    assert caught.value.reason == reason
    jax.effects_barrier()
    # Nothing was tried with such a batch.
    assert len(calls) == 2
    result = caught.value.result
    np.testing.assert_array_equal(result.history["step"], [1, 2])

    def good(model, key):
        return heat_rows.batch(model, key, 3)

    # The journal has the good model, and training goes on from it.
    journal = Journal(path, {}, resume=True)
    start = gauss_newton(hyper, heat_rows, good, steps=2, journal=journal, **options)
    assert eqx.tree_equal(start.model, result.model)
    resumed = gauss_newton(hyper, heat_rows, good, steps=5, journal=journal, **options)
    whole = gauss_newton(hyper, heat_rows, good, steps=5, **options)
    assert eqx.tree_equal(resumed.model, whole.model)


@pytest.mark.parametrize("rank", [1, 64], ids=["dual", "primal"])
def test_a_residual_without_a_derivative_stops_it(rank, hyper, batch, getkey):
    def row(net, lam, item):
        # As of a speed: finite at 0, where it has no slope.
        return jnp.sqrt(jnp.sum((0 * net.flatten()) ** 2)) + item.scale

    lams, (places, _) = batch
    options = {"steps": 5, "rank": rank, "key": getkey(), "progress": False}
    with pytest.raises(TrainingStopped) as caught:
        gauss_newton(hyper, row, always((lams, places)), **options)
    reason = "the Jacobian of the residuals became nan at step 1"
    assert caught.value.reason == reason
    assert eqx.tree_equal(caught.value.result.model, hyper)


def linear(net, lam, item):
    """A row that is linear in the main network's weights, in few directions."""
    return net.flatten()[:2] @ item["direction"] - item["target"]


def linear_batch(target):
    """Four rows at each of three λ, of rank 2 in all."""
    direction = jnp.asarray(np.random.default_rng(0).normal(size=(3, 1, 2)))
    direction = jnp.broadcast_to(direction, (3, 4, 2))
    lams = jnp.array([[0.02], [0.2], [0.9]])
    return lams, {"direction": direction, "target": jnp.asarray(target)}


@pytest.fixture
def net(heat, getkey):
    """A family of one network."""
    spec = hpx.MainNetSpec((2, 2, 1), heat.domain)
    return hpx.SingleNet(eqx.filter_jit(spec.init)(key=getkey()), heat.parameters)


def test_a_matrix_that_cannot_be_factorised_raises_the_damping(
    net, getkey, monkeypatch
):
    def row(net, lam, item):
        # JᵀJ is 4 everywhere, of rank 1.
        return jnp.sum(net.flatten()) - item

    def fragile(trained, model, lams, system, damping):
        # Whether such a matrix can be factorised depends on the library: here not.
        fails = jnp.where(damping < 1e-17, jnp.nan, 1.0)
        trial, promised = solve(trained, model, lams, system, damping)
        return jax.tree.map(lambda x: x * fails, trial), promised * fails

    module = importlib.import_module("hyperpinn_eqx.training.gauss_newton")
    monkeypatch.setattr(module, "solve", fragile)

    result = gauss_newton(
        net,
        row,
        always((jnp.array([[0.02], [0.2], [0.9]]), jnp.full((3, 4), 5.0))),
        steps=3,
        damping=1e-24,
        floor=0.0,
        key=getkey(),
        progress=False,
    )
    total, damping = result.history["total"], result.history["damping"]
    # All tries of the first step fail, and the next step goes on from there.
    np.testing.assert_allclose(damping[0], 1e-24 * 2**21, rtol=1e-12)
    assert total[-1] < 1e-9 * total[0]


def test_the_damping_stays_finite_where_no_step_helps(net, getkey):
    # No weights meet both targets: the best is reached by the first step.
    target = np.ones((3, 4)) * np.array([1.0, -1.0, 1.0, -1.0])
    result = gauss_newton(
        net,
        linear,
        always(linear_batch(target)),
        steps=80,
        redraw=80,
        key=getkey(),
        progress=False,
    )
    damping = result.history["damping"]
    assert np.all(np.isfinite(damping)) and 1e6 < damping[-1] < 1e12
    np.testing.assert_allclose(result.history["total"][-1], 4, rtol=1e-12)


def test_float32_weights_are_an_error(hyper, heat_rows, batch, getkey):
    single = hpx.cast(hyper, jnp.float32)
    with pytest.raises(ValueError, match="float32 weights, expected float64"):
        gauss_newton(single, heat_rows, always(batch), steps=1, key=getkey())


def test_weights_that_are_not_finite_are_an_error(hyper, heat_rows, batch, getkey):
    spoilt = eqx.tree_at(lambda m: m.theta0, hyper, hyper.theta0.at[3].set(jnp.nan))
    with pytest.raises(ValueError, match=r"model.theta0 holds nan at \(3,\), expected"):
        gauss_newton(spoilt, heat_rows, always(batch), steps=1, key=getkey())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda r: r.astype(jnp.float32), "is float32, expected float64 .*hpx.cast"),
        (lambda r: r[None], r"has shape \(1,\), expected \(\)"),
        (lambda r: None, r"= None, expected an array of real numbers"),
    ],
)
def test_a_row_is_one_number_in_float64(change, match, hyper, heat_rows, batch, getkey):
    def row(net, lam, item):
        return change(heat_rows.equation(net, lam, item))

    lams, (places, _) = batch
    draw, options = always((lams, places)), {"key": getkey(), "progress": False}
    with pytest.raises(ValueError, match=r"row\(net, lam, item\) " + match):
        gauss_newton(hyper, row, draw, steps=1, **options)


@pytest.mark.parametrize(
    ("change", "kind", "match"),
    [
        (lambda lams, items: lams, TypeError, "expected a tuple"),
        (lambda lams, items: (lams,), ValueError, "draw returned 1 values, expected"),
        (lambda lams, items: (lams[:, 0], items), ValueError, r"lam of draw has shape"),
        (lambda lams, items: (lams[:2], items), ValueError, r"\(3, .* expected \(2, K"),
        (lambda lams, items: (lams, {"a": lams[:, 0]}), TypeError, "items of draw"),
        (lambda lams, items: (lams, items[:1]), ValueError, "items of draw"),
        (lambda lams, items: (lams, (items[0], {})), ValueError, "items of draw"),
        (lambda lams, items: (lams, (items[0], "text")), ValueError, "items of draw"),
        (
            lambda lams, items: (lams, (items[0], jnp.ones((2, 1)))),
            ValueError,
            "items of draw have shapes",
        ),
        (
            lambda lams, items: (lams, jax.tree.map(lambda a: a[:, :0], items)),
            ValueError,
            r"items of draw .* \(3, K\) for all",
        ),
    ],
)
def test_what_a_draw_returns_has_to_fit(
    change, kind, match, hyper, heat_rows, batch, getkey, unchecked
):
    draw = always(change(*batch))
    with pytest.raises(kind, match=match):
        gauss_newton(hyper, heat_rows, draw, steps=1, key=getkey(), progress=False)


def test_a_draw_may_return_numpy_arrays_and_lists(hyper, heat_rows, batch, getkey):
    lams, items = batch
    plain = lams.tolist(), jax.tree.map(np.asarray, items)
    options = {"steps": 1, "key": getkey(), "progress": False}
    found = gauss_newton(hyper, heat_rows, always(plain), **options)
    expected = gauss_newton(hyper, heat_rows, always(batch), **options)
    assert eqx.tree_equal(found.model, expected.model)


@pytest.mark.parametrize(
    ("frozen", "match"),
    [
        (lambda model: (), "frozen picks 0 of 123 weights, expected some, not all"),
        (lambda model: model, "frozen picks 123 of 123 weights"),
        (lambda model: 3, "frozen picks 3, expected a part of the model"),
        (lambda model: model.parameters, "frozen picks Box.*, expected a part"),
    ],
)
def test_what_is_frozen_is_a_part(frozen, match, hyper, heat_rows, batch, getkey):
    with pytest.raises(ValueError, match=match):
        gauss_newton(
            hyper, heat_rows, always(batch), steps=1, key=getkey(), frozen=frozen
        )


def test_junk_for_gauss_newton(throw_junk_at, net, getkey, tmp_path):
    throw_junk_at(
        hpx.gauss_newton,
        examples=12,
        model=net,
        row=linear,
        draw=always(linear_batch(np.ones((3, 4)))),
        steps=1,
        key=getkey(),
        redraw=1,
        damping=1e-2,
        floor=1e-8,
        rank=4,
        frozen=lambda model: model.net.biases,
        progress=False,
        what="gauss-newton",
        journal=Journal(tmp_path / "journal", {}, resume=True),
        watch=lambda model, seconds: {},
    )
