import itertools
import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx

uniform = eqx.filter_jit(hpx.uniform)
BOX = hpx.Plume.parameters
CORNERS = [*itertools.product(*zip(BOX.low, BOX.high, strict=True))]


@pytest.mark.parametrize("lam", [*CORNERS, (0.02, 0.7), (0.01, -2.0)], ids=str)
def test_the_cloud_solves_the_equation(lam, x64, getkey, residual_of):
    problem = hpx.Plume()
    lam = jnp.array(lam)
    points = uniform(hpx.Plume.domain, (40,), key=getkey())
    r = residual_of(problem, lam, lam, points)
    np.testing.assert_allclose(r, np.zeros(40), rtol=0, atol=1e-12)
    for i in range(2):
        wrong = residual_of(problem, lam.at[i].add(0.05), lam, points)
        assert jnp.max(jnp.abs(wrong)) > 1e-3


def test_the_residual_is_the_equation(x64):
    words = dict(zip(("t", "x", "y", "xx", "yy"), jnp.arange(3.0, 8.0), strict=True))
    u = hpx.Jet(jnp.array(2.0), words)
    r = hpx.Plume().residual(u, jnp.zeros(3), jnp.array([0.25, math.pi / 6]))
    expected = 3 + (math.sqrt(3) / 2 * 4 + 5 / 2) / 2 - 0.25 * (6 + 7)
    np.testing.assert_allclose(r, expected, rtol=1e-14)


def test_the_cloud_drifts_with_the_wind_and_keeps_its_mass(x64):
    x = np.linspace(-3, 3, 121)
    t, (D, θ) = np.array([0.0, 0.5, 1.0]), (0.02, 2.0)
    grid = np.meshgrid(t, x, x, indexing="ij", sparse=True)
    u = np.asarray(hpx.Plume().exact(*grid, np.array([D, θ])))
    mass = u.sum((1, 2))
    np.testing.assert_allclose(mass, mass[0], rtol=1e-10)
    np.testing.assert_allclose(mass[0] * 0.05**2, 2 * math.pi / 16, rtol=1e-10)
    across = np.sum(u * x[:, None], (1, 2)) / mass
    np.testing.assert_allclose(across, np.cos(θ) * t / 2, rtol=0, atol=1e-9)
    spread = np.sum(u * x**2, (1, 2)) / mass - (np.sin(θ) * t / 2) ** 2
    np.testing.assert_allclose(spread, 1 / 16 + 2 * D * t, rtol=1e-8)


def test_the_wind_may_turn_all_the_way_round(x64):
    point, u = (0.7, 0.2, -0.4), hpx.Plume().exact
    there, back = (u(*point, np.array([0.01, θ])) for θ in (0.3, 0.3 + 4 * math.pi))
    np.testing.assert_allclose(there, back, rtol=1e-13)


def test_the_conditions_are_those_of_the_cloud(x64):
    problem, lam = hpx.Plume(), jnp.array([0.01, 1.0])
    for point in ([0.0, 0.2, 0.1], [0.7, -1.0, 0.3], [1.0, 0.4, 1.0]):
        expected = problem.exact(*point, lam)
        assert problem.initial(jnp.array(point), lam) == expected
        assert problem.boundary(jnp.array(point), lam) == expected
    start = problem.exact(0.0, 0.25, 0.0, lam)
    np.testing.assert_allclose(start, math.exp(-1 / 2), rtol=1e-14)
