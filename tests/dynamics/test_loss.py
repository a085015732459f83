import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import MultistepLoss, Trajectories
from hyperpinn_eqx.dynamics.multistep import (
    adams_bashforth,
    adams_moulton,
    bdf,
    residual,
)

SCALE = np.array([0.5, 2.0])
SCHEME = pytest.mark.parametrize(
    "scheme", [adams_moulton(1), adams_bashforth(2), bdf(3)], ids=lambda s: s.name
)


def spiral(lam):
    """The field whose flow turns by λ₀ and shrinks by λ₁ for each unit of time."""
    return lambda x: jnp.stack(
        [-lam[1] * x[0] - lam[0] * x[1], lam[0] * x[0] - lam[1] * x[1]]
    )


@pytest.fixture
def data(x64):
    """Exact trajectories, two from random starts for each of three λ."""
    lam = np.array([[1.0, 0.1], [2.0, 0.0], [0.5, 0.3]])
    start = np.random.default_rng(0).normal(size=(3, 2)) + 1j
    rate = (1j * lam[:, 0] - lam[:, 1])[:, None, None]
    z = start[..., None] * np.exp(rate * 0.05 * np.arange(40))
    states = jnp.asarray(np.stack([z.real, z.imag], axis=-1))
    return Trajectories(jnp.asarray(lam), states, 0.05, np.ones((3, 2), bool))


@pytest.fixture
def net(data):
    box = hpx.Box(x=(-3, 3), y=(-3, 3))
    main, lam = (
        hpx.MainNetSpec((2, 4, 2), box, bounded=False),
        hpx.Box(a=(0, 3), b=(0, 1)),
    )
    return hpx.ConcatPINN(main, lam, key=jax.random.key(0))


@SCHEME
def test_the_loss_is_the_mean_square_of_scaled_residuals(scheme, data, net):
    loss = MultistepLoss(data, scheme, SCALE, n_windows=7)
    batch = loss.sample(net, key=jax.random.key(1))
    windows = batch.items["multistep"]
    assert windows.shape == (3, 7, scheme.steps + 1, 2)
    np.testing.assert_array_equal(batch.lam, data.lam)
    rows = [
        np.asarray(residual(scheme, field, x, data.dt)) / SCALE
        for lam, some in zip(data.lam, windows, strict=True)
        for field in [net(lam)]
        for x in some
    ]
    terms = eqx.filter_jit(loss)(net, batch).terms
    assert [*terms] == ["multistep"]
    np.testing.assert_allclose(terms["multistep"], np.mean(np.square(rows)), rtol=1e-12)
    assert eqx.tree_equal(loss.at(windows), batch)


@SCHEME
def test_the_loss_of_the_true_field_falls_with_twice_the_order(scheme, data, order_of):
    steps, found = [1, 2, 4], []
    for n in steps:
        loss = MultistepLoss(data.every(n), scheme, SCALE, n_windows=200)
        batch = loss.sample(key=jax.random.key(1))
        found.append(float(eqx.filter_jit(loss)(spiral, batch).total))
    assert abs(order_of(steps, found) / (2 * scheme.order) - 1) < 0.15


def test_both_optimisers_lower_it(data, net):
    loss = MultistepLoss(data, adams_moulton(1), SCALE, n_windows=20)
    options = {"key": jax.random.key(2), "progress": False}
    newton = hpx.gauss_newton(net, loss, steps=8, **options)
    adam = hpx.fit(net, loss, optax.adam(0.02), steps=60, chunk=30, **options)
    for result, share in ((newton, 0.2), (adam, 0.9)):
        terms = result.history["multistep" if result is adam else "total"]
        assert terms[-1] < share * terms[0]


def test_it_computes_in_the_precision_of_the_weights(data, net):
    loss = MultistepLoss(data, adams_moulton(1), SCALE, n_windows=7)
    batch = loss.sample(key=jax.random.key(1))
    wide = loss(net, batch).total
    narrow = loss(hpx.cast(net, "float32"), batch).total
    assert (wide.dtype, narrow.dtype) == ("float64", "float32")
    np.testing.assert_allclose(narrow, wide, rtol=1e-4)
    assert loss.n_windows == 7
    assert MultistepLoss(data, bdf(1), SCALE).n_windows == 400


def test_what_no_field_can_be_learned_from_is_an_error(data):
    unfinished = Trajectories(
        data.lam, data.states, 0.05, np.ones((3, 2)) > np.eye(3, 2)
    )
    broken = eqx.tree_at(lambda d: d.states, data, data.states.at[1, 0, 3].set(jnp.nan))
    short = eqx.tree_at(lambda d: d.states, data, data.states[:, :, :3])
    MultistepLoss(short, bdf(2), SCALE)
    for some, scheme, scale, said in (
        (unfinished, bdf(1), SCALE, r"data.*\(0, 0\)"),
        (broken, bdf(1), SCALE, "data.states.*nan"),
        (short, bdf(3), SCALE, "data"),
        (data, adams_moulton(2), SCALE, "scheme"),
        (data, bdf(1), np.ones(3), "scale"),
    ):
        with pytest.raises(ValueError, match=said):
            MultistepLoss(some, scheme, scale)
    loss = MultistepLoss(data, bdf(1), SCALE)
    for shape in ((2, 5, 2, 2), (3, 5, 3, 2), (3, 5, 2, 3)):
        with pytest.raises(ValueError, match="windows"):
            loss.at(np.ones(shape))
