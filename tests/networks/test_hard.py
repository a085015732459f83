"""Networks with conditions built in: g(x, λ) + d(x, λ) N(x)."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx.networks.jets import jets
from hyperpinn_eqx.recipes.family import untrained
from hyperpinn_eqx.training.linear_system import residual_rows

BOX = hpx.Box(t=(0, 1), x=(-1, 2))
NU = hpx.Box(nu=(0.1, 1.0, "log"))
WORDS = ("t", "x", "xx", "tx", "txx", "xxx")


def wave(tx, nu):
    """U = sin πx at the start and the same at the walls."""
    t, x = tx
    return jnp.sin(jnp.pi * x) * (1 + nu * t), t * (x + 1) * (2 - x)


def both(tx, lam):
    t, x = tx
    return (lam[0] * x, jnp.exp(t)), (t, 1.0)


def model_of(hard, outputs=1, parameters=NU):
    spec = hpx.MainNetSpec((2, 5, 4, outputs), BOX, hard=hard)
    return hpx.HyperPINN(spec, parameters, (4, 3), key=jr.key(0))


def plain(model, lam):
    """The same network without what is built in."""
    net = model(lam)
    return hpx.MainNet(
        net.weights, net.biases, hpx.MainNetSpec(net.spec.sizes, net.spec.inputs)
    )


def test_it_is_what_it_says(getkey, x64):
    model = hpx.cast(model_of(wave), jnp.float64)
    net, inner = model(0.3), plain(model, 0.3)
    for point in hpx.uniform(BOX, (10,), key=getkey()):
        g, d = wave(point, 0.3)
        assert jnp.allclose(net(point), g + d * inner(point))
    start = jnp.array([0.0, 0.7])
    assert jnp.allclose(net(start), jnp.sin(0.7 * jnp.pi))
    assert hpx.count_parameters(net) == hpx.count_parameters(inner)


@pytest.mark.parametrize("case", ["one", "several"])
def test_the_fast_way_equals_nested_derivatives(case, getkey, x64):
    if case == "one":
        model, lam = model_of(wave), 0.3
    else:
        box = hpx.Box(a=(1, 2), b=(0, 1))
        model, lam = model_of(both, 2, box), jnp.array([1.5, 0.5])
    net = hpx.cast(model, jnp.float64)(lam)
    points = hpx.uniform(BOX, (7,), key=getkey())
    fast = jets(net, points, WORDS)
    slow = jets(lambda p: net(p), points, WORDS)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12),
        (fast.value, fast.derivatives),
        (slow.value, slow.derivatives),
    )


def test_gauss_newton_sees_the_weights_through_it(x64):
    model = hpx.cast(model_of(wave), jnp.float64)
    loss = hpx.PINNLoss(Heat(), n_lam=2, n_points=5, n_conditions=4)
    batch = loss.sample(model, key=jr.key(1))
    items = jax.tree.map(lambda a: a[0], batch.items)
    a, r = residual_rows(loss, model, batch.lam[0], items)
    net = model(batch.lam[0])
    step = 1e-6 * jr.normal(jr.key(2), net.flatten().shape)

    def rows(theta):
        found = []
        for name, term in loss.terms.items():
            one = term.residuals(net.replaced(theta), batch.lam[0], items[name])
            found.append(term.rows(one, len(one)))
        return jnp.concatenate(found)

    theta = net.flatten()
    change = rows(theta + step) - rows(theta - step)
    np.testing.assert_allclose(a @ step, change / 2, atol=1e-12)
    np.testing.assert_allclose(rows(theta), r, atol=1e-12)


class Heat(hpx.AbstractPDE):
    domain = BOX
    parameters = NU

    def residual(self, u, tx, nu):
        return u.t - nu * u.xx

    @hpx.condition(t=0)
    def start(self, u, tx, nu):
        return u.value - self.exact(*tx, nu)

    @hpx.condition(x=(-1, 2))
    def walls(self, u, tx, nu):
        return u.value - self.exact(*tx, nu)

    def exact(self, t, x, nu):
        return 3 + jnp.exp(-nu * t) * jnp.sin(x)


def built_in(tx, nu):
    t, x = tx
    return 3 + jnp.sin(x), t


def test_a_family_with_built_in_conditions_is_learned():
    result = hpx.train_family(
        Heat(),
        hard=built_in,
        weights={"start": 0},
        adam_steps=100,
        newton_steps=30,
        key=jr.key(0),
        progress=False,
    )
    error = hpx.family_error(result.model, Heat(), n_lam=5)
    assert np.max(error.relative_l2) < 1e-4
    x = np.linspace(-1, 2, 11)
    for nu in (0.1, 0.5):
        u = hpx.on_grid(result.model(nu), np.zeros(1), x)[0]
        np.testing.assert_allclose(u, 3 + np.sin(x), rtol=1e-5)


def test_it_is_saved_and_loaded_with_the_function_at_hand(tmp_path):
    model = model_of(wave)
    hpx.save(tmp_path / "model.eqx", model)
    with pytest.raises(ValueError, match="wave"):
        hpx.load(tmp_path / "model.eqx")
    with pytest.raises(ValueError, match="hard"):
        hpx.load(tmp_path / "model.eqx", like=model_of(built_in))
    with pytest.raises(ValueError, match="hard"):
        hpx.load(tmp_path / "model.eqx", like=model_of(None))
    again = hpx.load(tmp_path / "model.eqx", like=model_of(wave))
    point = jnp.array([0.3, 0.4])
    assert again(0.2)(point) == model(0.2)(point)


def test_one_network_for_each_lambda_has_it_too():
    spec = hpx.MainNetSpec((2, 4, 1), BOX, hard=wave)
    single = hpx.SingleNet(spec.init(key=jr.key(0)), NU)
    start = jnp.array([0.5, -1.0])
    assert single(0.1)(start) != single(1.0)(jnp.array([0.5, 0.3]))
    # At a wall it is g, which follows λ.
    assert jnp.allclose(single(0.4)(start), wave(start, 0.4)[0])
    assert hpx.count_parameters(single) == spec.size


@pytest.mark.parametrize(
    "wrong",
    [
        lambda tx, nu: tx[0],
        lambda tx, nu: (tx, tx[0]),
        lambda tx, nu: (tx[0], tx[0], tx[0]),
    ],
)
def test_what_is_no_pair_of_numbers_is_refused(wrong):
    with pytest.raises(ValueError, match="hard"):
        model_of(wrong)(0.3)(jnp.array([0.5, 0.5]))


def test_a_network_without_a_lambda_says_so():
    spec = hpx.MainNetSpec((2, 4, 1), BOX, hard=wave)
    with pytest.raises(ValueError, match="lam"):
        spec.init(key=jr.key(0))(jnp.array([0.5, 0.5]))


def test_live_figures_refuse_it():
    model = untrained(Heat(), (4,), (3,), key=jr.key(0))
    hard = hpx.HyperPINN(
        hpx.MainNetSpec(model.main.sizes, BOX, hard=built_in), NU, (3,), key=jr.key(0)
    )
    with pytest.raises(ValueError, match="built in"):
        hpx.live_figure(hard, Heat())
