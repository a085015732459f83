import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx
from hyperpinn_eqx import Manufactured


@pytest.mark.parametrize(
    ("problem", "lam"),
    [
        (hpx.AllenCahn(), [0.3]),
        (hpx.Transport(), [0.5, 0.02, 1.5]),
        (hpx.Plume(), [0.02, 2.0]),
    ],
)
def test_the_residual_is_the_original_one_less_the_source(problem, lam, x64, getkey):
    def v(p, lam):
        return jnp.sin(p[1] + jnp.sum(lam) * p[0]) * jnp.cos(2 * p[-1])

    def other(p):
        return v(p, jnp.array(lam)) ** 2 + jnp.sin(3 * p[1]) * p[0]

    points = hpx.uniform(problem.domain, 20, key=getkey())
    found, original, source = (
        eqx.filter_jit(hpx.residuals)(u, solved, jnp.array(lam), points)
        for u, solved in (
            (other, Manufactured(problem, v)),
            (other, problem),
            (lambda p: v(p, jnp.array(lam)), problem),
        )
    )
    np.testing.assert_allclose(found, original - source, rtol=1e-10, atol=1e-12)
    assert jnp.max(jnp.abs(source)) > 1e-2 and jnp.max(jnp.abs(found)) > 1e-2


class Known(hpx.AbstractModel):
    """A model whose weights make a known function: tanh of a linear one."""

    spec: hpx.MainNetSpec = eqx.field(static=True)
    parameters: hpx.Box = eqx.field(static=True)

    def generate(self, scaled):
        s, n = scaled.astype(float), self.spec.sizes[0]
        weights = (jnp.full((1, n), 0.5) * s[0], jnp.ones((1, 1)))
        return hpx.MainNet(weights, (jnp.full(1, 0.25), jnp.zeros(1)), self.spec)

    def config(self):
        return {}


@pytest.mark.parametrize("problem", [hpx.AllenCahn(), hpx.Plume()])
def test_a_model_that_is_the_solution_has_no_error(problem):
    d = len(problem.domain)
    model = Known(hpx.MainNetSpec((d, 1, 1), problem.domain), problem.parameters)

    def v(p, lam):
        s = problem.parameters.scale(jnp.atleast_1d(lam))[0]
        return jnp.tanh(0.5 * s * jnp.sum(problem.domain.scale(p)) + 0.25)

    size = {"n_lam": 3, "n_t": 3, "n_x": 4}
    error = hpx.family_error(model, Manufactured(problem, v), **size)
    assert np.all(error.relative_l2 < 1e-12)
    wrong = Manufactured(problem, lambda p, lam: v(p, lam) + 0.1)
    error = hpx.family_error(model, wrong, **size)
    np.testing.assert_allclose(error.mse, [0.01] * 3, rtol=1e-10)
