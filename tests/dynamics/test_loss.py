import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import MultistepLoss, Trajectories, adams_bashforth, bdf
from hyperpinn_eqx import _blocks as blocks
from hyperpinn_eqx.dynamics.multistep import adams_moulton
from hyperpinn_eqx.training.linear_system import rows_of

evaluate = eqx.filter_jit(lambda loss, model, batch: loss(model, batch))
SCALE = np.array([2.0, 5.0])


@pytest.fixture
def data():
    """Three λ with two trajectories of 30 states (x, y) each."""
    states = np.random.default_rng(0).normal(size=(3, 2, 30, 2)).cumsum(2)
    lam = jnp.array([[0.0, 1.0], [0.5, 3.0], [1.0, 2.0]])
    return Trajectories(lam, jnp.asarray(states, float), 0.1, jnp.ones((3, 2), bool))


@pytest.fixture
def fields(getkey):
    """A tiny HyperPINN from two parameters to a vector field of two components."""
    main = hpx.MainNetSpec((2, 3, 2), hpx.Box(x=(-9, 9), y=(-9, 9)), bounded=False)
    box = hpx.Box(b=(0, 1), a=(1, 3))
    return eqx.filter_jit(hpx.HyperPINN)(main, box, (4,), key=getkey())


def test_it_is_equation_nine(x64, data, fields, getkey):
    loss = MultistepLoss(data, adams_moulton(1), SCALE, n_windows=4)
    batch, terms = loss.sample(key=getkey()), []
    np.testing.assert_array_equal(batch.lam, data.lam)
    assert batch.items["multistep"].shape == (3, 4, 2, 2)
    for lam, pairs in zip(batch.lam, batch.items["multistep"], strict=True):
        field = eqx.filter_jit(fields(lam))
        for old, new in pairs:
            gap = (new - old) / 0.1 - (field(old) + field(new)) / 2
            terms.append((gap / SCALE) ** 2)
    found = evaluate(loss, fields, batch).terms
    assert {*found} == {"multistep"}
    np.testing.assert_allclose(found["multistep"], np.mean(terms), rtol=1e-12)


def test_the_squares_of_its_rows_add_up_to_it(x64, data, fields, getkey):
    loss = MultistepLoss(data, bdf(3), SCALE, n_windows=7)
    batch, squares = loss.sample(key=getkey()), 0.0
    for i, lam in enumerate(batch.lam):
        items = jax.tree.map(lambda a, i=i: a[i], batch.items)
        (r,) = eqx.filter_jit(rows_of)(loss, fields(lam), lam, items)
        # A row for each component of each window.
        assert r.shape == (14,)
        squares += jnp.sum(r**2) / 3
    np.testing.assert_allclose(squares, evaluate(loss, fields, batch).total, rtol=1e-12)


def test_the_key_decides_the_windows(data):
    loss = MultistepLoss(data, bdf(2), SCALE, n_windows=7)
    first, again, other = (loss.sample(key=jax.random.key(seed)) for seed in (1, 1, 2))
    assert eqx.tree_equal(first, again)
    windows = first.items["multistep"]
    assert jnp.mean(windows != other.items["multistep"]) > 0.5
    assert eqx.tree_equal(loss.at(windows), first)
    with pytest.raises(ValueError, match="windows"):
        loss.at(windows[:, :, :2])


def test_the_hypernetwork_runs_once_for_each_lambda(data, fields, counting, getkey):
    counted, calls = counting(fields)
    loss = MultistepLoss(data, bdf(1), SCALE, n_windows=5)
    evaluate(loss, counted, loss.sample(key=getkey()))
    jax.effects_barrier()
    expected = fields.parameters.scale(data.lam)[:, 0]
    np.testing.assert_allclose(np.sort(calls), np.sort(expected), rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_it_is_computed_in_the_precision_of_the_weights(dtype, x64, data, fields):
    model, totals = hpx.cast(fields, dtype), []
    for other in (jnp.float32, jnp.float64):
        loss = MultistepLoss(hpx.cast(data, other), bdf(2), SCALE.astype(other))
        batch = loss.sample(model, key=jax.random.key(0))
        totals.append(evaluate(loss, model, batch).total)
        assert totals[-1].dtype == dtype
    np.testing.assert_allclose(*totals, rtol=1e-4)


def test_many_lambda_in_blocks_are_as_many_at_once(
    x64, data, fields, getkey, monkeypatch
):
    loss = MultistepLoss(data, adams_moulton(1), SCALE, n_windows=4)
    batch = loss.sample(key=getkey())

    def value_and_gradient():
        total = lambda fields: loss(fields, batch).total  # noqa: E731
        found = eqx.filter_jit(eqx.filter_value_and_grad(total))(fields)
        return jax.tree.leaves(found)

    expected = value_and_gradient()
    # Four windows: two λ at once, and the last one alone.
    monkeypatch.setattr(blocks, "_at_once", lambda: 8)
    for a, b in zip(value_and_gradient(), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


def test_data_and_schemes_that_do_not_fit_are_errors(data):
    def with_states(states):
        return eqx.tree_at(lambda d: d.states, data, states)

    short = with_states(data.states[:, :, :3])
    MultistepLoss(short, bdf(2), SCALE)
    finished = data.finished.at[1, 1].set(False)
    for said, bad, scheme in (
        ("discovery", data, adams_moulton(2)),
        ("discovery", data, adams_bashforth(7)),
        ("3 states", short, bdf(3)),
        (
            r"nan at \(2, 1, 7, 0\)",
            with_states(data.states.at[2, 1, 7, 0].set(jnp.nan)),
            bdf(2),
        ),
        (r"\(1, 1\)", Trajectories(data.lam, data.states, 0.1, finished), bdf(2)),
    ):
        with pytest.raises(ValueError, match=said):
            MultistepLoss(bad, scheme, SCALE)


def spiral(lam):
    """The field whose flow turns by λ₀ and shrinks by λ₁ for each unit of time."""
    return lambda x: jnp.stack(
        [-lam[1] * x[0] - lam[0] * x[1], lam[0] * x[0] - lam[1] * x[1]]
    )


@pytest.mark.parametrize(
    "scheme", [adams_moulton(1), adams_bashforth(2), bdf(3)], ids=lambda s: s.name
)
def test_the_loss_of_the_true_field_falls_with_twice_the_order(scheme, x64, order_of):
    lam = np.array([[1.0, 0.1], [2.0, 0.0], [0.5, 0.3]])
    start = np.random.default_rng(0).normal(size=(3, 2)) + 1j
    rate = (1j * lam[:, 0] - lam[:, 1])[:, None, None]
    z = start[..., None] * np.exp(rate * 0.05 * np.arange(40))
    states = jnp.asarray(np.stack([z.real, z.imag], axis=-1))
    data = Trajectories(jnp.asarray(lam), states, 0.05, np.ones((3, 2), bool))
    steps, found = [1, 2, 4], []
    for n in steps:
        loss = MultistepLoss(data.every(n), scheme, SCALE, n_windows=200)
        batch = loss.sample(key=jax.random.key(1))
        found.append(float(evaluate(loss, spiral, batch).total))
    assert abs(order_of(steps, found) / (2 * scheme.order) - 1) < 0.15
