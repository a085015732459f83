import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import PINNRows, TrainingStopped, gauss_newton
from hyperpinn_eqx.journal import Journal, Stopped

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
    lams, items = batch
    return lams, dataclasses.replace(items, scale=jnp.full_like(items.scale, scale))


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
    assert result.history["damping"] > 1e-2


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


def test_nan_stops_it_and_returns_the_model(hyper, heat_rows, batch, getkey):
    bad = always(scaled(batch, jnp.nan))
    with pytest.raises(TrainingStopped, match="'total' became nan") as caught:
        gauss_newton(hyper, heat_rows, bad, steps=3, key=getkey(), progress=False)
    assert eqx.tree_equal(caught.value.result.model, hyper)


def test_float32_weights_are_an_error(hyper, heat_rows, batch, getkey):
    single = hpx.cast(hyper, jnp.float32)
    with pytest.raises(ValueError, match="float32 weights, expected float64"):
        gauss_newton(single, heat_rows, always(batch), steps=1, key=getkey())
