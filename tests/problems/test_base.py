import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import hyperpinn_eqx as hpx

residuals = eqx.filter_jit(hpx.residuals)


def exact(kappa):
    return lambda tx: -jnp.exp(-kappa * jnp.pi**2 * tx[0]) * jnp.sin(jnp.pi * tx[1])


def test_a_users_equation_tells_its_solution_from_a_wrong_one(heat, x64, getkey):
    points = hpx.uniform(heat.domain, 20, key=getkey())
    for kappa in (0.01, 0.3, 1.0):
        r = residuals(exact(kappa), heat, jnp.array([kappa]), points)
        np.testing.assert_allclose(r, np.zeros(20), atol=1e-13)
    wrong = residuals(exact(0.3), heat, jnp.array([0.4]), points)
    assert jnp.max(jnp.abs(wrong)) > 1e-2


def test_several_parameters_and_space_dimensions(x64, getkey):
    class Advection(hpx.AbstractPDE):
        domain = hpx.Box(t=(0, 1), x=(-1, 1), y=(-1, 1))
        parameters = hpx.Box(a=(0, 1), b=(0, 1))

        def residual(self, u, txy, lam):
            return u.t + lam[0] * u.x + lam[1] * u.y

        @hpx.condition(t=0)
        def start(self, u, txy, lam):
            return u.value - txy[1] * txy[2]

        @hpx.condition(x=(-1, 1), y=(-1, 1))
        def walls(self, u, txy, lam):
            return u.value - self.exact(*txy, lam)

        def exact(self, t, x, y, lam):
            return (x - lam[0] * t) * (y - lam[1] * t)

    problem = Advection()
    loss = hpx.PINNLoss(problem, n_lam=2, n_points=10, n_conditions=6, adaptive=False)
    # A family of functions is a model too.
    model = lambda lam: lambda p: problem.exact(*p, lam)  # noqa: E731
    found = loss(model, loss.sample(_like(problem), key=getkey()))
    assert [*found.terms] == ["physics", "start", "walls"] and found.total < 1e-28


def _like(problem):
    """Any model for a problem."""
    net = hpx.MainNetSpec((len(problem.domain), 1), problem.domain)
    return hpx.SingleNet(net.init(key=jr.key(0)), problem.parameters)


def test_an_unfinished_equation_cannot_be_made(heat):
    for name in ("residual", "domain", "parameters"):
        body = {"domain": heat.domain, "parameters": heat.parameters}
        body["residual"] = lambda self, *_: 0.0
        body.pop(name)
        with pytest.raises(TypeError, match="abstract|domain|parameters"):
            type("Unfinished", (hpx.AbstractPDE,), body)()


@pytest.mark.parametrize(
    ("attribute", "value", "error"),
    [
        ("domain", {"t": (0, 1)}, TypeError),
        ("domain", hpx.Box(time=(0, 1)), ValueError),
        ("domain", hpx.Box(t=(0, 1), n=(0, 1)), ValueError),
        ("parameters", (0.01, 1.0), TypeError),
        ("fields", "u", TypeError),
        ("fields", (), ValueError),
        ("fields", ("u", "u"), ValueError),
    ],
)
def test_an_equation_with_a_wrong_attribute_cannot_be_made(
    attribute, value, error, heat
):
    wrong = type("Wrong", (type(heat),), {attribute: value})
    with pytest.raises(error, match=attribute):
        wrong()


@pytest.mark.parametrize("name", ["physics", "observations", "total", "step"])
def test_a_condition_is_not_called_like_another_column(name, heat):
    method = hpx.condition(x=1)(lambda self, u, tx, lam: u.value)
    with pytest.raises(ValueError, match=name):
        type("Wrong", (type(heat),), {name: method})()
