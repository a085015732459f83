import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import hyperpinn_eqx as hpx
from hyperpinn_eqx import estimate_error


class Stub(hpx.AbstractModel):
    """One network for the λ = 0 of a family, and others along a line in its weights."""

    start: Array
    along: Array
    parameters: hpx.Box = eqx.field(static=True)
    spec: hpx.MainNetSpec = eqx.field(static=True)

    def generate(self, scaled):
        return self.spec.unflatten(self.start + scaled[0] * self.along)

    def config(self):
        return {}


class Made(hpx.AbstractPDE):
    """A heat equation that one network solves exactly, at every λ.

    `factor` is a change of units of the equation, `more` one of the conditions.
    """

    net: hpx.MainNet
    factor: float = eqx.field(static=True, default=1.0)
    more: float = eqx.field(static=True, default=0.0)
    domain = hpx.Box(t=(0, 1), x=(-1, 1))
    parameters = hpx.Box(away=(-1e-3, 1e-3))

    def residual(self, u, tx, lam):
        v = hpx.jets(self.net, tx[None], ("t", "xx"))
        return self.factor * (u.t - u.xx / 4 - (v.t - v.xx / 4)[0])

    @hpx.condition(t=0)
    def start(self, u, tx, lam):
        return u.value - self.net(tx) - self.more

    @hpx.condition(x=(-1, 1))
    def walls(self, u, tx, lam):
        return self.factor * (u.value - self.net(tx) - self.more)

    def exact(self, t, x, lam):
        return hpx.on_grid(self.net, t[:, 0], x[0])


@pytest.fixture
def made(x64, getkey):
    """A problem, and a model that solves it at λ = 0 and errs the more further out."""
    spec = hpx.MainNetSpec((2, 6, 1), Made.domain)
    start, along = (
        jax.random.normal(getkey(), (spec.size,)) * size for size in (0.7, 1.0)
    )
    problem = Made(spec.unflatten(start))
    return Stub(start, along, problem.parameters, spec), problem


def told(model, problem, lams, **options):
    options = {"n_points": 200, "key": jax.random.key(0)} | options
    return estimate_error(model, problem, lams=np.array(lams), **options)


def test_it_is_the_error_that_is_measured_with_the_solution(made):
    lams = np.array([-1e-3, -1e-4, 0.0, 1e-5, 1e-3, 0.02])
    found = told(*made, lams)
    with pytest.warns(UserWarning, match="away"):
        true = hpx.family_error(*made, lams=lams, n_t=21, n_x=21)
    np.testing.assert_array_equal(found.lam, lams)
    for error in ("mse", "relative_l2"):
        a, b = getattr(found, error), getattr(true, error)
        np.testing.assert_allclose(a[:-1], b[:-1], rtol=0.3, atol=1e-12)
        # There it is no longer linear in the weights.
        np.testing.assert_allclose(a[-1], b[-1], rtol=0.5)
    # The same in other units of the equation.
    scaled = told(made[0], Made(made[1].net, factor=1e4), lams)
    np.testing.assert_allclose(scaled.mse, found.mse, rtol=1e-6, atol=1e-20)


class Waves(hpx.AbstractPDE):
    """Two fields that one network solves exactly, at every λ, in units of choice."""

    net: hpx.MainNet
    sizes: tuple[float, float] = eqx.field(static=True, default=(1.0, 1.0))
    factor: float = eqx.field(static=True, default=1.0)
    fields = ("u", "v")
    domain = hpx.Box(t=(0, 1), x=(-1, 1))
    parameters = hpx.Box(away=(-1e-3, 1e-3))

    def residual(self, w, tx, lam):
        known = hpx.jets(self.net, tx[None], ("t", "x"))
        (u, v), (a, b) = w, self.sizes
        first = u.t / a - v.x / b - (known.t[0, 0] - known.x[0, 1])
        second = v.t / b - u.x / a - (known.t[0, 1] - known.x[0, 0])
        return self.factor * first, second

    @hpx.condition(t=0)
    def start(self, w, tx, lam):
        known, (a, b) = self.net(tx), self.sizes
        return w[0].value / a - known[0], self.factor * (w[1].value / b - known[1])

    @hpx.condition(x=(-1, 1))
    def walls(self, w, tx, lam):
        return w[0].value / self.sizes[0] - self.net(tx)[0]

    def exact(self, t, x, lam):
        both = hpx.on_grid(self.net, t[:, 0], x[0])
        return both[..., 0] * self.sizes[0], both[..., 1] * self.sizes[1]


def test_a_system_is_estimated_field_by_field_whatever_its_units(x64, getkey):
    spec = hpx.MainNetSpec((2, 6, 2), Waves.domain)
    start, along = (
        jax.random.normal(getkey(), (spec.size,)) * size for size in (0.7, 1.0)
    )
    problem, lams = Waves(spec.unflatten(start)), np.array([1e-4, 1e-3])
    model = Stub(start, along, problem.parameters, spec)
    found = told(model, problem, lams)
    true = hpx.family_error(model, problem, lams=lams, n_t=21, n_x=21)
    assert [*found.fields] == ["u", "v"]
    for name, one in found.fields.items():
        np.testing.assert_allclose(one.mse, true.fields[name].mse, rtol=0.3)
    np.testing.assert_allclose(found.relative_l2, true.relative_l2, rtol=0.3)
    # The same network in other units of both fields, and other units of the equations.
    sizes = 2.0**10, 2.0**-7
    outputs = hpx.Box(u=(-sizes[0], sizes[0]), v=(-sizes[1], sizes[1]))
    other = Stub(
        start,
        along,
        problem.parameters,
        hpx.MainNetSpec(spec.sizes, spec.inputs, outputs),
    )
    changed = told(other, Waves(problem.net, sizes, factor=1e3), lams)
    for name, size in zip("uv", sizes, strict=True):
        one, two = found.fields[name], changed.fields[name]
        np.testing.assert_allclose(two.mse, size**2 * one.mse, rtol=0.1)
        np.testing.assert_allclose(two.relative_l2, one.relative_l2, rtol=0.05)


def test_conditions_are_looked_at_and_weights_may_be_more_than_points(made):
    model, problem = made
    # u + 0.01 solves the equation and fits the conditions: the residual is zero.
    found = told(model, Made(problem.net, more=0.01), [0.0])
    np.testing.assert_allclose(found.mse, 1e-4, rtol=1e-3)
    # The same least-squares problem, by its smaller system.
    right, wrong = told(model, problem, [0.0, 1e-3], n_points=8).relative_l2
    assert right < 1e-12 and wrong > 1e-5


def test_an_odd_network_must_not_jump(x64, steady):
    def estimate(odd):
        # u_x = 0; its odd solution is zero, but without walls a jump fits it too.
        problem = steady(
            lambda u, x, lam: u.x,
            lambda x, lam: 0.1 * (jnp.sign(x[0]) if odd else 1) + 0 * lam,
            x=(-1, 1),
        )
        spec = hpx.MainNetSpec((1, 4, 1), problem.domain, odd=odd)
        flat = jnp.zeros(spec.size).at[-1].set(0.1)
        model = Stub(flat, 0 * flat, problem.parameters, spec)
        return told(model, problem, [1.0]).relative_l2

    assert estimate("x") > 0.1 and estimate(None) < 1e-12


def test_any_domain_will_do(steady, getkey):
    ring = steady(
        lambda u, x, lam: u.value - u.xx - lam * jnp.cos(x[0]),
        x=(0, 2 * np.pi, "periodic"),
    )
    # The equation is asked only where it holds: not in the middle.
    disk = steady(
        lambda u, r, lam: u.rr + u.r / r[0] + lam,
        lambda r, lam: 0 * lam,
        r=(0, 1),
    )
    plane = [[0.06, 0.5], [0.05, -9.0]]
    for problem, lams in ((ring, [0.7, 1.3]), (disk, [0.7, 1.3]), (hpx.Plume(), plane)):
        main = hpx.MainNetSpec((len(problem.domain), 4, 1), problem.domain)
        model = eqx.filter_jit(hpx.ConcatPINN)(main, problem.parameters, key=getkey())
        found = told(model, problem, lams).relative_l2
        assert np.all(found > 0.1) and np.all(np.isfinite(found))


def test_it_is_in_float64_whatever_the_mode_and_warns_of_no_range(hyper, heat, getkey):
    # A warning would be an error here.
    lams = [0.005, 3.0]
    outside = told(hyper, heat, lams)
    with jax.enable_x64(True):
        inside = told(hyper, heat, lams)
    np.testing.assert_allclose(outside.mse, inside.mse, rtol=1e-6)
    assert outside.mse.dtype == np.float64 and jnp.zeros(()).dtype == jnp.float32
    # By default λ is spread over its range.
    found = estimate_error(hyper, heat, n_lam=2, n_points=200, key=getkey())
    assert 0.01 < found.lam.min() < 0.1 < found.lam.max() < 1.0


def test_models_that_are_not_finite_or_of_another_family(hyper, heat):
    broken = eqx.tree_at(lambda m: m.theta0, hyper, hyper.theta0 * jnp.nan)
    assert np.all(np.isnan(told(broken, heat, [0.1, 0.2]).relative_l2))
    with pytest.raises(ValueError, match="nu.*kappa"):
        told(hyper, hpx.Burgers(), [0.01])
