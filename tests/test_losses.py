import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import Batch, Loss, slope_weight
from hyperpinn_eqx.losses import multistep_loss
from hyperpinn_eqx.multistep import adams_moulton, bdf

pinn_loss = eqx.filter_jit(hpx.pinn_loss)
residuals = eqx.filter_jit(hpx.residuals)
multistep = eqx.filter_jit(multistep_loss)


@pytest.fixture
def batch(heat, getkey):
    """Three λ with four collocation points each, and two and three conditions."""
    return Batch(
        jnp.array([[0.02], [0.1], [0.7]]),
        eqx.filter_jit(hpx.uniform)(heat.domain, (3, 4), key=getkey()),
        *eqx.filter_jit(hpx.conditions)(heat, 2, 3, key=getkey()),
    )


def test_total_is_the_sum_of_the_terms():
    loss = Loss({"a": jnp.array(1.0), "b": jnp.array(2.0), "c": jnp.array(4.0)})
    assert loss.total == 7


def test_total_keeps_the_precision_of_its_terms(x64):
    loss = Loss({"a": jnp.array(1, jnp.float32), "b": jnp.array(2, jnp.float32)})
    assert loss.total.dtype == jnp.float32


def test_pinn_loss_is_equation_six(x64, heat, model, batch):
    # One point after another, by reverse mode.
    data, physics = [], []
    for lam, points in zip(batch.lam, batch.points, strict=True):
        u = model(lam)
        u_t = jax.jit(jax.grad(u))
        u_xx = jax.jit(jax.hessian(u))
        for p in points:
            physics.append((u_t(p)[0] - lam[0] * u_xx(p)[1, 1]) ** 2)
        for p in batch.initial:
            data.append((u(p) + np.sin(np.pi * p[1])) ** 2)
        for p in batch.boundary:
            data.append(u(p) ** 2)
    loss = pinn_loss(model, heat, batch)
    np.testing.assert_allclose(loss.terms["data"], np.mean(data), rtol=1e-12)
    np.testing.assert_allclose(loss.terms["physics"], np.mean(physics), rtol=1e-12)
    assert set(loss.terms) == {"data", "physics"}


def test_alpha_multiplies_the_physics_alone(x64, heat, model, batch):
    one = pinn_loss(model, heat, batch).terms
    ten = pinn_loss(model, heat, batch, alpha=10.0).terms
    np.testing.assert_allclose(ten["physics"], 10 * one["physics"], rtol=1e-14)
    assert ten["data"] == one["data"]


def test_the_hypernetwork_runs_once_for_each_lambda(heat, hyper, counting, batch):
    counted, calls = counting(hyper)
    pinn_loss(counted, heat, batch)
    jax.effects_barrier()
    expected = heat.parameters.scale(batch.lam)[:, 0]
    np.testing.assert_allclose(np.sort(calls), np.sort(expected), rtol=1e-5)


def test_counting_would_notice_a_hypernetwork_that_runs_at_every_point(
    hyper, counting, batch
):
    counted, calls = counting(hyper)
    lams = jnp.repeat(batch.lam, 4, axis=0)
    pairs = jax.jit(jax.vmap(lambda lam, p: counted(lam)(p)))
    pairs(lams, batch.points.reshape(12, 2))
    jax.effects_barrier()
    assert len(calls) == 12


def test_residuals_can_be_weighted(x64, heat, model, batch):
    lam, points = batch.lam[0], batch.points[0]
    net = model(lam)
    plain = residuals(net, heat, lam, points)
    weighted = residuals(net, heat, lam, points, weight=lambda u: 1 / (1 + u.t**2))
    u_t = jax.jit(jax.vmap(jax.grad(net)))(points)[:, 0]
    np.testing.assert_allclose(weighted, plain / (1 + u_t**2), rtol=1e-12)


def test_slope_weight_is_one_over_one_plus_the_slopes():
    u = hpx.Jet(jnp.zeros(2), {"t": jnp.array([-1.0, 2]), "x": jnp.array([3.0, -5])})
    np.testing.assert_allclose(slope_weight("x")(u), [1 / 4, 1 / 6])
    np.testing.assert_allclose(slope_weight("t", "x")(u), [1 / 5, 1 / 8])


def test_slope_weight_is_not_differentiated():
    def weighted(slope):
        return slope_weight("x")(hpx.Jet(slope, {"x": slope})) * slope

    # 1 / (1 + 3), without the weight's own derivative.
    assert jax.grad(weighted)(3.0) == 0.25


def test_the_loss_can_be_differentiated_by_every_parameter(heat, hyper, batch):
    grads = jax.jit(jax.grad(lambda m: pinn_loss(m, heat, batch).total))(hyper)
    for leaf in map(np.asarray, jax.tree.leaves(grads)):
        assert np.all(np.isfinite(leaf)) and np.any(leaf)


def test_float32_models_and_batches_stay_float32_in_x64_mode(heat, model, batch, x64):
    problem = hpx.Burgers()
    loss = pinn_loss(model, problem, batch, weight=slope_weight("x"))
    assert loss.total.dtype == jnp.float32


@pytest.fixture
def fields(heat, getkey):
    """A tiny family of vector fields of two components."""
    main = hpx.MainNetSpec((2, 4, 2), hpx.Box(x=(-2, 2), y=(-2, 2)), bounded=False)
    return eqx.filter_jit(hpx.HyperPINN)(main, heat.parameters, (3,), key=getkey())


@pytest.fixture
def windows(batch):
    """Four windows of two states for each λ."""
    states = np.random.default_rng(0).normal(size=(3, 4, 2, 2))
    return jnp.asarray(states, batch.lam.dtype)


def test_multistep_loss_is_equation_nine(x64, fields, batch, windows):
    scale, terms = np.array([2.0, 5.0]), []
    for lam, pairs in zip(batch.lam, windows, strict=True):
        field = eqx.filter_jit(fields(lam))
        for old, new in pairs:
            gap = (new - old) / 0.1 - (field(old) + field(new)) / 2
            terms.append((gap / scale) ** 2)
    loss = multistep(
        fields,
        batch.lam,
        windows,
        scheme=adams_moulton(1),
        dt=0.1,
        scale=jnp.asarray(scale),
    )
    assert set(loss.terms) == {"multistep"}
    np.testing.assert_allclose(loss.total, np.mean(terms), rtol=1e-12)


def test_a_multistep_loss_runs_the_hypernetwork_once_for_each_lambda(
    heat, fields, counting, batch, windows
):
    counted, calls = counting(fields)
    multistep(counted, batch.lam, windows, scheme=bdf(1), dt=0.1, scale=jnp.ones(2))
    jax.effects_barrier()
    expected = heat.parameters.scale(batch.lam)[:, 0]
    np.testing.assert_allclose(np.sort(calls), np.sort(expected), rtol=1e-5)


def test_windows_of_another_length_than_the_schemes_are_an_error(
    fields, batch, windows
):
    with pytest.raises(ValueError, match="BDF 2 needs 3 consecutive states"):
        multistep(fields, batch.lam, windows, scheme=bdf(2), dt=0.1, scale=jnp.ones(2))
