import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import hyperpinn_eqx as hpx
from hyperpinn_eqx.uncertainty.error_estimate import estimate_error

SPEC = hpx.MainNetSpec((2, 6, 1), hpx.Box(t=(0, 1), x=(-1, 1)))


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

    `factor` is a change of units of the equation; the solution stays.
    """

    net: hpx.MainNet
    factor: float = eqx.field(static=True, default=1.0)
    domain = hpx.Box(t=(0, 1), x=(-1, 1))
    parameters = hpx.Box(away=(-1e-3, 1e-3))
    derivatives = ("t", "xx")

    def residual(self, u, tx, lam):
        v = hpx.jets(self.net, tx[None], self.derivatives)
        return self.factor * (u.t - u.xx / 4 - (v.t - v.xx / 4)[0])

    def initial(self, tx, lam):
        return self.net(tx)

    boundary = initial

    def exact(self, t, x, lam):
        return hpx.on_grid(self.net, t[:, 0], x[0])


@pytest.fixture
def made(x64, getkey):
    """A problem, and a model that solves it at λ = 0 and errs the more further out."""
    start, along = (
        jax.random.normal(getkey(), (SPEC.size,)) * size for size in (0.7, 1.0)
    )
    problem = Made(SPEC.unflatten(start))
    return Stub(start, along, problem.parameters, SPEC), problem


def told(model, problem, lams, **options):
    options = {"n_points": 200, "key": jax.random.key(0)} | options
    return estimate_error(model, problem, lams=np.array(lams), **options)


def test_it_is_the_error_that_is_measured_with_the_solution(made):
    lams = np.array([-1e-3, -1e-4, 0.0, 1e-5, 1e-3, 0.02])
    found = told(*made, lams)
    with pytest.warns(UserWarning, match="outside the trained range"):
        true = hpx.family_error(*made, lams=lams, n_t=21, n_x=21)
    np.testing.assert_array_equal(found.lam, lams)
    for error in ("mse", "relative_l2"):
        a, b = getattr(found, error), getattr(true, error)
        np.testing.assert_allclose(a[:-1], b[:-1], rtol=0.3, atol=1e-12)
        # There it is no longer linear in the weights.
        np.testing.assert_allclose(a[-1], b[-1], rtol=0.5)


def test_units_of_the_equation_do_not_matter(made):
    model, problem = made
    lams = [-1e-3, 0.0, 1e-5, 1e-4, 1e-3, 0.02]
    scaled = Made(problem.net, factor=1e4)
    a, b = (told(model, p, lams).relative_l2 for p in (problem, scaled))
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-12)


def test_initial_values_and_walls_are_looked_at(made):
    model, problem = made

    class Higher(Made):
        def initial(self, tx, lam):
            return self.net(tx) + 0.01

        boundary = initial

    # u + 0.01 solves the equation and fits the conditions: the residual is zero.
    found = told(model, Higher(problem.net), [0.0])
    np.testing.assert_allclose(found.mse, 1e-4, rtol=1e-3)


def test_an_odd_network_must_not_jump(x64, getkey):
    class Sign(hpx.AbstractPDE):
        """u_x = 0, whose odd solution is zero; without walls a jump fits it too."""

        domain = hpx.Box(x=(-1, 1))
        parameters = hpx.Box(a=(0, 1))
        derivatives = ("x",)

        def residual(self, u, tx, lam):
            return u.x

        def boundary(self, tx, lam):
            return 0.1 * jnp.sign(tx[0])

    spec = hpx.MainNetSpec((1, 4, 1), Sign.domain, odd="x")
    flat = jnp.zeros(spec.size).at[-1].set(0.1)
    model = Stub(flat, 0 * flat, Sign.parameters, spec)
    odd = told(model, Sign(), [0.5]).relative_l2
    plain = hpx.MainNetSpec((1, 4, 1), Sign.domain)

    class Constant(Sign):
        def boundary(self, tx, lam):
            return 0.1 + 0 * tx[0]

    model = Stub(flat, 0 * flat, Sign.parameters, plain)
    assert odd > 0.1 and told(model, Constant(), [0.5]).relative_l2 < 1e-12


def test_more_weights_than_points(made):
    # The same least-squares problem, by its smaller system.
    right, wrong = told(*made, [0.0, 1e-3], n_points=8).relative_l2
    assert right < 1e-12 and wrong > 1e-5


def test_several_coordinates_and_parameters_and_a_ring(getkey):
    problem = hpx.Plume()
    main = hpx.MainNetSpec((3, 4, 1), problem.domain)
    model = eqx.filter_jit(hpx.HyperPINN)(main, problem.parameters, (3,), key=getkey())
    found = told(model, problem, [[0.01, 0.5], [0.05, -9.0]])
    assert found.lam.shape == (2, 2) and np.all(found.relative_l2 > 1e-3)

    ring = hpx.BurgersWave()
    main = hpx.MainNetSpec((2, 4, 1), ring.domain)
    model = eqx.filter_jit(hpx.ConcatPINN)(main, ring.parameters, key=getkey())
    assert np.all(told(model, ring, [[0.2, 0.5]]).relative_l2 > 1e-3)


def test_it_is_in_float64_whatever_the_mode_and_warns_of_no_range(hyper, heat):
    # A warning would be an error here.
    lams = [0.005, 3.0]
    outside = told(hyper, heat, lams)
    with jax.enable_x64(True):
        inside = told(hyper, heat, lams)
    np.testing.assert_allclose(outside.mse, inside.mse, rtol=1e-6)
    assert outside.mse.dtype == np.float64 and jnp.zeros(()).dtype == jnp.float32


def test_the_default_lams_are_spread_over_the_range(hyper, heat, getkey):
    found = estimate_error(hyper, heat, n_lam=2, n_points=200, key=getkey())
    assert 0.01 < found.lam.min() < 0.1 < found.lam.max() < 1.0


def test_a_model_that_is_not_finite_has_the_error_nan(hyper, heat):
    broken = eqx.tree_at(lambda m: m.theta0, hyper, hyper.theta0 * jnp.nan)
    assert np.all(np.isnan(told(broken, heat, [0.1, 0.2]).relative_l2))


def test_a_model_of_another_family_is_an_error(hyper):
    with pytest.raises(ValueError, match="problem has Box.nu.*expected Box.kappa"):
        told(hyper, hpx.Burgers(), [0.01])


def test_the_equation_is_asked_only_where_it_holds(x64, getkey):
    class Disk(hpx.AbstractPDE):
        """u_rr + u_r / r = -q, of which u = q (1 - r²) / 4 is the regular solution."""

        domain = hpx.Box(r=(0, 1))
        parameters = hpx.Box(q=(0.5, 2.0))
        derivatives = ("r", "rr")

        def residual(self, u, r, lam):
            return u.rr + u.r / r[0] + lam

        def boundary(self, r, lam):
            return lam * (1 - r[0] ** 2) / 4

        def exact(self, r, lam):
            return lam * (1 - r**2) / 4

    result = hpx.train_family(
        Disk(),
        main=(6,),
        hidden=(6,),
        adam_steps=100,
        newton_steps=20,
        n_lam=4,
        n_points=30,
        key=getkey(),
        progress=False,
    )
    lams = np.array([0.7, 1.3])
    error = hpx.family_error(result.model, Disk(), lams=lams).relative_l2
    found = hpx.estimate_error(result.model, Disk(), lams=lams, key=getkey())
    assert np.all(error < 0.1) and np.all(np.isfinite(found.relative_l2))
