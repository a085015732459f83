import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import Manufactured

uniform = eqx.filter_jit(hpx.uniform)
residuals = eqx.filter_jit(hpx.residuals)


def one(tx, lam):
    """For one parameter."""
    return jnp.exp(-lam * tx[0]) * jnp.cos(tx[1])


def several(tx, lam):
    return jnp.sin(lam[0] * tx[1]) + lam[1] * lam[2] * tx[0] ** 2


def plane(p, lam):
    """For two space dimensions."""
    return jnp.sin(p[1] + lam[0] * p[0]) * jnp.cos(lam[1] * p[2])


CASES = {
    "one": (hpx.AllenCahn(), one, [0.3]),
    "several": (hpx.Transport(), several, [0.5, 0.02, 1.5]),
    "plane": (hpx.Plume(), plane, [0.02, 2.0]),
}


@pytest.fixture(params=CASES)
def case(request, x64, getkey):
    problem, v, lam = CASES[request.param]
    points = uniform(problem.domain, (20,), key=getkey())
    value = lam[0] if len(lam) == 1 else jnp.array(lam)
    return Manufactured(problem, v), v, jnp.array(lam), value, points


def test_the_chosen_function_is_the_solution(case):
    made, v, lam, value, points = case
    r = residuals(lambda p: v(p, value), made, lam, points)
    np.testing.assert_allclose(r, np.zeros(20), rtol=0, atol=1e-13)


def test_the_residual_is_the_original_one_less_the_source(case):
    made, v, lam, value, points = case

    def other(p):
        return v(p, value) ** 2 + jnp.sin(3 * p[1]) * p[0]

    found = residuals(other, made, lam, points)
    original = residuals(other, made.problem, lam, points)
    source = residuals(lambda p: v(p, value), made.problem, lam, points)
    np.testing.assert_allclose(found, original - source, rtol=1e-10, atol=1e-12)
    assert jnp.max(jnp.abs(source)) > 1e-2 and jnp.max(jnp.abs(found)) > 1e-2


def test_conditions_and_exact_solution_are_the_chosen_function(case):
    made, v, _, value, points = case
    expected = jax.vmap(lambda p: v(p, value))(points)
    for known in (made.initial, made.boundary):
        found = jax.vmap(known, (0, None))(points, jnp.asarray(value))
        np.testing.assert_array_equal(found, expected)
    exact = made.exact(*points.T, value)
    np.testing.assert_allclose(exact, expected, rtol=1e-14)
    # An axis for each coordinate.
    d = points.shape[1]
    axes = np.meshgrid(*([0.1, 0.7],) * d, indexing="ij", sparse=True)
    grid = made.exact(*axes, value)
    assert grid.shape == (2,) * d
    np.testing.assert_allclose(grid[(1,) * d], v(jnp.full(d, 0.7), value), rtol=1e-14)


def test_it_has_the_domain_and_the_range_of_its_problem(case):
    made, *_ = case
    problem = made.problem
    assert made.domain == problem.domain and made.parameters == problem.parameters
    assert made.derivatives == problem.derivatives
    assert jax.tree.leaves(made) == []


class Known(hpx.AbstractModel):
    """A model whose weights make a known function: tanh of a linear one."""

    spec: hpx.MainNetSpec = eqx.field(static=True)
    parameters: hpx.Box = eqx.field(static=True)

    def generate(self, scaled):
        s = scaled.astype(float)
        n = self.spec.sizes[0]
        weights = (jnp.full((1, n), 0.5) * s[0], jnp.ones((1, 1)))
        return hpx.MainNet(weights, (jnp.full(1, 0.25), jnp.zeros(1)), self.spec)

    def config(self):
        return {}


@pytest.mark.parametrize("problem", [hpx.AllenCahn(), hpx.Transport(), hpx.Plume()])
def test_a_model_that_is_the_solution_has_no_error(problem):
    d = len(problem.domain)
    model = Known(hpx.MainNetSpec((d, 1, 1), problem.domain), problem.parameters)

    def v(p, lam):
        lam = jnp.atleast_1d(lam)
        s = problem.parameters.scale(lam)[0]
        return jnp.tanh(0.5 * s * jnp.sum(problem.domain.scale(p)) + 0.25)

    made = Manufactured(problem, v)
    error = hpx.family_error(model, made, n_lam=3, n_t=3, n_x=4)
    assert np.all(error.relative_l2 < 1e-12)
    wrong = Manufactured(problem, lambda p, lam: v(p, lam) + 0.1)
    error = hpx.family_error(model, wrong, n_lam=3, n_t=3, n_x=4)
    np.testing.assert_allclose(error.mse, [0.01] * 3, rtol=1e-10)
