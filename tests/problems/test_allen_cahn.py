import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperpinn_eqx as hpx

uniform = eqx.filter_jit(hpx.uniform)


@pytest.mark.parametrize("D", [0.01, 0.1, 1.0])
def test_the_front_solves_the_equation(D, x64, getkey, residual_of):
    problem, lam = hpx.AllenCahn(), jnp.array([D])
    points = uniform(problem.domain, (40,), key=getkey())
    r = residual_of(problem, lam[0], lam, points)
    np.testing.assert_allclose(r, np.zeros(40), rtol=0, atol=1e-12)
    wrong = residual_of(problem, 0.9 * lam[0], lam, points)
    assert jnp.max(jnp.abs(wrong)) > 1e-3


def test_the_residual_is_the_equation():
    words = {"t": jnp.array(3.0), "xx": jnp.array(7.0)}
    u = hpx.Jet(jnp.array(2.0), words)
    r = hpx.AllenCahn().residual(u, jnp.zeros(2), jnp.array(0.5))
    assert r == 3 - 0.5 * 7 - 2 + 8


def test_the_front_starts_at_one_and_moves_with_its_speed(x64):
    t = np.array([0.0, 1.0, 4.0])
    for D in (0.01, 0.2, 1.0):
        there = 1 + 3 * np.sqrt(D / 2) * t
        middle = hpx.AllenCahn().exact(t, there, D)
        np.testing.assert_allclose(middle, [0.5] * 3, rtol=1e-12)


def test_the_conditions_are_those_of_the_front(x64):
    problem, lam = hpx.AllenCahn(), jnp.array(0.3)
    for point in ([0.0, 2.0], [3.0, 0.0], [1.0, 10.0]):
        expected = problem.exact(*point, 0.3)
        assert problem.initial(jnp.array(point), lam) == expected
        assert problem.boundary(jnp.array(point), lam) == expected


def test_coordinates_broadcast(x64):
    t, x = np.linspace(0, 4, 3)[:, None], np.linspace(0, 10, 5)[None]
    u = hpx.AllenCahn().exact(t, x, 0.1)
    assert u.shape == (3, 5)
    np.testing.assert_array_equal(u[2, 1], hpx.AllenCahn().exact(4.0, 2.5, 0.1))


def test_it_holds_no_arrays():
    assert jax.tree.leaves(hpx.AllenCahn()) == []
